"""Frames of Polar's Measurement Data service: type of measurement, time, frame type, samples.

Source: Polar, "Polar Measurement Data", version 1.0 (2024), section 4.2, and the decoder of the vendor's SDK (8fb5311c), which
wins where the two disagree. A signal of several channels becomes one waveform for each channel.

`ppg` is the channel that the analysis reads. Polar says of the OH1 and the Verity Sense that their three channels are the pulse
signals of three pairs of green LEDs, the fourth the ambient light (polar-ble-sdk, issues 52 and 445), and of the Polar 360 that
both channels see its central green LED (Polar360.md). It prefers none of them, so `ppg` is the first green channel. A sum would
not be what the sensor sent, and would saturate where one channel does.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from drivers.delta_frames import Columns, check_records, decode_deltas, read_column
from drivers.pmd_intervals import decode_ppi
from drivers.pmd_measurements import DEFAULT_STREAMS, MEASUREMENT_BITS, WITHOUT_RATE, Measurement, Stream, name_of
from drivers.readings import SENSOR_NS_LIMIT, DecodeError, Reading, Status, Vital, Waveform

_BodyDecoder = Callable[[bytes, Stream, int | None], tuple[Reading, ...]]
"""Decodes the samples of a frame, given its stream and the time of the last sample in ns."""
_ValuesDecoder = Callable[[bytes], tuple[Reading, ...]]
"""Decodes samples that become readings without rate and time."""

_HEADER: Final = struct.Struct("<BQB")
_FLOAT_DECIMALS: Final = 4
"""Decimals kept of a floating-point value: 0.0001 °C, hPa or °/s are below what any sensor resolves."""


def decode_frame(payload: bytes, streams: Mapping[int, Stream] = DEFAULT_STREAMS) -> tuple[Reading, ...]:
    """Decode a frame of the data characteristic. `streams` is what the sensor says of its streams, by measurement.

    The `last_ns` of its waveforms is the time of the last sample in ns since 2000-01-01, in the time zone of whoever set the
    clock. The H10 starts at 2019-01-01 until somebody does. It is None, beside a status, where it exceeds `SENSOR_NS_LIMIT`.

    Raises:
        DecodeError: Polar does not define this type of frame, or its samples are incomplete.
    """
    if len(payload) < _HEADER.size:
        raise DecodeError(f"header: needs {_HEADER.size} bytes (measurement, time, frame type), the payload has {len(payload)}")
    first, last_ns, frame_type = _HEADER.unpack_from(payload)
    measurement = first & MEASUREMENT_BITS
    decode = _BODY_DECODERS.get((measurement, frame_type))
    if decode is None:
        raise DecodeError(f"frame type: {frame_type:#04x} of measurement {name_of(measurement)} is not one that can be decoded")
    body = payload[_HEADER.size :]
    stream = streams.get(measurement, WITHOUT_RATE)
    if last_ns < SENSOR_NS_LIMIT:
        return decode(body, stream, last_ns)
    return (Status("sensor_clock", "invalid"), *decode(body, stream, None))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Channels of `size` bytes: `signals`, in which 1 is `scale` units times the stream's factor, then `words` without a unit.

    Where a factor is needed and unknown, the signals have kinds without a unit (`acc_raw_x`).
    """

    size: int
    signals: tuple[str, ...]
    words: tuple[str, ...] = ()
    scale: float = 1.0
    needs_factor: bool = False

    def decode_raw(self, body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
        """Decode samples that are not compressed. The vendor's SDK does not apply the factor to them."""
        record = self.size * len(self.signals + self.words)
        check_records(body, record)
        columns = tuple(read_column(body, start, record, self.size) for start in range(0, record, self.size))
        return self._to_waveforms(columns, Stream(stream.rate_hz), last_ns)

    def decode_compressed(self, body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
        columns = decode_deltas(body, len(self.signals + self.words), self.size)
        return self._to_waveforms(columns, stream, last_ns)

    def _to_waveforms(self, columns: Columns, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
        signals, scale = self.signals, self.scale * (1.0 if stream.factor is None else stream.factor)
        if self.needs_factor and stream.factor is None:
            signals, scale = tuple(kind.replace("_", "_raw_", 1) for kind in signals), 1.0
        scales = (scale,) * len(signals) + (1.0,) * len(self.words)
        return tuple(
            Waveform(kind, samples, stream.rate_hz, channel_scale, last_ns)
            for kind, samples, channel_scale in zip(signals + self.words, columns, scales, strict=True)
        )


def _decode_ecg(body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
    """Frame type 0, that of the H10: signed samples of 1 µV."""
    check_records(body, 3)
    return (Waveform("ecg", read_column(body, 0, 3, 3), stream.rate_hz, _MILLIVOLTS_PER_MICROVOLT, last_ns),)


@dataclass(frozen=True, slots=True)
class _BitField:
    """A part of each 3-byte ECG sample."""

    kind: str
    shift: int
    bits: int
    scale: float = 1.0


def _decode_tagged_ecg(fields: tuple[_BitField, ...], body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
    """Frame types 1 and 2: a sample of 1 µV and tags, whose meaning Polar does not publish. It reads the sample as unsigned."""
    check_records(body, 3)
    samples = read_column(body, 0, 3, 3)
    return tuple(
        Waveform(
            field.kind,
            tuple(sample >> field.shift & (1 << field.bits) - 1 for sample in samples),
            stream.rate_hz,
            field.scale,
            last_ns,
        )
        for field in fields
    )


def _decode_ecg_with_impedance(body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
    """Frame type 3: ECG and bioimpedance of 24 bits in units that Polar does not publish, and a status byte."""
    check_records(body, 7)
    columns = {
        "ecg_raw": read_column(body, 0, 7, 3),
        "bioimpedance": read_column(body, 3, 7, 3),
        "ecg_status": tuple(body[6::7]),
    }
    return tuple(Waveform(kind, samples, stream.rate_hz, 1.0, last_ns) for kind, samples in columns.items())


def _decode_ppg_slots(slots: int, body: bytes) -> tuple[Reading, ...]:
    """Frame types 4, 9 and 14: for each of `slots` time slots the number of integrations, then the gains of two channels."""
    check_records(body, 3 * slots)
    readings: list[Reading] = []
    for start in range(0, len(body), 3 * slots):
        integrations, gains = body[start : start + slots], body[start + slots : start + 3 * slots]
        readings += (
            Status("ppg_integrations", ", ".join(map(str, integrations))),
            Status("ppg_gain_1", ", ".join(str(gain & _GAIN_BITS) for gain in gains[::2])),
            Status("ppg_gain_2", ", ".join(str(gain & _GAIN_BITS) for gain in gains[1::2])),
        )
    return tuple(readings)


def _decode_ppg_number(kind: str, size: int, body: bytes) -> tuple[Reading, ...]:
    """Frame types 5 and 6: the mode of the optics, and the number of the sport that the sensor records."""
    check_records(body, size)
    return tuple(Status(kind, int.from_bytes(body[at : at + size], "little")) for at in range(0, len(body), size))


def _decode_raw_values(kind: str, body: bytes) -> tuple[Reading, ...]:
    """Temperatures and pressures, as 4-byte floating-point numbers."""
    check_records(body, 4)
    return _to_vitals(kind, read_column(body, 0, 4, 4), WITHOUT_RATE)


def _decode_compressed_values(kind: str, body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
    del last_ns
    return _to_vitals(kind, decode_deltas(body, 1, 4)[0], stream)


def _to_vitals(kind: str, patterns: tuple[int, ...], stream: Stream) -> tuple[Reading, ...]:
    return tuple(Vital(kind, round(value, _FLOAT_DECIMALS)) for value in _to_floats(patterns, stream))


def _decode_angular_rates(body: bytes, stream: Stream, last_ns: int | None) -> tuple[Reading, ...]:
    """Gyroscope, frame type 1: floating-point numbers in degrees a second, which become whole ten-thousandths."""
    steps = 10**_FLOAT_DECIMALS
    return tuple(
        Waveform(
            kind, tuple(round(value * steps) for value in _to_floats(patterns, stream)), stream.rate_hz, 1 / steps, last_ns
        )
        for kind, patterns in zip(_GYRO, decode_deltas(body, len(_GYRO), 4), strict=True)
    )


def _to_floats(patterns: tuple[int, ...], stream: Stream) -> list[float]:
    """The floating-point numbers with these bit patterns, times the stream's factor.

    Raises:
        DecodeError: one is not a finite number.
    """
    factor = 1.0 if stream.factor is None else stream.factor
    values: list[float] = [
        value * factor for value in struct.unpack(f"<{len(patterns)}f", struct.pack(f"<{len(patterns)}i", *patterns))
    ]
    if not all(map(math.isfinite, values)):
        raise DecodeError("samples: a value is not a finite number")
    return values


_MILLIVOLTS_PER_MICROVOLT: Final = 0.001
_MILLI_G_PER_G: Final = 1000.0
_GAUSS_PER_MILLIGAUSS: Final = 0.001
_GAIN_BITS: Final = 0x07

_ACC: Final = ("acc_x", "acc_y", "acc_z")
_GYRO: Final = ("gyro_x", "gyro_y", "gyro_z")
_MAG: Final = ("mag_x", "mag_y", "mag_z")
_PPG: Final = ("ppg", *(f"ppg_{number}" for number in range(2, 25)))
_PPG_COLOURS: Final = (
    *(f"ppg_red_{number}" for number in range(1, 9)),
    *("ppg", *(f"ppg_green_{number}" for number in range(2, 7))),
    *(f"ppg_ir_{number}" for number in range(1, 7)),
)
_PPG_STATUS: Final = ("ppg_status",)
_AMBIENT: Final = ("ppg_ambient",)
PPG_KINDS: Final = frozenset((*_PPG, *_PPG_COLOURS, *_PPG_STATUS, *_AMBIENT))
"""The kinds of the waveforms in the frames of a PPG."""
_THREE_LEDS: Final = _Layout(3, (*_PPG[:3], *_AMBIENT))

_ECG_TYPE_1: Final = (
    _BitField("ecg", 0, 14, _MILLIVOLTS_PER_MICROVOLT),
    _BitField("ecg_oversampling", 16, 1),
    _BitField("ecg_contact", 17, 2),
    _BitField("ecg_impedance", 19, 2),
)
_ECG_TYPE_2: Final = (
    _BitField("ecg", 0, 18, _MILLIVOLTS_PER_MICROVOLT),
    _BitField("ecg_tag", 18, 3),
    _BitField("pace_tag", 21, 3),
)


def _without_time(decode: _ValuesDecoder) -> _BodyDecoder:
    return lambda body, _stream, _last_ns: decode(body)


_RAW: Final[Mapping[tuple[int, int], _BodyDecoder]] = {
    (Measurement.ECG, 0): _decode_ecg,
    (Measurement.ECG, 1): partial(_decode_tagged_ecg, _ECG_TYPE_1),
    (Measurement.ECG, 2): partial(_decode_tagged_ecg, _ECG_TYPE_2),
    (Measurement.ECG, 3): _decode_ecg_with_impedance,
    (Measurement.PPG, 0): _THREE_LEDS.decode_raw,
    (Measurement.PPG, 4): _without_time(partial(_decode_ppg_slots, 12)),
    (Measurement.PPG, 5): _without_time(partial(_decode_ppg_number, "ppg_operation_mode", 4)),
    (Measurement.PPG, 6): _without_time(partial(_decode_ppg_number, "ppg_sport", 8)),
    (Measurement.PPG, 9): _without_time(partial(_decode_ppg_slots, 12)),
    (Measurement.PPG, 14): _without_time(partial(_decode_ppg_slots, 1)),
    (Measurement.ACC, 0): _Layout(1, _ACC).decode_raw,
    (Measurement.ACC, 1): _Layout(2, _ACC).decode_raw,
    (Measurement.ACC, 2): _Layout(3, _ACC).decode_raw,
    (Measurement.PPI, 0): _without_time(decode_ppi),
    (Measurement.SKIN_TEMP, 0): _without_time(partial(_decode_raw_values, "skin_temperature")),
    (Measurement.PRESSURE, 0): _without_time(partial(_decode_raw_values, "air_pressure")),
    (Measurement.TEMPERATURE, 0): _without_time(partial(_decode_raw_values, "sensor_temperature")),
}
_COMPRESSED: Final[Mapping[tuple[int, int], _BodyDecoder]] = {
    (Measurement.PPG, 0): _THREE_LEDS.decode_compressed,
    (Measurement.PPG, 7): _Layout(3, _PPG[:16], _PPG_STATUS).decode_compressed,
    (Measurement.PPG, 8): _Layout(3, _PPG, _PPG_STATUS).decode_compressed,
    (Measurement.PPG, 10): _Layout(3, _PPG_COLOURS, _PPG_STATUS).decode_compressed,
    (Measurement.PPG, 13): _Layout(3, _PPG[:2], _PPG_STATUS).decode_compressed,
    (Measurement.ACC, 0): _Layout(2, _ACC, scale=_MILLI_G_PER_G, needs_factor=True).decode_compressed,
    (Measurement.ACC, 1): _Layout(2, _ACC).decode_compressed,
    (Measurement.GYRO, 0): _Layout(2, _GYRO, needs_factor=True).decode_compressed,
    (Measurement.GYRO, 1): _decode_angular_rates,
    (Measurement.MAG, 0): _Layout(2, _MAG, needs_factor=True).decode_compressed,
    (Measurement.MAG, 1): _Layout(2, _MAG, ("mag_calibration",), scale=_GAUSS_PER_MILLIGAUSS).decode_compressed,
    (Measurement.SKIN_TEMP, 0): partial(_decode_compressed_values, "skin_temperature"),
    (Measurement.PRESSURE, 0): partial(_decode_compressed_values, "air_pressure"),
    (Measurement.TEMPERATURE, 0): partial(_decode_compressed_values, "sensor_temperature"),
}
_IS_COMPRESSED: Final = 0x80
"""The highest bit of a frame type."""
_BODY_DECODERS: Final[Mapping[tuple[int, int], _BodyDecoder]] = {
    **{(int(measurement), number): decode for (measurement, number), decode in _RAW.items()},
    **{(int(measurement), number | _IS_COMPRESSED): decode for (measurement, number), decode in _COMPRESSED.items()},
}
"""By measurement and frame type. The names of types that the SDK lists and cannot decode are left out."""

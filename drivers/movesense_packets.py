"""The packets of Movesense's measurements: the resources `/Meas/...` in their binary form.

Source: movesense-device-lib, MovesenseCoreLib/resources/movesense-api/meas/*.yaml, and a capture of each with the JSON
that the vendor's converter makes of it. A packet is a time stamp in ms since the sensor was switched on (32 bits) and samples.
The stamp is that of the **first** sample, as acc.yaml says and as the vendor's converter reads all of them.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from drivers.codec import Reader
from drivers.heart_rate import interval_readings, rate_flags, to_ticks
from drivers.millisecond_clock import MillisecondClock
from drivers.readings import DecodeError, Reading, Vital, Waveform

PacketDecoder = Callable[[bytes, MillisecondClock], tuple[Reading, ...]]

STAMP_BYTES: Final = 4
PACKETS_PER_SECOND: Final = 13
"""Motion packets: the array holds one sample at 13 Hz, four at 52 Hz."""

MILLIVOLTS_PER_COUNT: Final = 0.000381469726563
"""Of an ECG sample in counts: the vendor's converter (ms_json2csv.py of its data logger tool)."""
MILLIVOLTS_PER_SAMPLE: Final = 0.001
"""Of an ECG sample of the resource `/Meas/Ecg/.../mV`."""

AXIS_STEP: Final = 0.0001
"""Motion is sent as 32-bit floating-point numbers and kept in steps of 0.0001 m/s², °/s or µT: the sensors resolve 0.0006 m/s²
(ST LSM6DS3: 0.061 mg) and coarser."""
_AXIS_LIMIT: Final = 2**31 * AXIS_STEP
AXIS_SCALES: Final[Mapping[str, float]] = {
    "acc": AXIS_STEP * 1000 / 9.80665,
    "gyro": AXIS_STEP,
    "mag": AXIS_STEP / 100,
}
"""What one step is in the unit of the kind, by quantity: mg, °/s and G. 1 g is 9.80665 m/s², 1 G is 100 µT."""
ECG_SAMPLES: Final = 16
"""Samples of an ECG packet: ecg.yaml, ArraySize."""
_ECG_SCALES: Final = {2 * ECG_SAMPLES: MILLIVOLTS_PER_SAMPLE, 4 * ECG_SAMPLES: MILLIVOLTS_PER_COUNT}
_INTEGER_FORMATS: Final = {2: "h", 4: "i"}
_HEART_RATE_BYTES: Final = 6
"""Of a heart rate with one interval."""
_AXES: Final = "xyz"
_TRIPLE_BYTES: Final = 12


def decode_ecg(packet: bytes, clock: MillisecondClock, *, rate_hz: int, sample_bytes: int, scale: float) -> tuple[Reading, ...]:
    """An ECG packet: the stamp, then signed samples of `sample_bytes`, one least significant bit of which is `scale` mV."""
    reader = Reader(packet)
    stamp_ms = reader.u32("time stamp")
    samples = _read_integers(reader, sample_bytes)
    return (Waveform("ecg", samples, float(rate_hz), scale, _last_ns(clock, stamp_ms, len(samples), rate_hz)),)


def decode_motion(packet: bytes, clock: MillisecondClock, *, quantities: tuple[str, ...], rate_hz: int) -> tuple[Reading, ...]:
    """A motion packet: the stamp, then for each quantity all its samples of x, y and z. Yields a waveform for each axis."""
    reader = Reader(packet)
    stamp_ms = reader.u32("time stamp")
    count = _count_samples(reader, _TRIPLE_BYTES * len(quantities))
    last_ns = _last_ns(clock, stamp_ms, count, rate_hz)
    return tuple(
        Waveform(f"{quantity}_{axis}", samples, float(rate_hz), AXIS_SCALES[quantity], last_ns)
        for quantity in quantities
        for axis, samples in zip(_AXES, _read_axes(reader, count), strict=True)
    )


def decode_unidentified(packet: bytes, clock: MillisecondClock) -> tuple[Reading, ...]:
    """A packet of a resource that is not known. What it is read as follows from its size.

    A heart rate and 16 samples of an ECG have sizes that no other resource has; every other packet is read as motion. The
    waveforms have the kinds `unidentified_...`: their quantity is not certain. Their rate is not known: it is given as if the
    packet were of motion, and the time of their last sample is the stamp.
    """
    if len(packet) == _HEART_RATE_BYTES:
        return decode_heart_rate(packet, clock)
    reader = Reader(packet)
    last_ns = clock.continue_ms(reader.u32("time stamp")) * 1_000_000
    if reader.remaining in _ECG_SCALES:
        scale = _ECG_SCALES[reader.remaining]
        axes = [_read_integers(reader, reader.remaining // ECG_SAMPLES)]
    else:
        axes, scale = list(_read_axes(reader, _count_samples(reader, _TRIPLE_BYTES))), AXIS_STEP
    rate_hz = float(len(axes[0]) * PACKETS_PER_SECOND)
    return tuple(
        Waveform(f"unidentified_{axis}", samples, rate_hz, scale, last_ns) for axis, samples in zip(_AXES, axes, strict=False)
    )


def decode_heart_rate(packet: bytes, clock: MillisecondClock) -> tuple[Reading, ...]:
    """A heart rate packet, which has no stamp: the mean rate in 1/min as a float, then R-R intervals in ms, oldest first."""
    del clock
    reader = Reader(packet)
    (rate,) = struct.unpack("<f", reader.read_bytes("heart rate", 4))
    if not math.isfinite(rate):
        raise DecodeError("heart rate: not a finite number")
    if reader.remaining % 2:
        raise DecodeError(f"R-R intervals: {reader.remaining} bytes are not a whole number of 2-byte intervals")
    sent_ms = tuple(reader.u16("R-R interval") for _ in range(reader.remaining // 2))
    ticks = tuple(to_ticks(ms, 1000) for ms in sent_ms)
    flags = (*rate_flags(rate), *(("zero_interval",) if 0 in sent_ms else ()))
    return (Vital("heart_rate", round(rate, 2), flags), *interval_readings(ticks))


def _count_samples(reader: Reader, size: int) -> int:
    """The number of samples of `size` bytes that the rest of a packet holds."""
    count, rest = divmod(reader.remaining, size)
    if rest or not count:
        raise DecodeError(f"samples: {reader.remaining} bytes are not a whole number of {size}-byte samples (at least one)")
    return count


def _read_integers(reader: Reader, size: int) -> tuple[int, ...]:
    """The signed samples of `size` bytes that are the rest of a packet."""
    count = _count_samples(reader, size)
    return struct.unpack(f"<{count}{_INTEGER_FORMATS[size]}", reader.read_rest())


def _read_axes(reader: Reader, count: int) -> Iterator[tuple[int, ...]]:
    """The samples of each axis, in steps of `AXIS_STEP`."""
    values = struct.unpack(f"<{count * len(_AXES)}f", reader.read_bytes("samples", count * _TRIPLE_BYTES))
    if not all(abs(value) < _AXIS_LIMIT for value in values):  # nor for what is not a number
        raise DecodeError(f"samples: one is not a number below {_AXIS_LIMIT:.0f}, as every sensor of motion measures")
    steps = tuple(round(value / AXIS_STEP) for value in values)
    yield from (steps[axis :: len(_AXES)] for axis in range(len(_AXES)))


def _last_ns(clock: MillisecondClock, stamp_ms: int, count: int, rate_hz: int) -> int:
    return clock.continue_ms(stamp_ms) * 1_000_000 + (count - 1) * 1_000_000_000 // rate_hz

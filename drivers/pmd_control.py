"""The control point of Polar's Measurement Data service: requests, answers, settings.

Source: Polar, "Polar Measurement Data", version 1.0 (2024), sections 1 to 3, and `PmdControlPointResponse` and `PmdSetting` of
the vendor's SDK.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from drivers.codec import Reader
from drivers.conversation import RefusedError
from drivers.pmd_measurements import ECG_RATE_HZ, MEASUREMENT_BITS, Measurement, Stream, name_of
from drivers.readings import RATE_RANGE_HZ, DecodeError, Reading, Status

GET_SETTINGS: Final = 0x01
START: Final = 0x02
STOP: Final = 0x03
STOPPED: Final = 0x01
"""The first byte of the sensor's report that it stopped measurements; their types follow."""
_RESPONSE: Final = 0xF0
_FEATURES: Final = 0x0F

SUCCESS: Final = 0
ALREADY_IN_STATE: Final = 6

_REQUESTS: Final[Mapping[int, str]] = {
    GET_SETTINGS: "get_settings",
    START: "start",
    STOP: "stop",
    4: "get_sdk_mode_settings",
    5: "get_measurement_status",
    6: "get_sdk_mode_status",
    7: "get_offline_trigger_status",
    8: "set_offline_trigger_mode",
    9: "set_offline_trigger_settings",
}
_STATUSES: Final[Mapping[int, tuple[str, str]]] = {
    SUCCESS: ("success", "it did so"),
    1: ("invalid_op_code", "it does not know this request"),
    2: ("invalid_measurement_type", "it does not know this measurement"),
    3: ("not_supported", "it does not support this measurement"),
    4: ("invalid_length", "the request has the wrong length"),
    5: ("invalid_parameter", "the request has a wrong parameter"),
    ALREADY_IN_STATE: ("already_in_state", "it is already in this state"),
    7: ("invalid_resolution", "it does not offer this resolution"),
    8: ("invalid_sample_rate", "it does not offer this sample rate"),
    9: ("invalid_range", "it does not offer this range"),
    10: ("invalid_mtu", "the connection's MTU is too small for a frame: 232 bytes are needed"),
    11: ("invalid_number_of_channels", "it does not offer this number of channels"),
    12: ("invalid_state", "it cannot do so in its present state"),
    13: ("device_in_charger", "it is in its charger; take it out"),
    14: ("disk_full", "its memory is full"),
}
"""By number: the vendor's name, and what it means to the reader of a message."""


class Setting(IntEnum):
    """The types of settings, by number."""

    SAMPLE_RATE = 0
    RESOLUTION = 1
    RANGE = 2
    RANGE_MILLIUNITS = 3
    CHANNELS = 4
    FACTOR = 5
    SECURITY = 6


_SIZES: Final[Mapping[int, int]] = {
    Setting.SAMPLE_RATE: 2,
    Setting.RESOLUTION: 2,
    Setting.RANGE: 2,
    Setting.RANGE_MILLIUNITS: 4,
    Setting.CHANNELS: 1,
    Setting.FACTOR: 4,
    Setting.SECURITY: 16,
}
"""Bytes of one value."""
_KINDS: Final[Mapping[int, str]] = {
    Setting.SAMPLE_RATE: "offered_sample_rate",
    Setting.RESOLUTION: "offered_resolution",
    Setting.RANGE: "offered_range",
    Setting.RANGE_MILLIUNITS: "offered_range_milliunits",
    Setting.CHANNELS: "offered_channels",
}
_REQUESTED: Final = frozenset(_KINDS)
"""The settings that a start names. The factor is the sensor's to say, and security concerns its stored measurements."""

Settings = Mapping[int, tuple[int, ...]]
"""By type of setting, its values."""

PREFERRED_RATES_HZ: Final[Mapping[int, int]] = {Measurement.ECG: ECG_RATE_HZ, Measurement.PPG: 55, Measurement.ACC: 25}
"""The only rate of the H10's ECG, and that of the Verity Sense's PPG outside SDK mode: above the 25 Hz that the analysis needs,
without the radio time of 135 Hz. That of the acceleration is the H10's lowest; steps are below 3 Hz. The nearest rate that a
sensor offers is chosen."""
ACC_RANGE_G: Final = 4
"""The preferred range of the acceleration: steps stay below 3 g at the chest, and samples are in mg in every range."""


def parse_settings(data: bytes) -> Settings:
    """Parse a list of settings: type, number of values, values.

    Raises:
        DecodeError: a type is unknown, or a value incomplete.
    """
    reader = Reader(data)
    found: dict[int, tuple[int, ...]] = {}
    while reader.remaining:
        setting = reader.u8("setting")
        if setting not in _SIZES:
            raise DecodeError(f"setting: {setting} is not a type of setting; 0 to {max(_SIZES)} are")
        values = range(reader.u8("number of values"))
        found[setting] = tuple(
            int.from_bytes(reader.read_bytes("value of a setting", _SIZES[setting]), "little") for _ in values
        )
    return found


def choose_settings(measurement: int, offered: Settings) -> dict[int, int]:
    """Choose one value of each setting that a start names: the one nearest to the preferred value, else the largest."""
    chosen = {setting: max(values) for setting, values in sorted(offered.items()) if setting in _REQUESTED and values}
    if Setting.SAMPLE_RATE in chosen and measurement in PREFERRED_RATES_HZ:
        preferred = PREFERRED_RATES_HZ[measurement]
        chosen[Setting.SAMPLE_RATE] = min(offered[Setting.SAMPLE_RATE], key=lambda rate: abs(rate - preferred))
    if Setting.RANGE in chosen and measurement == Measurement.ACC:
        chosen[Setting.RANGE] = min(offered[Setting.RANGE], key=lambda range_g: abs(range_g - ACC_RANGE_G))
    return chosen


def encode_settings(chosen: Mapping[int, int]) -> bytes:
    """Encode one value of each setting."""
    return b"".join(bytes((setting, 1)) + value.to_bytes(_SIZES[setting], "little") for setting, value in chosen.items())


def factor_of(settings: Settings) -> float | None:
    """The factor from samples to units among these settings; None if there is none, or one that no sensor can mean."""
    for value in settings.get(Setting.FACTOR, ()):
        factor: float = struct.unpack("<f", value.to_bytes(4, "little"))[0]
        return factor if math.isfinite(factor) and factor > 0 else None
    return None


def learn_stream(stream: Stream, settings: Settings) -> Stream:
    """The stream with what these settings say of it: the rate, if they give one that a waveform can have, and the factor."""
    rates = settings.get(Setting.SAMPLE_RATE, ())
    low_hz, high_hz = RATE_RANGE_HZ
    rate_hz = float(rates[0]) if len(rates) == 1 and low_hz <= rates[0] <= high_hz else stream.rate_hz
    factor = factor_of(settings)
    return Stream(rate_hz, stream.factor if factor is None else factor)


@dataclass(frozen=True, slots=True)
class Answer:
    """The sensor's answer to a request. A longer answer comes in several values; `more` is set in all but the last."""

    request: int
    measurement: int
    status: int
    more: bool
    parameters: bytes

    def settings(self) -> Settings:
        """The settings among the parameters. A single byte is a reserved one of the H10's answer to a start.

        Raises:
            DecodeError: the parameters are not a list of settings.
        """
        return parse_settings(self.parameters) if len(self.parameters) > 1 else {}


def parse_answer(payload: bytes) -> Answer | None:
    """Parse a value of the control point; None if it is not an answer. What follows the status of a refusal says nothing."""
    if len(payload) < 4 or payload[0] != _RESPONSE:
        return None
    is_success = payload[3] == SUCCESS
    more, parameters = (any(payload[4:5]), payload[5:]) if is_success else (False, b"")
    return Answer(payload[1], payload[2] & MEASUREMENT_BITS, payload[3], more, parameters)


MAX_PARTS: Final = 8
"""Most values that an answer may come in. The longest known settings fill two; an answer without an end must not be awaited."""


@dataclass(slots=True)
class PendingAnswer:
    """Collects the answer to a request. Every value of the control point is passed to `collect`, then to `is_last`."""

    request: bytes
    _parts: list[bytes] = field(default_factory=list)

    def collect(self, payload: bytes) -> None:
        """Keep the parameters of a value that is a part of the answer, and not the last."""
        answer = self._parse_part(payload)
        if answer is not None and answer.more:
            self._parts.append(answer.parameters)

    def is_last(self, payload: bytes) -> bool:
        """Whether the answer ends with this value, or does not end."""
        answer = self._parse_part(payload)
        return answer is not None and (not answer.more or len(self._parts) >= MAX_PARTS)

    def complete(self, last: bytes) -> Answer:
        """The whole answer, given its last value.

        Raises:
            RefusedError: the answer does not end.
        """
        answer = self._parse_part(last)
        if answer is None or answer.more:
            raise RefusedError(f"the sensor's answer about its {name_of(self.request[1])} does not end")
        return replace(answer, parameters=b"".join((*self._parts, answer.parameters)))

    def _parse_part(self, payload: bytes) -> Answer | None:
        answer = parse_answer(payload)
        is_part = answer is not None and bytes((answer.request, answer.measurement)) == self.request[:2]
        return answer if is_part else None


def explain(status: int) -> str:
    """What a refusal means."""
    reason = _STATUSES[status][1] if status in _STATUSES else "Polar does not publish the meaning of this code"
    return f"{reason} (status {status})"


def parse_features(value: bytes) -> frozenset[int] | None:
    """The measurements that a sensor offers, from the value of its control point when read; None if it is something else."""
    if len(value) < 2 or value[0] != _FEATURES:
        return None
    bits = int.from_bytes(value[1:], "little")
    return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)


def parse_stopped(payload: bytes) -> tuple[int, ...] | None:
    """The measurements that the sensor reports to have stopped by itself; None if the value is something else."""
    return tuple(byte & MEASUREMENT_BITS for byte in payload[1:]) if payload[:1] == bytes((STOPPED,)) else None


def describe_value(payload: bytes) -> tuple[Reading, ...]:
    """Describe a value of the control point that nothing waits for: an answer, the offered measurements, a list of settings.

    Raises:
        DecodeError: it is none of them.
    """
    answer = parse_answer(payload)
    if answer is not None:
        return _describe_answer(answer)
    features = parse_features(payload)
    if features is not None:
        return tuple(Status("offered_measurement", name_of(number)) for number in sorted(features))
    if payload[:1] == bytes((Setting.SAMPLE_RATE,)):
        return _describe_settings(parse_settings(payload))
    raise DecodeError("control point: the value is not an answer, nor the offered measurements, nor a list of settings")


def _describe_answer(answer: Answer) -> tuple[Reading, ...]:
    readings: list[Reading] = [
        Status("control_request", _REQUESTS.get(answer.request, str(answer.request))),
        Status("control_measurement", name_of(answer.measurement)),
        Status("control_status", _STATUSES[answer.status][0] if answer.status in _STATUSES else str(answer.status)),
        Status("control_more", answer.more),
    ]
    try:
        settings = answer.settings()
    except DecodeError:
        settings = {}
    if answer.parameters and not settings:
        readings.append(Status("control_parameters", answer.parameters.hex().upper()))
    return (*readings, *_describe_settings(settings))


def _describe_settings(settings: Settings) -> tuple[Reading, ...]:
    factor = factor_of(settings)
    return (
        *(Status(_KINDS[setting], value) for setting, values in settings.items() if setting in _KINDS for value in values),
        *(() if factor is None else (Status("conversion_factor", factor),)),
    )

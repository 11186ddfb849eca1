"""The sensor's side of Polar Measurement Data: responses of the control point, and frames of ECG and acceleration.

Source: Polar, "Polar Measurement Data specification for 3rd party". It is written from the specification, not from our
driver: an error in one must not be mirrored in the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SERVICE: Final = "FB005C80-02E7-F387-1CAD-8ACD2D8DF0C8"
CONTROL_POINT: Final = "FB005C81-02E7-F387-1CAD-8ACD2D8DF0C8"
DATA: Final = "FB005C82-02E7-F387-1CAD-8ACD2D8DF0C8"

EPOCH_UNIX_NS: Final = 946_684_800 * 10**9
"""The epoch of the strap's nanoseconds, 2000-01-01 00:00 UTC, in Unix time."""
RATE_HZ: Final = 130.16
"""The true sampling rate of an H10 whose nominal rate is 130 Hz (measured over 600 s)."""
MAX_FRAME_SAMPLES: Final = 73
"""An MTU of 232 bytes, less 3 of ATT and 10 of the frame's header, at 3 bytes a sample."""
MAX_ACCELERATION_SAMPLES: Final = 36
"""Likewise at 6 bytes a sample of three axes; the frame in Polar's AccDataTest.kt has as many."""

ECG, PPG, ACCELERATION, PP_INTERVAL = 0, 1, 2, 3
"""Measurement types."""
GET_SETTINGS: Final = 0x01
START: Final = 0x02
STOP: Final = 0x03

SUCCESS: Final = 0
INVALID_OP_CODE: Final = 1
INVALID_MEASUREMENT_TYPE: Final = 2
NOT_SUPPORTED: Final = 3
INVALID_LENGTH: Final = 4
INVALID_PARAMETER: Final = 5
ALREADY_IN_STATE: Final = 6
INVALID_RESOLUTION: Final = 7
INVALID_SAMPLE_RATE: Final = 8
INVALID_RANGE: Final = 9
INVALID_MTU: Final = 10
INVALID_CHANNELS: Final = 11
IN_CHARGER: Final = 13

MIN_MTU: Final = 232
"""The MTU below which a start is answered by `INVALID_MTU`, by the devices that check it."""

_RESPONSE: Final = 0xF0
_KNOWN_TYPES: Final = frozenset({0, 1, 2, 3, 5, 6})
"""ECG, PPG, acceleration, PP interval, gyroscope, magnetometer."""
SAMPLE_RATE, RESOLUTION, RANGE, CHANNELS, FACTOR = 0, 1, 2, 4, 5
"""Settings of a measurement. A factor is stated in the answer to a start, as a 32-bit float."""
_VALUE_SIZES: Final[Mapping[int, int]] = {SAMPLE_RATE: 2, RESOLUTION: 2, RANGE: 2, CHANNELS: 1}
_VALUE_ERRORS: Final[Mapping[int, int]] = {
    SAMPLE_RATE: INVALID_SAMPLE_RATE,
    RESOLUTION: INVALID_RESOLUTION,
    RANGE: INVALID_RANGE,
    CHANNELS: INVALID_CHANNELS,
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A measurement that a device offers: the values offered for each setting, and the parameters of a start's answer."""

    settings: Mapping[int, tuple[int, ...]]
    start_parameters: bytes = b""

    def encode_settings(self) -> bytes:
        """Return the settings as the device lists them: number, count, values."""
        return b"".join(
            bytes((setting, len(values))) + b"".join(value.to_bytes(_VALUE_SIZES[setting], "little") for value in values)
            for setting, values in self.settings.items()
        )


Offers = Mapping[int, Offer]
"""What a device offers, by measurement type."""

H10: Final[Offers] = {
    ECG: Offer({SAMPLE_RATE: (130,), RESOLUTION: (14,)}),
    ACCELERATION: Offer({SAMPLE_RATE: (25, 50, 100, 200), RESOLUTION: (16,), RANGE: (2, 4, 8)}, b"\x01"),
}
"""The answer to a start of the acceleration ends with a reserved byte."""


@dataclass(frozen=True, slots=True)
class ControlResponse:
    """The control point's indication in response to a request, and which measurements run afterwards."""

    indication: bytes
    running: frozenset[int]


def encode_features(offers: Offers) -> bytes:
    """Return the value of the control point when read: response code, then one bit per measurement type."""
    return bytes((0x0F,)) + sum(1 << measurement for measurement in offers).to_bytes(16, "little")


def handle_request(
    request: bytes, offers: Offers, running: frozenset[int] = frozenset(), *, refusal: int = SUCCESS
) -> ControlResponse:
    """Return the response to a control point request. Any bytes get a response.

    `refusal` is the status of a start that is right but cannot be followed now, as while the device is charged.
    """
    op, measurement = request[0] if request else 0, request[1] if len(request) > 1 else 0
    status = _status(request, offers, running) or (refusal if op == START else SUCCESS)
    if status != SUCCESS:
        return ControlResponse(bytes((_RESPONSE, op, measurement, status)), running)
    parameters, more_follows = b"", 0
    if op == GET_SETTINGS:
        parameters = offers[measurement].encode_settings()
    elif op == START:
        parameters, running = offers[measurement].start_parameters, running | {measurement}
    else:
        running = running - {measurement}
    return ControlResponse(bytes((_RESPONSE, op, measurement, status, more_follows)) + parameters, running)


def encode_stop_notice(measurements: Iterable[int]) -> bytes:
    """Encode the indication by which a device says that it has stopped measurements by itself."""
    return bytes((0x01, *measurements))


def _status(request: bytes, offers: Offers, running: frozenset[int]) -> int:
    if len(request) < 2:
        return INVALID_LENGTH
    op, measurement, settings = request[0], request[1], request[2:]
    if op not in (GET_SETTINGS, START, STOP):
        return INVALID_OP_CODE
    if measurement not in offers:
        return NOT_SUPPORTED if measurement in _KNOWN_TYPES else INVALID_MEASUREMENT_TYPE
    if op != START:
        return INVALID_LENGTH if settings else ALREADY_IN_STATE if op == STOP and measurement not in running else SUCCESS
    if measurement in running:
        return ALREADY_IN_STATE
    return _settings_status(settings, offers[measurement].settings)


def _settings_status(settings: bytes, offered: Mapping[int, tuple[int, ...]]) -> int:
    """Check settings, each a number, a count and a value. Every offered setting must occur once."""
    if len(settings) != sum(2 + _VALUE_SIZES[setting] for setting in offered):
        return INVALID_LENGTH
    chosen: dict[int, int] = {}
    offset = 0
    while offset < len(settings):
        setting = settings[offset]
        if setting not in offered or setting in chosen or settings[offset + 1 : offset + 2] != b"\x01":
            return INVALID_PARAMETER
        end = offset + 2 + _VALUE_SIZES[setting]
        chosen[setting] = int.from_bytes(settings[offset + 2 : end], "little")
        offset = end
    return next((_VALUE_ERRORS[setting] for setting, values in offered.items() if chosen[setting] not in values), SUCCESS)


def setting_of(request: bytes, setting: int) -> int:
    """Return the value of a setting in a start that was answered by success."""
    offset = 2
    while request[offset] != setting:
        offset += 2 + _VALUE_SIZES[request[offset]]
    return int.from_bytes(request[offset + 2 : offset + 2 + _VALUE_SIZES[setting]], "little")


def encode_acceleration(last_ns: int, mg: NDArray[np.int64]) -> bytes:
    """Encode samples of three axes in mg (n, 3) as frame type 1, with the time of the last one, in nanoseconds since 2000."""
    return bytes((ACCELERATION,)) + last_ns.to_bytes(8, "little") + bytes((1,)) + mg.astype("<i2").tobytes()


def samples_per_frame(att_mtu: int) -> int:
    """Return the number of samples in a notification over a connection with this MTU."""
    return min(MAX_FRAME_SAMPLES, (att_mtu - 13) // 3)


def encode_frame(last_ns: int, microvolts: NDArray[np.int32]) -> bytes:
    """Encode samples as frame type 0 (3 bytes signed, µV) with the time of the last one, in nanoseconds since 2000."""
    sample_bytes = microvolts.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    return bytes((ECG,)) + last_ns.to_bytes(8, "little") + bytes((0,)) + sample_bytes.tobytes()

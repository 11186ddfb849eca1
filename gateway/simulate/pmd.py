"""The strap's side of Polar Measurement Data: responses of the control point, and frames of samples.

Source: Polar, "Polar Measurement Data specification for 3rd party". It is written from the specification, not from our
driver: an error in one must not be mirrored in the other.
"""

from collections.abc import Mapping
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
FEATURES: Final = bytes((0x0F, 0x01)) + bytes(15)
"""The value of the control point when read: response code, then one bit per measurement type (bit 0: ECG)."""

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

_RESPONSE: Final = 0xF0
_ECG: Final = 0
_KNOWN_TYPES: Final = frozenset({0, 1, 2, 3, 5, 6})
"""ECG, PPG, acceleration, PP interval, gyroscope, magnetometer."""
_SAMPLE_RATE: Final = 0
_RESOLUTION: Final = 1
_OFFERED: Final[Mapping[int, tuple[int, int]]] = {
    _SAMPLE_RATE: (130, INVALID_SAMPLE_RATE),
    _RESOLUTION: (14, INVALID_RESOLUTION),
}
"""For each setting the only value offered, and the error for any other value."""
_SETTINGS: Final = b"".join(bytes((setting, 1)) + value.to_bytes(2, "little") for setting, (value, _) in _OFFERED.items())


@dataclass(frozen=True, slots=True)
class ControlResponse:
    """The control point's indication in response to a request, and whether ECG streams afterwards."""

    indication: bytes
    streaming: bool


def handle_request(request: bytes, *, streaming: bool) -> ControlResponse:
    """Return the response to a control point request, for ECG that is `streaming` or not. Any bytes get a response."""
    op, measurement = request[0] if request else 0, request[1] if len(request) > 1 else 0
    status = _status(request, streaming=streaming)
    if status != SUCCESS:
        return ControlResponse(bytes((_RESPONSE, op, measurement, status)), streaming)
    parameters = _SETTINGS if op == GET_SETTINGS else b""
    more_follows = 0
    return ControlResponse(
        bytes((_RESPONSE, op, measurement, status, more_follows)) + parameters, op == START or (streaming and op != STOP)
    )


def _status(request: bytes, *, streaming: bool) -> int:
    if len(request) < 2:
        return INVALID_LENGTH
    op, measurement, settings = request[0], request[1], request[2:]
    if op not in (GET_SETTINGS, START, STOP):
        return INVALID_OP_CODE
    if measurement != _ECG:
        return NOT_SUPPORTED if measurement in _KNOWN_TYPES else INVALID_MEASUREMENT_TYPE
    if op != START:
        return INVALID_LENGTH if settings else ALREADY_IN_STATE if op == STOP and not streaming else SUCCESS
    if streaming:
        return ALREADY_IN_STATE
    return _settings_status(settings)


def _settings_status(settings: bytes) -> int:
    """Check settings, each a number, a count and values of two bytes. Every offered setting must occur once."""
    if len(settings) != len(_SETTINGS):
        return INVALID_LENGTH
    chosen: dict[int, int] = {}
    for offset in range(0, len(settings), 4):
        setting, count = settings[offset], settings[offset + 1]
        if setting not in _OFFERED or setting in chosen or count != 1:
            return INVALID_PARAMETER
        chosen[setting] = int.from_bytes(settings[offset + 2 : offset + 4], "little")
    return next((error for setting, (value, error) in _OFFERED.items() if chosen[setting] != value), SUCCESS)


def samples_per_frame(att_mtu: int) -> int:
    """Return the number of samples in a notification over a connection with this MTU."""
    return min(MAX_FRAME_SAMPLES, (att_mtu - 13) // 3)


def encode_frame(last_ns: int, microvolts: NDArray[np.int32]) -> bytes:
    """Encode samples as frame type 0 (3 bytes signed, µV) with the time of the last one, in nanoseconds since 2000."""
    sample_bytes = microvolts.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    return bytes((_ECG,)) + last_ns.to_bytes(8, "little") + bytes((0,)) + sample_bytes.tobytes()

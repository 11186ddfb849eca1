"""The strap's side of Polar Measurement Data: what the control point answers, and frames of samples.

Source: Polar, "Polar Measurement Data specification for 3rd party". Written from the specification alone, not from our driver:
an error in one must not be mirrored in the other.
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
"""2000-01-01 00:00 UTC, from which the strap counts its nanoseconds, in Unix time."""
RATE_HZ: Final = 130.16
"""What the clock of a real H10 gives where its settings say 130 (measured over 600 s)."""
FRAME_SAMPLES: Final = 73
"""The most that a frame holds: an MTU of 232 bytes, less 3 of ATT and 10 of the frame's header, at 3 a sample."""
FEATURES: Final = bytes((0x0F, 0x01)) + bytes(15)
"""What reading the control point gives: response code, then a bit a measurement type (bit 0: ECG)."""

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
"""For each setting the one value there is, and the error that another value gives."""
_SETTINGS: Final = b"".join(bytes((setting, 1)) + value.to_bytes(2, "little") for setting, (value, _) in _OFFERED.items())


@dataclass(frozen=True, slots=True)
class Answer:
    """The indication that answers a request, and whether ECG runs from now on."""

    indication: bytes
    streaming: bool


def answer(request: bytes, *, streaming: bool) -> Answer:
    """What the control point does with a request while ECG is `streaming` or not. Any bytes have an answer."""
    op, measurement = request[0] if request else 0, request[1] if len(request) > 1 else 0
    status = _status(request, streaming=streaming)
    if status != SUCCESS:
        return Answer(bytes((_RESPONSE, op, measurement, status)), streaming)
    parameters = _SETTINGS if op == GET_SETTINGS else b""
    more = 0
    return Answer(bytes((_RESPONSE, op, measurement, status, more)) + parameters, op == START or (streaming and op != STOP))


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
    """Settings are triples: number, count of values, values of two bytes. Each offered setting must come once."""
    if len(settings) != len(_SETTINGS):
        return INVALID_LENGTH
    chosen: dict[int, int] = {}
    for at in range(0, len(settings), 4):
        setting, count = settings[at], settings[at + 1]
        if setting not in _OFFERED or setting in chosen or count != 1:
            return INVALID_PARAMETER
        chosen[setting] = int.from_bytes(settings[at + 2 : at + 4], "little")
    return next((error for setting, (value, error) in _OFFERED.items() if chosen[setting] != value), SUCCESS)


def frame_samples(att_mtu: int) -> int:
    """How many samples a notification carries over a connection of this MTU."""
    return min(FRAME_SAMPLES, (att_mtu - 13) // 3)


def frame(last_ns: int, microvolts: NDArray[np.int32]) -> bytes:
    """Samples of frame type 0 (3 bytes signed, µV), stamped with the time of the last one in nanoseconds since 2000."""
    low_bytes = microvolts.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    return bytes((_ECG,)) + last_ns.to_bytes(8, "little") + bytes((0,)) + low_bytes.tobytes()

"""Polar Measurement Data (PMD), the vendor's service for raw signals: the ECG of the H10 and of compatible straps.

Source: Polar, "Polar Measurement Data specification for 3rd party", and the published decoder of the vendor's SDK.
Requests to the control point start and stop a measurement; the strap answers each by an indication. The samples arrive as
notifications of the data characteristic. A strap whose measurement is not stopped stays switched on.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Context, Effect, Moment, Procedure, RefusedError, Request, Value
from drivers.readings import DecodeError, Reading, Waveform
from drivers.spec import Characteristic, DriverSpec

SERVICE: Final = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL_POINT: Final = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA: Final = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"

RATE_HZ: Final = 130
"""Nominal rate. The true rate differs by up to some tenths of a percent; the timeline measures it from the frames' times."""
_RESOLUTION_BITS: Final = 14
_MILLIVOLTS_PER_LSB: Final = 0.001

_ECG: Final = 0x00
_COMPRESSED: Final = 0x80

_START: Final = 0x02
_STOP: Final = 0x03
_RESPONSE: Final = 0xF0
_ALREADY_IN_STATE: Final = 6
_REFUSALS: Final[Mapping[int, str]] = {
    1: "it does not know this request",
    2: "it does not know this measurement",
    3: "it does not support this measurement",
    4: "the request has the wrong length",
    5: "the request has a wrong parameter",
    _ALREADY_IN_STATE: "it is already in this state",
    7: "it does not offer this resolution",
    8: "it does not offer this sample rate",
    9: "it does not offer this range",
    10: "the connection's MTU is too small for a frame: 232 bytes are needed",
    11: "it does not offer this number of channels",
    12: "it cannot do so in its present state",
    13: "it is in its charger; take it out",
    14: "its memory is full",
}
_REQUESTS: Final[Mapping[int, str]] = {_START: "start", _STOP: "stop"}


def decode_ecg_frame(payload: bytes) -> tuple[Reading, ...]:
    """Decode a frame of samples: measurement type, time of the last sample in ns, frame type, samples.

    Yields one ECG waveform in units of 1 µV. Its `last_ns` counts from the sensor's epoch, 2000-01-01. A clock that was never
    set starts at 2019-01-01 when the sensor powers up.
    """
    reader = Reader(payload)
    measurement = reader.u8("measurement type")
    if measurement != _ECG:
        raise DecodeError(f"measurement type: {measurement} is not subscribed; only {_ECG} (ECG) is")
    last_ns = reader.u64("time of the last sample")
    samples = _read_samples(reader, reader.u8("frame type"))
    return (Waveform("ecg", samples, float(RATE_HZ), _MILLIVOLTS_PER_LSB, last_ns),)


def _read_samples(reader: Reader, frame_type: int) -> tuple[int, ...]:
    if frame_type & _COMPRESSED:
        raise DecodeError(f"frame type: {frame_type:#04x} is delta-compressed, which Polar does not define for ECG")
    read_sample = _SAMPLE_READERS.get(frame_type)
    if read_sample is None:
        raise DecodeError(f"frame type: {frame_type} has no published unit; only {sorted(_SAMPLE_READERS)} have one")
    if reader.remaining % 3 or not reader.remaining:
        raise DecodeError(f"samples: {reader.remaining} bytes are not a whole number of 3-byte samples (at least one)")
    return tuple(read_sample(reader) for _ in range(reader.remaining // 3))


def _read_signed_24(reader: Reader) -> int:
    return reader.i24("sample")


def _read_low_bits(reader: Reader, bits: int) -> int:
    """An unsigned sample. The bits above it are tags (oversampling, contact, pace) whose coding Polar does not publish."""
    return reader.u24("sample") & ((1 << bits) - 1)


_SAMPLE_READERS: Final[Mapping[int, Callable[[Reader], int]]] = {
    0: _read_signed_24,
    1: partial(_read_low_bits, bits=14),
    2: partial(_read_low_bits, bits=18),
}
"""Functions that read a 3-byte sample in µV, by frame type. The H10 sends type 0."""


def _setting(number: int, value: int) -> bytes:
    """One setting with one 2-byte value; `number` is 0 for the sample rate, 1 for the resolution."""
    return bytes((number, 1)) + value.to_bytes(2, "little")


_START_ECG: Final = bytes((_START, _ECG)) + _setting(0, RATE_HZ) + _setting(1, _RESOLUTION_BITS)
_STOP_ECG: Final = bytes((_STOP, _ECG))


def check_response(request: bytes, payload: bytes) -> None:
    """Check the control point's answer to `request`: 0xF0, request, measurement type, status, parameters.

    The status "already in this state" counts as success: the measurement already runs or is already stopped.

    Raises:
        RefusedError: the sensor refuses the request.
    """
    status = payload[3]
    if status not in (0, _ALREADY_IN_STATE):
        reason = _REFUSALS.get(status, "Polar does not publish the meaning of this code")
        raise RefusedError(f"the sensor refuses to {_REQUESTS[request[0]]} its ECG: {reason} (status {status})")


def is_response(request: bytes, payload: bytes) -> bool:
    """Whether a value of the control point answers `request`."""
    return len(payload) >= 4 and payload[:3] == bytes((_RESPONSE, *request[:2]))


class _PmdConversation:
    """Starts the ECG, and stops it."""

    def start(self, now: Moment) -> Procedure:
        del now
        return self._ask(_START_ECG)

    def stop(self) -> Procedure:
        return self._ask(_STOP_ECG)

    def receive(self, value: Value) -> tuple[Effect, ...]:
        """The values of the control point are answers; `_ask` checks those that it waits for."""
        del value
        return ()

    def _ask(self, request: bytes) -> Procedure:
        answer = yield Request(CONTROL_POINT, request, partial(is_response, request))
        check_response(request, answer)


def _converse(context: Context) -> _PmdConversation:
    del context
    return _PmdConversation()


DRIVER: Final = DriverSpec(
    name="polar_pmd",
    service=SERVICE,
    streams=(
        Characteristic(CONTROL_POINT, "indicate"),
        # A full frame holds 73 samples and arrives every 0.56 s; eight missing in a row exceed any normal radio loss.
        Characteristic(DATA, "notify", decode_ecg_frame, silent_after_s=5.0),
    ),
    converse=_converse,
)

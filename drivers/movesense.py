"""Movesense GATT SensorData Protocol (GSP, version 1): ECG, heart rate and motion of Movesense sensors.

Source: Movesense Ltd., "GATT SensorData Protocol specification" (GD-77), and the firmware's gatt_sensordata_app. A command is
its number, a reference that the client chooses, and a path. The sensor notifies: the result of a command (1, reference,
status of 2 bytes), the data of a subscription (2, reference, packet), and the rest of data that did not fit (3, reference,
rest). Older firmware answers refusals only, and puts the high byte of their status first.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Context, Effect, Moment, Procedure, RefusedError, Run, Value, Write
from drivers.millisecond_clock import MillisecondClock
from drivers.movesense_packets import (
    ECG_SAMPLES,
    MILLIVOLTS_PER_COUNT,
    MILLIVOLTS_PER_SAMPLE,
    STAMP_BYTES,
    PacketDecoder,
    decode_ecg,
    decode_heart_rate,
    decode_motion,
    decode_unidentified,
)
from drivers.readings import DecodeError, Quarantined, Reading, Status
from drivers.spec import Characteristic, DriverSpec

SERVICE: Final = "34802252-7185-4d5d-b431-630e7050e8f0"
COMMAND: Final = "34800001-7185-4d5d-b431-630e7050e8f0"
DATA: Final = "34800002-7185-4d5d-b431-630e7050e8f0"

_SUBSCRIBE: Final = 1
_UNSUBSCRIBE: Final = 2

_RESULT: Final = 1
_DATA: Final = 2
_DATA_REST: Final = 3

_FIRST_REFUSAL: Final = 400
_NO_SLOT: Final = 507
_LAST_STATUS: Final = 599
"""Results have the status codes of HTTP: from 400 on, the command was refused; 507 refuses a subscription beyond the fourth."""

ECG_RATE_HZ: Final = 200
MOTION_RATE_HZ: Final = 52
_MOTION_SAMPLES: Final = 4
"""Samples of a motion packet at 52 Hz."""
_MOTION: Final = ("acc", "gyro", "mag")

_decode_ecg_millivolts: Final = partial(decode_ecg, rate_hz=ECG_RATE_HZ, sample_bytes=2, scale=MILLIVOLTS_PER_SAMPLE)
_decode_ecg_counts: Final = partial(decode_ecg, rate_hz=ECG_RATE_HZ, sample_bytes=4, scale=MILLIVOLTS_PER_COUNT)


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that the driver subscribes to.

    `size` is that of a whole packet, 0 if packets have no fixed size: a shorter packet may have a rest. If the sensor refuses
    the resource, the driver subscribes to `instead`. Without one, the set-up has failed if the resource `is_required`.
    """

    reference: int
    path: str
    decode: PacketDecoder
    size: int = 0
    instead: int | None = None
    is_required: bool = False


def _motion(reference: int, path: str, quantities: int, instead: int | None = None) -> Resource:
    decode = partial(decode_motion, quantities=_MOTION[:quantities], rate_hz=MOTION_RATE_HZ)
    return Resource(reference, f"{path}/{MOTION_RATE_HZ}", decode, STAMP_BYTES + 12 * quantities * _MOTION_SAMPLES, instead)


RESOURCES: Final = {
    resource.reference: resource
    for resource in (
        Resource(1, f"Meas/Ecg/{ECG_RATE_HZ}/mV", _decode_ecg_millivolts, STAMP_BYTES + 2 * ECG_SAMPLES, instead=2),
        # Firmware before 2.3 has no millivolts.
        Resource(2, f"Meas/ECG/{ECG_RATE_HZ}", _decode_ecg_counts, STAMP_BYTES + 4 * ECG_SAMPLES, is_required=True),
        Resource(3, "Meas/HR", decode_heart_rate),
        _motion(4, "Meas/IMU9", 3, instead=5),
        _motion(5, "Meas/IMU6", 2, instead=6),
        _motion(6, "Meas/Acc", 1),
    )
}
"""The resources by reference. A sensor without a gyroscope or a magnetometer refuses those that need it."""
_FIRST_CHOICES: Final = (1, 3, 4)


class _Conversation:
    """Subscribes to the resources, joins packets that were split, and continues the sensor's clock."""

    def __init__(self) -> None:
        self._clock = MillisecondClock()
        self._begun: dict[int, bytes] = {}
        """The packets that may have a rest, by reference."""
        self._ended: set[int] = set()
        """The references whose unsubscription may still be answered."""

    def start(self, now: Moment) -> Procedure:
        del now
        # A subscription may be left over from another connection.
        yield from self._unsubscribe(RESOURCES)
        for reference in _FIRST_CHOICES:
            yield _subscribe(reference)

    def stop(self) -> Procedure:
        return self._unsubscribe(RESOURCES)

    def receive(self, value: Value) -> Iterator[Effect]:
        reader = Reader(value.payload)
        kind, reference = reader.u8("type of notification"), reader.u8("reference")
        if kind not in (_RESULT, _DATA, _DATA_REST):
            raise DecodeError(f"type of notification: {kind} is unknown; the protocol defines 1 to 3")
        if kind == _RESULT:
            return self._take_result(reference, reader.u16("status"))
        packet = reader.read_rest()
        if kind == _DATA_REST:
            return self._end_packet(reference, packet)
        if reference not in RESOURCES:
            return self._decode_foreign(reference, packet)
        return self._begin_packet(RESOURCES[reference], packet)

    def _unsubscribe(self, references: Iterable[int]) -> Procedure:
        for reference in references:
            self._ended.add(reference)
            yield Write(COMMAND, bytes((_UNSUBSCRIBE, reference)))

    def _take_result(self, reference: int, status: int) -> Iterator[Effect]:
        # Older firmware puts the high byte first. No status code has a meaning in both orders.
        code = status if status <= _LAST_STATUS else int.from_bytes(status.to_bytes(2, "little"), "big")
        answers_unsubscription = reference in self._ended and code != _NO_SLOT
        self._ended.discard(reference)
        if code >= _FIRST_REFUSAL and not answers_unsubscription and reference in RESOURCES:
            yield _replace(RESOURCES[reference], code)

    def _begin_packet(self, resource: Resource, packet: bytes) -> Iterator[Effect]:
        """Decode a whole packet. A shorter one may have a rest, and is kept until the next of its resource arrives."""
        may_have_rest = STAMP_BYTES <= len(packet) < resource.size
        readings = () if may_have_rest else resource.decode(packet, self._clock)
        before = self._begun.pop(resource.reference, None)
        if before is not None:
            yield from self._decode_or_quarantine(resource, before)
        if may_have_rest:
            self._begun[resource.reference] = packet
        yield from readings

    def _end_packet(self, reference: int, rest: bytes) -> Iterator[Effect]:
        begun = self._begun.pop(reference, None)
        if begun is None:
            raise DecodeError(f"reference: {reference} has no packet that this could be the rest of")
        yield from self._decode_or_quarantine(RESOURCES[reference], begun + rest)

    def _decode_or_quarantine(self, resource: Resource, packet: bytes) -> tuple[Reading, ...]:
        try:
            return resource.decode(packet, self._clock)
        except DecodeError as error:
            return (Quarantined(DATA, bytes((_DATA, resource.reference)) + packet, str(error)),)

    def _decode_foreign(self, reference: int, packet: bytes) -> Iterator[Effect]:
        """Data of a subscription that this driver does not make: end the subscription."""
        yield from decode_unidentified(packet, self._clock)
        yield Status("foreign_subscription", reference)
        yield Run(self._unsubscribe((reference,)))


def _subscribe(reference: int) -> Write:
    return Write(COMMAND, bytes((_SUBSCRIBE, reference)) + RESOURCES[reference].path.encode("ascii"))


def _replace(resource: Resource, code: int) -> Effect:
    """What follows from the refusal of a resource."""
    if resource.instead is not None:
        return Run(_subscribe_to(resource.instead))
    if resource.is_required:
        return Run(_fail(f"the sensor refuses to send {resource.path} (status {code})"))
    return Status("refused_stream", resource.path)


def _subscribe_to(reference: int) -> Procedure:
    yield _subscribe(reference)


def _fail(reason: str) -> Procedure:
    yield from ()
    raise RefusedError(reason)


def _converse(context: Context) -> _Conversation:
    del context
    return _Conversation()


DRIVER: Final = DriverSpec(
    name="movesense",
    service=SERVICE,
    # Twelve ECG packets and thirteen motion packets come each second; five seconds without one exceed any normal radio loss.
    streams=(Characteristic(DATA, "notify", silent_after_s=5.0),),
    converse=_converse,
)

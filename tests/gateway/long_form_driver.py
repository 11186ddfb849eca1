"""A driver in the long form, as a user would write one: consent, record access, results in fragments, and a memory.

The made-up sensor has a control point (write; it answers by indication) and a data characteristic. A result of 6 bytes comes in
fragments: sequence number (u16), index with bit 7 at the last one, data.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Context, Effect, Moment, NoAnswerError, Procedure, RefusedError, Remember, Request, Run, Value
from drivers.readings import DecodeError, Origin, Reading, Status, Vital, group_of
from drivers.spec import Characteristic, DriverSpec

SERVICE: Final = "c0de0000-0000-4000-8000-000000000000"
CONTROL: Final = "c0de0001-0000-4000-8000-000000000000"
DATA: Final = "c0de0002-0000-4000-8000-000000000000"
CONSENT, REPORT, ABORT, DONE, NEWS = 0x02, 0x01, 0x03, 0x20, 0x30
LAST: Final = 0x80
FRAGMENTS: Final = 3
"""A result has at most so many fragments."""
TRANSFER_TIMEOUT_S: Final = 30.0


class RecordsConversation:
    """Asks for the results after the last one that it remembers, and puts their fragments together."""

    def __init__(self, context: Context) -> None:
        self._consent = context.consent
        self._last = int(context.memory.get("last", 0))
        self._sequence: int | None = None
        self._parts: list[bytes] = []

    def start(self, now: Moment) -> Procedure:
        del now
        if self._consent is None:
            raise RefusedError("no user is set for this sensor: give its user and consent code in the settings")
        yield from self._ask(bytes((CONSENT, self._consent.user)) + self._consent.code.to_bytes(2, "little"))
        yield from self._fetch()

    def stop(self) -> Procedure:
        yield from ()

    def receive(self, value: Value) -> Iterator[Effect]:
        if value.characteristic == DATA:
            yield from self._on_fragment(Reader(value.payload))
        elif value.payload[:1] == bytes((NEWS,)):
            yield Run(self._fetch())
        elif value.payload[:1] != bytes((DONE,)):
            raise DecodeError("control point: not an answer")

    def _ask(self, request: bytes, timeout_s: float = 10.0) -> Procedure:
        answer = yield Request(CONTROL, request, partial(_answers, request), timeout_s)
        if answer[2]:
            raise RefusedError(f"the sensor refuses request {request[0]} (code {answer[2]})")

    def _fetch(self) -> Procedure:
        try:
            yield from self._ask(bytes((REPORT,)) + self._last.to_bytes(2, "little"), TRANSFER_TIMEOUT_S)
        except NoAnswerError:
            yield from self._ask(bytes((ABORT,)))
            yield Status("failed_measurement", "transfer")

    def _on_fragment(self, reader: Reader) -> Iterator[Effect]:
        sequence, index = reader.u16("sequence number"), reader.u8("fragment")
        if index & ~LAST == 0:
            self._sequence, self._parts = sequence, []
        if sequence != self._sequence or index & ~LAST != len(self._parts) or len(self._parts) >= FRAGMENTS:
            self._sequence = None
            raise DecodeError("fragment: one before it is missing")
        self._parts.append(reader.read_rest())
        if index & LAST:
            yield from _decode_result(sequence, b"".join(self._parts))
            self._last = max(self._last, sequence)
            self._sequence = None
            yield Remember({"last": self._last})


def _answers(request: bytes, payload: bytes) -> bool:
    return len(payload) == 3 and payload[:2] == bytes((DONE, request[0]))


def _decode_result(sequence: int, payload: bytes) -> Iterator[Reading]:
    reader = Reader(payload)
    origin = Origin(group_of(sequence.to_bytes(2, "little") + payload), record=sequence, is_stored=True)
    yield Vital("systolic", float(reader.u16("systolic")), (), origin)
    yield Vital("diastolic", float(reader.u16("diastolic")), (), origin)
    yield Vital("mean_pressure", float(reader.u16("mean pressure")), (), origin)
    reader.expect_end()


DRIVER: Final = DriverSpec(
    name="records",
    service=SERVICE,
    streams=(Characteristic(CONTROL, "indicate"), Characteristic(DATA, "indicate")),
    bonding=True,
    converse=RecordsConversation,
)

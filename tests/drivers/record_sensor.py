"""A scripted sensor with stored records, which answers as the Record Access Control Point is specified."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from drivers.conversation import RefusedError
from drivers.record_access import CONTROL_POINT
from tests.drivers.player import Sent

REPORT, DELETE, ABORT, REPORT_NUMBER = 1, 2, 3, 4
SUCCESS, OP_CODE_NOT_SUPPORTED, NO_RECORDS, ABORT_UNSUCCESSFUL, NOT_COMPLETED = 1, 2, 6, 7, 8


@dataclass
class RecordSensor:
    """Sends `records`, which are values of `characteristic`, one every `interval_s`.

    Attributes:
        select: the records that a filter selects, given its type and lowest value; None for a sensor that knows no filter.
        filter_refusal: the result for a request with a filter, if it knows none.
        report_result: the result of every report in place of the right one.
        stops_after: the number of records after which a transfer ends with "not completed"; None for never. Applies
            `failures` times.
        loses_answer: the sensor never answers a report.
        cannot_abort: the sensor refuses to stop.
        late: records that the sensor still sends after it was told to stop: seconds after that, and the record.
        refuses_write: the sensor refuses every write.
    """

    characteristic: str
    records: list[bytes] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)
    interval_s: float = 0.1
    select: Callable[[int, bytes], list[bytes]] | None = None
    filter_refusal: int = 9
    report_result: int | None = None
    stops_after: int | None = None
    failures: int = 1
    loses_answer: bool = False
    cannot_abort: bool = False
    late: list[tuple[float, bytes]] = field(default_factory=list)
    refuses_write: bool = False

    def read(self, characteristic: str) -> bytes | None:
        return self.values.get(characteristic)

    def write(self, characteristic: str, payload: bytes) -> Iterable[Sent]:
        assert characteristic == CONTROL_POINT
        if self.refuses_write:
            raise RefusedError("write refused")
        match payload[0]:
            case op if op == REPORT:
                return list(self._report(payload[1], payload[2:]))
            case op if op == ABORT and payload[1:] == b"\0":
                late = [(after_s, self.characteristic, record) for after_s, record in self.late]
                return [self._answer(0.1, ABORT, ABORT_UNSUCCESSFUL if self.cannot_abort else SUCCESS), *late]
            case op:
                return [self._answer(0.1, op, OP_CODE_NOT_SUPPORTED)]

    def _report(self, operator: int, operand: bytes) -> Iterator[Sent]:
        chosen, refusal = self._choose(operator, operand)
        result = refusal or self.report_result or (SUCCESS if chosen else NO_RECORDS)
        if self.stops_after is not None and self.failures and len(chosen) > self.stops_after:
            self.failures -= 1
            chosen, result = chosen[: self.stops_after], NOT_COMPLETED
        at_s = 0.0
        for record in chosen:
            at_s += self.interval_s
            yield at_s, self.characteristic, record
        if not self.loses_answer:
            yield self._answer(at_s + 0.1, REPORT, result)

    def _choose(self, operator: int, operand: bytes) -> tuple[list[bytes], int | None]:
        """The records that a request selects, and the result if it is refused."""
        if operator == 1:
            return (self.records, None) if not operand else ([], 5)
        if self.select is None:
            return [], self.filter_refusal
        return self.select(operand[0], operand[1:]), None

    def _answer(self, after_s: float, op: int, result: int) -> Sent:
        return after_s, CONTROL_POINT, bytes((6, 0, op, result))

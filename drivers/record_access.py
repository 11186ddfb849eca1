"""Record Access Control Point (0x2A52): asks a sensor for the results in its memory. For drivers in the long form.

Source: Bluetooth SIG, GATT Specification Supplement, "Record Access Control Point", as the Glucose Service 1.0.1 and the Pulse
Oximeter Service 1.0.1 use it. A value is an op code, an operator and an operand. The sensor sends the records as values of
another characteristic, then its answer. Nothing here asks a sensor to delete.
"""

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, Final

from drivers.codec import Reader
from drivers.conversation import Action, NoAnswerError, RefusedError, Request, Wait
from drivers.readings import Reading, Status
from drivers.spec import uuid16

CONTROL_POINT: Final = uuid16(0x2A52)

RECORD_TIMEOUT_S: Final = 30.0
"""The procedure has failed after this time without a record or an answer: procedure time-out of the Glucose Profile 1.0.1."""
REPEAT_PAUSE_S: Final = 0.5
"""Pause before a transfer's next request: some connection intervals. A sensor that is still ending one procedure refuses the
next (ATT error 0xFE)."""
MAX_REQUESTS: Final = 5
"""The most requests in one transfer: one that is refused, one without a filter, and three after "not completed"."""

SEQUENCE_NUMBER: Final = 1
USER_FACING_TIME: Final = 2
OMRON_SEQUENCE_NUMBER: Final = 4
"""Filter types. The last one is a vendor's."""

_REPORT: Final = 1
_ABORT: Final = 3
_REPORT_NUMBER: Final = 4
_NUMBER: Final = 5
_RESPONSE: Final = 6
_OMRON_LATEST_SEQUENCE: Final = 0x11

_OP_CODES: Final[Mapping[int, str]] = {
    _REPORT: "report_stored",
    2: "delete_stored",
    _ABORT: "abort",
    _REPORT_NUMBER: "report_number",
    _NUMBER: "number",
    _RESPONSE: "response",
    0x10: "omron_report_latest_sequence",
    _OMRON_LATEST_SEQUENCE: "omron_latest_sequence",
}
_REQUESTS: Final = (_REPORT, 2, _ABORT, _REPORT_NUMBER)

_NULL, _ALL, _LE, _GE, _RANGE, _FIRST, _LAST = range(7)
_OPERATORS: Final = ("null", "all", "le", "ge", "range", "first", "last")

_SUCCESS: Final = 1
_INVALID_OPERATOR: Final = 3
_OPERATOR_NOT_SUPPORTED: Final = 4
_INVALID_OPERAND: Final = 5
_NO_RECORDS: Final = 6
_ABORT_UNSUCCESSFUL: Final = 7
_NOT_COMPLETED: Final = 8
_OPERAND_NOT_SUPPORTED: Final = 9
_RESULTS: Final[Mapping[int, str]] = {
    _SUCCESS: "success",
    2: "op_code_not_supported",
    _INVALID_OPERATOR: "invalid_operator",
    _OPERATOR_NOT_SUPPORTED: "operator_not_supported",
    _INVALID_OPERAND: "invalid_operand",
    _NO_RECORDS: "no_records_found",
    _ABORT_UNSUCCESSFUL: "abort_unsuccessful",
    _NOT_COMPLETED: "not_completed",
    _OPERAND_NOT_SUPPORTED: "operand_not_supported",
}
_FILTER_REFUSED: Final = (_INVALID_OPERATOR, _OPERATOR_NOT_SUPPORTED, _INVALID_OPERAND, _OPERAND_NOT_SUPPORTED)
"""Results of a sensor that cannot select records: it is asked for all. Sensors differ in which of these they send."""

REPORT_ALL: Final = bytes((_REPORT, _ALL))
REPORT_NUMBER: Final = bytes((_REPORT_NUMBER, _ALL))
ABORT: Final = bytes((_ABORT, _NULL))
"""Any further octet after these is refused with "invalid operand"."""


def report_from(filter_type: int, lowest: bytes) -> bytes:
    """Return the request for the records from `lowest` on, which is encoded as `filter_type` defines it."""
    return bytes((_REPORT, _GE, filter_type)) + lowest


def report_from_sequence(number: int, filter_type: int = SEQUENCE_NUMBER) -> bytes:
    """Return the request for the records from this sequence number on, 0 to 65535."""
    return report_from(filter_type, number.to_bytes(2, "little"))


def report_from_time(date_time: bytes) -> bytes:
    """Return the request for the records from this user-facing time on: the 7 octets of a GATT Date Time."""
    return report_from(USER_FACING_TIME, date_time)


def is_answer(request: bytes, payload: bytes) -> bool:
    """Whether a value of the control point answers `request`: its response, or the number that it asks for."""
    if request[0] == _REPORT_NUMBER and payload[:1] == bytes((_NUMBER,)):
        return len(payload) == 4
    return len(payload) == 4 and payload[0] == _RESPONSE and payload[2] == request[0]


def decode_record_access(payload: bytes) -> tuple[Reading, ...]:
    """Decode a value of the control point, a request or an answer, to one status of the kind `record_access`.

    Its text is a list of names and values, as `op=response operator=null request=report_stored result=success`. The names are
    `op` and `operator`, then `filter` and `value`, or `filter`, `from` and `to` of a request, `request` and `result` of a
    response, `number` of a number of records or a sequence number. An op code, operator or result that is not known is given
    as `unknown_` and its number, and the operand after it as `operand` in hexadecimal.

    Raises:
        DecodeError: the operand is truncated, or octets follow it.
    """
    reader = Reader(payload)
    op, operator = reader.u8("op code"), reader.u8("operator")
    parts = [f"op={_name(_OP_CODES, op)}", f"operator={_name(dict(enumerate(_OPERATORS)), operator)}"]
    if op == _RESPONSE:
        parts += [f"request={_name(_OP_CODES, reader.u8('request'))}", f"result={_name(_RESULTS, reader.u8('result'))}"]
    elif op in (_NUMBER, _OMRON_LATEST_SEQUENCE):
        parts.append(f"number={reader.u16('number')}")
    elif op in _REQUESTS:
        parts += _read_filter(reader, operator)
    elif reader.remaining:
        parts.append(f"operand={reader.read_rest().hex().upper()}")
    reader.expect_end()
    return (Status("record_access", " ".join(parts)),)


def _name(names: Mapping[int, str], number: int) -> str:
    return names.get(number, f"unknown_{number}")


def _read_filter(reader: Reader, operator: int) -> list[str]:
    """The operand of a request."""
    if operator in (_LE, _GE):
        filter_type = reader.u8("filter type")
        return [f"filter={filter_type}", f"value={_read_limit(reader, filter_type)}"]
    if operator == _RANGE:
        filter_type = reader.u8("filter type")
        return [f"filter={filter_type}", f"from={_read_limit(reader, filter_type)}", f"to={_read_limit(reader, filter_type)}"]
    return []


def _read_limit(reader: Reader, filter_type: int) -> int | str:
    """A sequence number, or a time in ISO form, "unknown" or "invalid"."""
    if filter_type != USER_FACING_TIME:
        return reader.u16("sequence number")
    time = reader.measured_time("user-facing time")
    return time.at.isoformat() if time.at else time.clock


class RecordTransfer:
    """Asks for the stored records of one service, one request at a time.

    `records` is the characteristic that the records are values of.
    """

    def __init__(self, records: str) -> None:
        self._progress = frozenset({records, CONTROL_POINT})
        self.is_running = False
        """Whether the sensor is sending records."""
        self.is_aborted = False
        """Whether the sensor was told to stop. Records that still arrive are late: the next transfer asks for them again."""

    def run(self, choose_request: Callable[[], bytes]) -> Generator[Action | Reading, Any, None]:
        """Ask for the records until the sensor has sent them, has none, or fails.

        `choose_request` returns the request for the records that are new. It is called again when the sensor could not complete
        the last one, and then asks from the last record on. A sensor that refuses the filter is asked for all. A sensor that
        stops sending for `RECORD_TIMEOUT_S` is told to abort.
        """
        refuses_filter = False
        for count in range(MAX_REQUESTS):
            if count:
                yield Wait(REPEAT_PAUSE_S, progress=self._progress)
            request = REPORT_ALL if refuses_filter else choose_request()
            result = yield from self._ask(request)
            if result in _FILTER_REFUSED and request != REPORT_ALL:
                refuses_filter = True
            elif result != _NOT_COMPLETED:
                return

    def _ask(self, request: bytes) -> Generator[Action | Reading, Any, int | None]:
        """Send a request for records and wait for its result; None where there is none."""
        self.is_running, self.is_aborted = True, False
        try:
            answer = yield Request(
                CONTROL_POINT, request, partial(is_answer, request), RECORD_TIMEOUT_S, progress=self._progress
            )
            return int(answer[3])
        except RefusedError:
            return None
        except NoAnswerError:
            yield from self._abort()
            return None
        finally:
            self.is_running = False

    def _abort(self) -> Generator[Action | Reading, Any, None]:
        """Stop the sensor. One that cannot stop goes on sending: its records are waited for."""
        self.is_running, self.is_aborted = False, True
        try:
            answer = yield Request(CONTROL_POINT, ABORT, partial(is_answer, ABORT), progress=frozenset({CONTROL_POINT}))
        except (RefusedError, NoAnswerError):
            return
        if answer[3] == _ABORT_UNSUCCESSFUL:
            self.is_running, self.is_aborted = True, False
            yield Wait(RECORD_TIMEOUT_S, progress=self._progress)
            self.is_aborted = True

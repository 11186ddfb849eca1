"""The sensor's side of the Record Access Control Point (0x2A52): GATT Specification Supplement, and the service that has it.

Requests and responses only; the sensor reports the records.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

REPORT, DELETE, ABORT, NUMBER = 1, 2, 3, 4
NUMBER_RESPONSE: Final = 5
RESPONSE: Final = 6
NULL, ALL, UP_TO, FROM, RANGE, FIRST, LAST = range(7)
SEQUENCE_NUMBER: Final = 1
"""A filter type. 2 is the user-facing time, which these sensors do not filter by."""

SUCCESS: Final = 1
OP_CODE_NOT_SUPPORTED: Final = 2
INVALID_OPERATOR: Final = 3
OPERATOR_NOT_SUPPORTED: Final = 4
INVALID_OPERAND: Final = 5
NO_RECORDS: Final = 6
ABORT_UNSUCCESSFUL: Final = 7
NOT_COMPLETED: Final = 8
OPERAND_NOT_SUPPORTED: Final = 9

_OPERAND_SIZES: Final = {NULL: 0, ALL: 0, UP_TO: 3, FROM: 3, RANGE: 5, FIRST: 0, LAST: 0}
"""Octets of the operand: none, or the filter type and one or two sequence numbers."""


class RequestError(Exception):
    """A request that the sensor refuses. `code` is the response code value."""

    def __init__(self, code: int) -> None:
        super().__init__(f"response code {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """A request that the sensor understands. `operands` are the sequence numbers of its filter."""

    op: int
    operator: int
    operands: tuple[int, ...] = field(default=())

    def select(self, numbers: Iterable[int]) -> list[int]:
        """Return those of the stored sequence numbers, oldest first, that the request names."""
        stored = list(numbers)
        match self.operator, self.operands:
            case (2, (last,)):
                return [number for number in stored if number <= last]
            case (3, (first,)):
                return [number for number in stored if number >= first]
            case (4, (first, last)):
                return [number for number in stored if first <= number <= last]
            case (5, _):
                return stored[:1]
            case (6, _):
                return stored[-1:]
            case _:
                return stored


def parse_request(request: bytes, operators: Sequence[int] = (ALL,)) -> RecordRequest:
    """Parse a write to the control point, for a sensor that supports these operators for reporting and counting.

    Raises:
        RequestError: the sensor refuses it, with the response code that says why.
    """
    op, operator, operand = request[0] if request else 0, request[1] if len(request) > 1 else 0, request[2:]
    if op not in (REPORT, DELETE, ABORT, NUMBER):
        raise RequestError(OP_CODE_NOT_SUPPORTED)
    if op == ABORT:
        if operator != NULL:
            raise RequestError(INVALID_OPERATOR)
        if operand:
            raise RequestError(INVALID_OPERAND)
        return RecordRequest(op, operator)
    if operator == NULL or operator not in _OPERAND_SIZES:
        raise RequestError(INVALID_OPERATOR if operator == NULL else OPERATOR_NOT_SUPPORTED)
    if operator not in operators:
        raise RequestError(OPERATOR_NOT_SUPPORTED)
    if len(operand) != _OPERAND_SIZES[operator]:
        raise RequestError(INVALID_OPERAND)
    if operand and operand[0] != SEQUENCE_NUMBER:
        raise RequestError(OPERAND_NOT_SUPPORTED)
    numbers = tuple(int.from_bytes(operand[offset : offset + 2], "little") for offset in range(1, len(operand), 2))
    if operator == RANGE and numbers[0] > numbers[1]:
        raise RequestError(INVALID_OPERAND)
    return RecordRequest(op, operator, numbers)


def encode_response(op: int, code: int) -> bytes:
    """Encode the indication that ends the procedure `op`."""
    return bytes((RESPONSE, NULL, op, code))


def encode_number(number: int) -> bytes:
    """Encode the answer to the question for the number of records."""
    return bytes((NUMBER_RESPONSE, NULL)) + number.to_bytes(2, "little")

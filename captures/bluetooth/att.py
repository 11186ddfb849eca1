"""Reads the Attribute Protocol between one client and one server (Core Specification 5.4, volume 3, part F, 3.4)."""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from drivers.spec import uuid16

_ERROR, _FIND_INFORMATION, _READ_BY_TYPE, _READ, _READ_BLOB = 0x01, 0x04, 0x08, 0x0A, 0x0C
"""Requests; each response has the next number. An error answers any request."""
_NOTIFICATION, _INDICATION, _NOTIFICATIONS = 0x1B, 0x1D, 0x23
_CONFIRMATION: Final = 0x1E
_CLIENT_OPCODES: Final = frozenset((0x02, 0x04, 0x06, 0x08, 0x0A, 0x0C, 0x0E, 0x10, 0x12, 0x16, 0x18, 0x1E, 0x20, 0x52, 0xD2))
_COMMAND_BIT: Final = 0x40
_DECLARATION: Final = uuid16(0x2803)
_LONG_BYTES: Final = 22
"""The shortest value that may be the beginning of a longer one: a read returns one byte less than the MTU, at least 23."""
_VALUE_LIMIT: Final = 512
"""Bytes of an attribute (3.2.9)."""


class MalformedError(ValueError):
    """A PDU that breaks the rules of the protocol."""


class Value(NamedTuple):
    """A value that the server sent. `is_pushed` is True for notifications and indications, False for reads."""

    handle: int
    payload: bytes
    is_pushed: bool


class Named(NamedTuple):
    """An attribute of the server has this type (128-bit UUID in lower case)."""

    handle: int
    uuid: str


def is_from_client(pdu: bytes) -> bool:
    """Whether the client sent the PDU: the numbers of the two sides differ."""
    return pdu[0] in _CLIENT_OPCODES


class _Request(NamedTuple):
    opcode: int
    handle: int = 0
    offset: int = 0
    uuid: str = ""


class AttReader:
    """Reads the PDUs between one client and one server in order."""

    def __init__(self) -> None:
        self._request: _Request | None = None
        self._partial_value: Value | None = None
        self._part_bytes = 0
        self._readers: Mapping[int, Callable[[bytes], Iterator[Value | Named]]] = {
            _ERROR: self._read_error,
            _FIND_INFORMATION + 1: self._read_types,
            _READ_BY_TYPE + 1: self._read_by_type,
            _READ + 1: self._read_value,
            _READ_BLOB + 1: self._read_part,
            _NOTIFICATION: self._read_pushed,
            _INDICATION: self._read_pushed,
            _NOTIFICATIONS: self._read_several_pushed,
        }

    def feed(self, pdu: bytes) -> Iterator[Value | Named]:
        """Yield the values and types of attributes that a PDU holds. A long value is yielded when its last part was read.

        Raises:
            MalformedError: the PDU is damaged.
        """
        try:
            if is_from_client(pdu):
                yield from self._read_request(pdu)
            else:
                reader = self._readers.get(pdu[0])
                if reader is not None:
                    yield from reader(pdu)
        except struct.error as error:
            raise MalformedError(f"operation {pdu[0]:#04x}: {len(pdu)} bytes") from error

    def finish(self) -> Iterator[Value]:
        """Yield the long value whose last part was not read."""
        if self._partial_value is not None:
            yield self._partial_value
            self._partial_value = None

    def _read_request(self, pdu: bytes) -> Iterator[Value]:
        if pdu[0] & _COMMAND_BIT or pdu[0] == _CONFIRMATION:
            return
        request = _parse_request(pdu)
        partial = self._partial_value
        continues = (
            partial is not None
            and (request.opcode, request.handle, request.offset) == (_READ_BLOB, partial.handle, len(partial.payload))
            and request.offset < _VALUE_LIMIT
        )
        if not continues:
            yield from self.finish()
        self._request = request

    def _answered(self, opcode: int) -> _Request | None:
        """The request to which a response with this number belongs; None where the capture does not hold it."""
        request, self._request = self._request, None
        return request if request and request.opcode + 1 == opcode else None

    def _read_error(self, _pdu: bytes) -> Iterator[Value]:
        request, self._request = self._request, None
        if request and request.opcode == _READ_BLOB:
            yield from self.finish()

    def _read_value(self, pdu: bytes) -> Iterator[Value]:
        request = self._answered(pdu[0])
        if request is None:
            return
        value = Value(request.handle, pdu[1:], is_pushed=False)
        if len(value.payload) < _LONG_BYTES:
            yield value
        else:
            self._partial_value, self._part_bytes = value, len(value.payload)

    def _read_part(self, pdu: bytes) -> Iterator[Value]:
        request = self._answered(pdu[0])
        if request is None or self._partial_value is None:
            return
        whole = (self._partial_value.payload + pdu[1:])[:_VALUE_LIMIT]
        self._partial_value = self._partial_value._replace(payload=whole)
        if len(pdu) - 1 < self._part_bytes:
            yield from self.finish()

    def _read_types(self, pdu: bytes) -> Iterator[Named]:
        """Find Information Response: handles with UUIDs of 16 bits (format 1) or of 128 bits."""
        if self._answered(pdu[0]) is None:
            return
        size = {1: 2, 2: 16}.get(pdu[1] if len(pdu) > 1 else 0)
        if size is None:
            raise MalformedError("a response with types of an unknown length")
        for at in range(2, len(pdu) - size - 1, size + 2):
            yield Named(struct.unpack_from("<H", pdu, at)[0], _uuid(pdu[at + 2 : at + 2 + size]))

    def _read_by_type(self, pdu: bytes) -> Iterator[Value | Named]:
        """Read By Type Response: handles with the declarations of characteristics, or with values of the given type."""
        request = self._answered(pdu[0])
        size = pdu[1] if len(pdu) > 1 else 0
        if size < 2 or (len(pdu) - 2) % size:
            raise MalformedError(f"a response of {len(pdu)} bytes with entries of {size}")
        for at in range(2, len(pdu), size):
            handle, content = struct.unpack_from("<H", pdu, at)[0], pdu[at + 2 : at + size]
            if _is_declaration(request, handle, content):
                yield Named(struct.unpack_from("<H", content, 1)[0], _uuid(content[3:]))
            elif request is not None and request.uuid != _DECLARATION:
                yield Named(handle, request.uuid)
                yield Value(handle, content, is_pushed=False)

    def _read_pushed(self, pdu: bytes) -> Iterator[Value]:
        yield Value(struct.unpack_from("<H", pdu, 1)[0], pdu[3:], is_pushed=True)

    def _read_several_pushed(self, pdu: bytes) -> Iterator[Value]:
        values = []
        at = 1
        while at < len(pdu):
            handle, length = struct.unpack_from("<HH", pdu, at)
            at += 4 + length
            values.append(Value(handle, pdu[at - length : at], is_pushed=True))
        if at > len(pdu):
            raise MalformedError("a notification of several values that ends within a value")
        yield from values


def _parse_request(pdu: bytes) -> _Request:
    opcode = pdu[0]
    if opcode == _READ:
        return _Request(opcode, *struct.unpack_from("<H", pdu, 1))
    if opcode == _READ_BLOB:
        return _Request(opcode, *struct.unpack_from("<HH", pdu, 1))
    if opcode == _READ_BY_TYPE and len(pdu) in (7, 21):
        return _Request(opcode, uuid=_uuid(pdu[5:]))
    return _Request(opcode)


def _is_declaration(request: _Request | None, handle: int, content: bytes) -> bool:
    """Whether an entry declares a characteristic: properties, handle of the value, UUID of 16 or 128 bits.

    Where the capture misses the request, the value must follow the declaration at once, as it almost always does.
    """
    if len(content) not in (5, 19):
        return False
    return request.uuid == _DECLARATION if request is not None else struct.unpack_from("<H", content, 1)[0] == handle + 1


def _uuid(data: bytes) -> str:
    if len(data) == 2:
        return uuid16(int.from_bytes(data, "little"))
    digits = data[::-1].hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

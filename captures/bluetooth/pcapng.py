"""Reads pcapng files with Bluetooth packets, as Wireshark and sniffers write them. Source: the IETF draft on pcapng."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from captures.bluetooth.packets import PCAP_LINK_TYPES, RECORD_LIMIT, Ending, Record
from captures.bluetooth.pcap import cut_ending, explain_link_type
from captures.recording import RecordingError
from captures.streams import Stream, open_stream

MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_BYTE_ORDERS: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_INTERFACES: Final = 256
"""Interfaces of a section; Wireshark records some ten at once."""
_BLOCK_LIMIT: Final = RECORD_LIMIT + 4096
"""Bytes of a block that is read. Other blocks, such as names and secrets, are skipped."""
_SKIP_BYTES: Final = 1 << 16
_FLAGS, _RESOLUTION, _OFFSET = 2, 9, 14
"""Options: direction of a packet; resolution and offset of an interface's times."""


class _Interface(NamedTuple):
    """`ticks` is the number of ticks in a second; `offset_s` is added to times."""

    link_type: int
    ticks: int
    offset_s: int


@dataclass
class _Section:
    order: str
    interfaces: list[_Interface] = field(default_factory=list)


def read_pcapng(path: Path) -> Iterator[Record | Ending]:
    """Yield the packets of a file in order; an `Ending` last if the file ends within a block.

    Packets of interfaces that are not of Bluetooth are skipped.

    Raises:
        RecordingError: the file is damaged, has no interface of Bluetooth, or its packets have no times.
        OSError: the file cannot be read.
    """
    with open_stream(path) as stream:
        section = _Section("<")
        link_types: set[int] = set()
        number = 0
        for number, (kind, body) in enumerate(_read_blocks(path, stream, section), start=1):
            if kind == _INTERFACE:
                section.interfaces.append(_parse_interface(path, number, section, body))
                link_types.add(section.interfaces[-1].link_type)
            elif kind in (_PACKET, _OLD_PACKET):
                record = _parse_packet(path, number, section, kind, body)
                if record.link_type in PCAP_LINK_TYPES:
                    yield record
            elif kind == _SIMPLE_PACKET:
                raise RecordingError(f"{path}: block {number}: a packet without a time; record it again with times")
            elif kind is None:
                yield cut_ending(number)
                return
        if link_types and link_types.isdisjoint(PCAP_LINK_TYPES):
            raise RecordingError(f"{path}: {explain_link_type(min(link_types))}")
        if stream.is_cut:
            yield cut_ending(number)


def _read_blocks(path: Path, stream: Stream, section: _Section) -> Iterator[tuple[int | None, bytes]]:
    """Yield type and body of each block; (None, b"") if the file ends within one. Updates the section's byte order.

    The body of a section header and of skipped blocks is empty.
    """
    number = 0
    while head := stream.read(8):
        number += 1
        is_section = head[:4] == MAGIC
        if is_section:
            order = stream.read(4)
            if len(order) == 4:
                section.order = _BYTE_ORDERS.get(order, "")
                section.interfaces.clear()
            if not section.order:
                raise RecordingError(f"{path}: block {number}: unknown byte order; the file is damaged there")
        if len(head) < 8:
            yield None, b""
            return
        kind, length = struct.unpack(f"{section.order}II", head)
        rest = length - (12 if is_section else 8)
        if rest < 4 or length % 4:
            raise RecordingError(f"{path}: block {number}: a length of {length} bytes; the file is damaged there")
        body = _read_body(path, number, stream, rest, is_read=kind in (_INTERFACE, _PACKET, _OLD_PACKET))
        if body is None:
            yield None, b""
            return
        yield kind, body[:-4]


def _read_body(path: Path, number: int, stream: Stream, length: int, *, is_read: bool) -> bytes | None:
    """The rest of a block, empty if it is skipped; None if the file ends within it."""
    if is_read:
        if length > _BLOCK_LIMIT:
            raise RecordingError(f"{path}: block {number}: {length} bytes, which no packet has; the file is damaged there")
        body = stream.read(length)
        return body if len(body) == length else None
    while length:
        skipped = stream.read(min(length, _SKIP_BYTES))
        if not skipped:
            return None
        length -= len(skipped)
    return b""


def _parse_interface(path: Path, number: int, section: _Section, body: bytes) -> _Interface:
    if len(section.interfaces) >= _INTERFACES:
        raise RecordingError(f"{path}: more than {_INTERFACES} interfaces; the file is damaged, or split it")
    if len(body) < 8:
        raise RecordingError(f"{path}: block {number}: a damaged interface; record it again")
    (link_type,) = struct.unpack_from(f"{section.order}H", body)
    ticks, offset_s = 1_000_000, 0
    for code, value in _read_options(section.order, body[8:]):
        if code == _RESOLUTION and value:
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _OFFSET and len(value) == 8:
            (offset_s,) = struct.unpack(f"{section.order}q", value)
    return _Interface(link_type, ticks, offset_s)


def _parse_packet(path: Path, number: int, section: _Section, kind: int, body: bytes) -> Record:
    """An enhanced packet, or a packet of the older form with a 16-bit interface and a count of lost packets."""
    if len(body) < 20:
        raise RecordingError(f"{path}: block {number}: a packet of {len(body)} bytes; the file is damaged there")
    index, high, low, included, _ = struct.unpack_from(f"{section.order}IIIII", body)
    if kind == _OLD_PACKET:
        (index,) = struct.unpack_from(f"{section.order}H", body)
    if index >= len(section.interfaces) or included > len(body) - 20:
        raise RecordingError(f"{path}: block {number}: a packet of an unknown interface or length; the file is damaged there")
    interface = section.interfaces[index]
    time_us = interface.offset_s * 1_000_000 + (high << 32 | low) * 1_000_000 // interface.ticks
    flags = None
    for code, value in _read_options(section.order, body[20 + (included + 3) // 4 * 4 :]):
        if code == _FLAGS and len(value) == 4:
            direction = struct.unpack(f"{section.order}I", value)[0] & 3
            flags = {1: 1, 2: 0}.get(direction)
    if interface.link_type != 187:
        flags = None
    return Record(number, time_us, interface.link_type, body[20 : 20 + included], flags)


def _read_options(order: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(f"{order}HH", data, at)
        if code == 0:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4

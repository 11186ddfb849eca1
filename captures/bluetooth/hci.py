"""Reads HCI packets: connections, names and fragments of L2CAP PDUs (Core Specification 5.4, volume 4, part E)."""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from captures.bluetooth.l2cap import Reassembler
from captures.bluetooth.messages import (
    Advertised,
    AttPdu,
    Connected,
    Disconnected,
    Link,
    Lost,
    Message,
    find_name,
    format_address,
)
from captures.bluetooth.packets import Packet

_HANDLE_BITS: Final = 0x0FFF
_CONTINUATION: Final = 1
_FROM_HOST, _FROM_CONTROLLER = 0, 2
"""Packet boundary flags of the first fragment of a PDU on an LE link (5.4.2)."""
_VENDOR_LOG_HANDLE: Final = 0x0EDC
"""Controllers of Qualcomm send their log as ACL data with this handle."""
_RESET: Final = 0x0C03
_DISCONNECTION_COMPLETE, _LE_META = 0x05, 0x3E
_CONNECTION_COMPLETES: Final = (0x01, 0x0A, 0x29)
"""LE Connection Complete, and Enhanced Connection Complete in two versions: they begin alike."""
_ADVERTISING_REPORT, _EXTENDED_REPORT = 0x02, 0x0D
_LINKS: Final = 1024
"""Most connections that are open at once; controllers have some ten."""


class HciReader:
    """Follows the connections of every controller in a capture."""

    def __init__(self) -> None:
        self._reassembler = Reassembler()
        self._open: dict[Link, None] = {}
        self._flags_show_directions = False

    def feed(self, packet: Packet) -> Iterator[Message]:
        """Yield what an HCI packet says about links. Other packets and damaged events yield nothing."""
        if packet.kind == "acl":
            yield from self._read_acl(packet)
        elif packet.kind == "event":
            yield from self._read_event(packet)
        elif packet.kind == "command" and packet.data[:2] == _RESET.to_bytes(2, "little"):
            for link in [link for link in self._open if link[0] == packet.adapter]:
                yield from self._close(link)

    def _read_acl(self, packet: Packet) -> Iterator[Message]:
        if len(packet.data) < 4:
            return
        first, length = struct.unpack_from("<HH", packet.data)
        link, boundary, data = (packet.adapter, first & _HANDLE_BITS), first >> 12 & 3, packet.data[4:]
        if link[1] == _VENDOR_LOG_HANDLE and link not in self._open:
            return
        received = packet.is_received if packet.is_received is not None else self._find_direction(link, boundary)
        if len(data) < length:
            self._reassembler.drop(link, received)
            yield Lost(link)
        else:
            known = received if packet.is_received is not None or self._flags_show_directions else None
            for message in self._reassembler.feed(link, received, data[:length], is_start=boundary != _CONTINUATION):
                yield message._replace(is_received=known) if isinstance(message, AttPdu) else message

    def _find_direction(self, link: Link, boundary: int) -> bool | None:
        """The direction of a packet whose capture does not state it: only first fragments show it.

        Some hosts send the flag of controllers. Until a packet has the flag of hosts, the flags do not show directions.
        """
        self._flags_show_directions |= boundary == _FROM_HOST
        if boundary == _CONTINUATION:
            return self._reassembler.is_unfinished(link, is_received=True)
        return {_FROM_HOST: False, _FROM_CONTROLLER: True}.get(boundary)

    def _read_event(self, packet: Packet) -> Iterator[Message]:
        data = packet.data
        if len(data) < 2 or len(data) < 2 + data[1]:
            return
        body = data[2 : 2 + data[1]]
        if data[0] == _DISCONNECTION_COMPLETE and len(body) >= 4 and body[0] == 0:
            yield from self._close((packet.adapter, struct.unpack_from("<H", body, 1)[0] & _HANDLE_BITS))
        elif data[0] == _LE_META and body and body[0] in _CONNECTION_COMPLETES:
            yield from self._read_connection(packet.adapter, body)
        elif data[0] == _LE_META and body and body[0] in _REPORTS:
            yield from _REPORTS[body[0]](body)

    def _read_connection(self, adapter: int, body: bytes) -> Iterator[Message]:
        """Status, handle, role, type of address, address."""
        if len(body) < 12 or body[1] != 0:
            return
        link = (adapter, struct.unpack_from("<H", body, 2)[0] & _HANDLE_BITS)
        if link in self._open or len(self._open) >= _LINKS:
            yield from self._close(link if link in self._open else next(iter(self._open)))
        self._reassembler.forget(link)
        self._open[link] = None
        yield Connected(link, format_address(body[6:12]))

    def _close(self, link: Link) -> Iterator[Message]:
        self._open.pop(link, None)
        self._reassembler.forget(link)
        yield Disconnected(link)


def _read_reports(body: bytes) -> Iterator[Message]:
    """LE Advertising Report (7.7.65.2): event type, type of address, address, length, data and RSSI of each report."""
    at = 2
    for _ in range(body[1] if len(body) > 1 else 0):
        if at + 9 > len(body):
            return
        address, length = format_address(body[at + 2 : at + 8]), body[at + 8]
        name = find_name(body[at + 9 : at + 9 + length])
        if name:
            yield Advertised(address, name)
        at += 10 + length


def _read_extended_reports(body: bytes) -> Iterator[Message]:
    """LE Extended Advertising Report (7.7.65.13): 24 bytes and the data of each report."""
    at = 2
    for _ in range(body[1] if len(body) > 1 else 0):
        if at + 24 > len(body):
            return
        address, length = format_address(body[at + 3 : at + 9]), body[at + 23]
        name = find_name(body[at + 24 : at + 24 + length])
        if name:
            yield Advertised(address, name)
        at += 24 + length


_REPORTS: Final[Mapping[int, Callable[[bytes], Iterator[Message]]]] = {
    _ADVERTISING_REPORT: _read_reports,
    _EXTENDED_REPORT: _read_extended_reports,
}

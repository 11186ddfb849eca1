"""Reads packets that a sniffer recorded on the air (Core Specification 5.4, volume 6, part B, 2)."""

import struct
from collections.abc import Iterator
from typing import Final

from captures.bluetooth.l2cap import Reassembler
from captures.bluetooth.messages import (
    Advertised,
    Connected,
    Disconnected,
    Encrypted,
    Link,
    Lost,
    Message,
    find_name,
    format_address,
)
from captures.bluetooth.packets import Packet

_ADVERTISING: Final = 0x8E89BED6
"""The access address of all advertising."""
_NAMED: Final = (0, 2, 4, 6)
"""Advertising PDUs with an address and data: connectable, non-connectable, scan response, scannable."""
_CONNECT: Final = 5
_CONTINUATION, _START, _CONTROL = 1, 2, 3
_SEQUENCE_BIT, _EXTRA_BYTE_BIT = 0x08, 0x20
_TERMINATE, _START_ENCRYPTION = 0x02, 0x05
_LINKS: Final = 256
"""Connections that are followed at once."""
_REPEATED_WITHIN_US: Final = 250_000
"""A packet that was not acknowledged is sent again in the same or the next connection event, mostly within 50 ms. Sensors do
not send equal values at this rate."""


class _LinkState:
    def __init__(self) -> None:
        self.is_encrypted = False
        self.recent: dict[bool | None, list[tuple[int, int, bytes]]] = {}

    def is_repeated(self, is_received: bool | None, time_us: int, sequence: int, payload: bytes) -> bool:
        """Whether a packet was sent again. Where directions are unknown, the other side's packet may lie between."""
        recent = self.recent.setdefault(is_received, [])
        found = any(
            0 <= time_us - then < _REPEATED_WITHIN_US and (sequence, payload) == (number, content)
            for then, number, content in recent
        )
        recent.append((time_us, sequence, payload))
        del recent[: -2 if is_received is None else -1]
        return found


class LinkLayerReader:
    """Follows the connections that a sniffer saw."""

    def __init__(self) -> None:
        self._reassembler = Reassembler()
        self._links: dict[Link, _LinkState] = {}

    def feed(self, packet: Packet, time_us: int) -> Iterator[Message]:
        """Yield what a packet says about links. Damaged advertising packets yield nothing."""
        if len(packet.data) < 6:
            return
        access_address, first, length = struct.unpack_from("<IBB", packet.data)
        link = (-1, access_address)
        if access_address == _ADVERTISING:
            yield from self._read_advertising(first & 0x0F, packet.data[6 : 6 + length])
            return
        at = 7 if first & _EXTRA_BYTE_BIT else 6
        payload = packet.data[at : at + length]
        if len(payload) < length:
            yield Lost(link)
            return
        state = self._follow(link)
        if state.is_repeated(packet.is_received, time_us, first & _SEQUENCE_BIT, payload) or not payload:
            return
        if state.is_encrypted and not packet.is_decrypted:
            yield Encrypted(link)
        elif first & 3 == _CONTROL:
            yield from self._read_control(link, state, payload)
        elif first & 3 in (_START, _CONTINUATION):
            yield from self._reassembler.feed(
                link, packet.is_received, payload, is_start=first & 3 == _START, has_mic=packet.is_decrypted
            )

    def _read_advertising(self, kind: int, payload: bytes) -> Iterator[Message]:
        if kind in _NAMED and len(payload) >= 6:
            name = find_name(payload[6:])
            if name:
                yield Advertised(format_address(payload[:6]), name)
        elif kind == _CONNECT and len(payload) >= 16:
            link = (-1, struct.unpack_from("<I", payload, 12)[0])
            self._links.pop(link, None)
            self._follow(link)
            yield Connected(link, format_address(payload[6:12]))

    def _read_control(self, link: Link, state: _LinkState, payload: bytes) -> Iterator[Message]:
        if payload[0] == _TERMINATE:
            self._links.pop(link, None)
            self._reassembler.forget(link)
            yield Disconnected(link)
        elif payload[0] == _START_ENCRYPTION:
            state.is_encrypted = True

    def _follow(self, link: Link) -> _LinkState:
        if link not in self._links and len(self._links) >= _LINKS:
            del self._links[next(iter(self._links))]
        return self._links.setdefault(link, _LinkState())

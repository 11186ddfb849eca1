"""Joins fragments into L2CAP PDUs (Core Specification 5.4, volume 3, part A, 3.1 and 7.2)."""

import struct
from collections.abc import Iterator
from typing import Final

from captures.bluetooth.messages import AttPdu, EnhancedBearer, Link, Lost, Message

_HEADER_BYTES: Final = 4
_ATT, _SIGNALLING = 4, 5
"""Fixed channels of LE links."""
_CREDIT_BASED_CONNECTION_REQUEST: Final = b"\x17"
_ENHANCED_ATT: Final = b"\x27\x00"
_BUFFERS: Final = 256
"""Unfinished PDUs that are kept, each at most 64 KiB. A phone has some ten links."""
_MIC_BYTES: Final = 4
"""A decrypted packet of a sniffer may still end with its message integrity check."""

_Key = tuple[Link, bool | None]


class Reassembler:
    """Joins the fragments of each link and direction. PDUs of channels other than ATT are skipped."""

    def __init__(self) -> None:
        self._unfinished: dict[_Key, bytearray] = {}

    def is_unfinished(self, link: Link, is_received: bool) -> bool:
        """Whether a PDU lacks its last fragment."""
        return (link, is_received) in self._unfinished

    def feed(
        self, link: Link, is_received: bool | None, data: bytes, *, is_start: bool, has_mic: bool = False
    ) -> Iterator[Message]:
        """Add a fragment; yield the PDU that it completes. A fragment that fits no PDU is lost."""
        key = (link, is_received)
        if is_start:
            if self._unfinished.pop(key, None) is not None:
                yield Lost(link)
            buffer = bytearray()
        else:
            found = self._unfinished.pop(key, None)
            if found is None:
                return
            buffer = found
        buffer += data
        length = struct.unpack_from("<H", buffer)[0] + _HEADER_BYTES if len(buffer) >= _HEADER_BYTES else _HEADER_BYTES + 1
        if len(buffer) < length:
            self._keep(key, buffer)
        elif len(buffer) == length or (has_mic and len(buffer) == length + _MIC_BYTES):
            yield from _read_pdu(link, is_received, bytes(buffer[:length]))
        else:
            yield Lost(link)

    def drop(self, link: Link, is_received: bool | None) -> None:
        """Forget the unfinished PDU of a direction."""
        self._unfinished.pop((link, is_received), None)

    def forget(self, link: Link) -> None:
        """Drop the unfinished PDUs of a link that ended."""
        for is_received in (None, False, True):
            self.drop(link, is_received)

    def _keep(self, key: _Key, buffer: bytearray) -> None:
        if len(self._unfinished) >= _BUFFERS:
            del self._unfinished[next(iter(self._unfinished))]
        self._unfinished[key] = buffer


def _read_pdu(link: Link, is_received: bool | None, pdu: bytes) -> Iterator[Message]:
    (channel,) = struct.unpack_from("<H", pdu, 2)
    content = pdu[_HEADER_BYTES:]
    if channel == _ATT and content:
        yield AttPdu(link, is_received, content)
    elif channel == _SIGNALLING and (content[:1], content[4:6]) == (_CREDIT_BASED_CONNECTION_REQUEST, _ENHANCED_ATT):
        yield EnhancedBearer(link)

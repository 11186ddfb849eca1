"""Defines the records of Bluetooth captures, and unpacks the packets of every link type.

Sources: Core Specification 5.4, volume 4, parts A (H4) and E (HCI); the link types of tcpdump.org; BlueZ's `btsnoop.h`;
Nordic Semiconductor's sniffer for Bluetooth LE.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

RECORD_LIMIT: Final = 1 << 18
"""Bytes of a record. The longest HCI packet has 65,540, with the header of its link type a few more."""


class Record(NamedTuple):
    """A record of a container. `flags` are those of btsnoop, or None.

    Where the packet was cut when it was recorded, `data` is shorter than the lengths in it say.
    """

    number: int
    time_us: int
    link_type: int
    data: bytes
    flags: int | None = None


class Ending(NamedTuple):
    """The file ends within a record; `note` says where."""

    note: str


class Packet(NamedTuple):
    """An HCI packet without its H4 type, or a `radio` packet: access address and PDU, without the CRC.

    `is_received` is True from the controller, or from the peripheral; None where the capture does not say. `adapter` is the
    number of the controller. `is_decrypted` says that a sniffer decrypted the PDU.
    """

    kind: Literal["command", "acl", "event", "radio"]
    data: bytes
    is_received: bool | None
    adapter: int = 0
    is_decrypted: bool = False


_H4: Final[Mapping[int, Literal["command", "acl", "event"]]] = {1: "command", 2: "acl", 4: "event"}
_MONITOR: Final[Mapping[int, tuple[Literal["command", "acl", "event"], bool]]] = {
    2: ("command", False),
    3: ("event", True),
    4: ("acl", False),
    5: ("acl", True),
}
"""Opcodes of BlueZ's monitor that carry HCI packets."""
_RESET: Final = Packet("command", b"\x03\x0c\x00", is_received=False)
"""HCI_Reset: it ends every connection, as the removal of a controller does."""
_MONITOR_ENDS: Final = (1, 9)
"""The monitor's opcodes for a controller that was removed or closed."""


def unpack_record(record: Record) -> Packet | None:
    """The packet in a record; None for other kinds of packets (audio, notes) and damaged headers."""
    unpack = _UNPACKERS[record.link_type]
    try:
        return unpack(record)
    except (IndexError, struct.error):
        return None


def _unpack_h1(record: Record) -> Packet:
    """HCI without H4: the flags say whether it is data, and its direction."""
    flags = record.flags or 0
    kind: Literal["command", "acl", "event"] = ("event" if flags & 1 else "command") if flags & 2 else "acl"
    return Packet(kind, record.data, bool(flags & 1))


def _unpack_h4(record: Record) -> Packet | None:
    kind = _H4.get(record.data[0])
    received = None if record.flags is None else bool(record.flags & 1)
    return Packet(kind, record.data[1:], received) if kind else None


def _unpack_h4_with_direction(record: Record) -> Packet | None:
    (received,) = struct.unpack_from(">I", record.data)
    kind = _H4.get(record.data[4])
    return Packet(kind, record.data[5:], bool(received & 1)) if kind else None


def _unpack_monitor(record: Record) -> Packet | None:
    """BlueZ's monitor: in btsnoop, number of the controller and opcode are in the flags; in pcap, in front of the packet."""
    data = record.data
    if record.flags is None:
        adapter, opcode = struct.unpack_from(">HH", data)
        data = data[4:]
    else:
        adapter, opcode = record.flags >> 16, record.flags & 0xFFFF
    if opcode in _MONITOR_ENDS:
        return _RESET._replace(adapter=adapter)
    if opcode not in _MONITOR:
        return None
    kind, received = _MONITOR[opcode]
    return Packet(kind, data, received, adapter)


def _unpack_radio(record: Record) -> Packet:
    return Packet("radio", record.data, None)


_DECRYPTED: Final = 0x0008
_CRC_CHECKED_AND_VALID: Final = (0x0400, 0x0800)
_FROM_CENTRAL, _FROM_PERIPHERAL = 2, 3


def _unpack_radio_with_header(record: Record) -> Packet | None:
    """LINKTYPE_BLUETOOTH_LE_LL_WITH_PHDR: channel, three levels, reference access address, flags."""
    (flags,) = struct.unpack_from("<H", record.data, 8)
    checked, valid = _CRC_CHECKED_AND_VALID
    if flags & checked and not flags & valid:
        return None
    kind = flags >> 7 & 7
    received = {_FROM_CENTRAL: False, _FROM_PERIPHERAL: True}.get(kind)
    return Packet("radio", record.data[10:], received, is_decrypted=bool(flags & _DECRYPTED))


_NORDIC_HEADER_BYTES: Final = 7
_NORDIC_RADIO_HEADER_BYTES: Final = 10
_NORDIC_PACKETS: Final = (2, 6)
_CODED_PHY: Final = 2


def _unpack_nordic(record: Record) -> Packet | None:
    """The nRF sniffer: number of the board, a header of 6 bytes, a header of 10 bytes, then the packet.

    Of the second header, the flags are used: bit 0 CRC right, 1 from the central, 2 encrypted, 3 MIC right, 4 to 6 PHY. On the
    coded PHY, the coding indicator follows the access address.
    """
    data = record.data
    packet_id, length, flags = data[6], data[7], data[8]
    if packet_id not in _NORDIC_PACKETS or length != _NORDIC_RADIO_HEADER_BYTES or not flags & 1:
        return None
    radio = data[_NORDIC_HEADER_BYTES + length :]
    if flags >> 4 & 7 == _CODED_PHY:
        radio = radio[:4] + radio[5:]
    return Packet("radio", radio, not flags & 2, is_decrypted=bool(flags & 4 and flags & 8))


BTSNOOP_H1, BTSNOOP_H4, BTSNOOP_MONITOR = 1001, 1002, 2001
_UNPACKERS: Final[Mapping[int, Callable[[Record], Packet | None]]] = {
    BTSNOOP_H1: _unpack_h1,
    BTSNOOP_H4: _unpack_h4,
    BTSNOOP_MONITOR: _unpack_monitor,
    187: _unpack_h4,
    201: _unpack_h4_with_direction,
    251: _unpack_radio,
    254: _unpack_monitor,
    256: _unpack_radio_with_header,
    272: _unpack_nordic,
}
PCAP_LINK_TYPES: Final = (187, 201, 251, 254, 256, 272)
"""The link types of pcap and pcapng that are read."""

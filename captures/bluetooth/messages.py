"""The events on the Bluetooth LE links of a capture, the same for logs of a host and for sniffers."""

from typing import NamedTuple

Link = tuple[int, int]
"""A connection: number of the controller and connection handle; on the air, -1 and the access address."""


class Connected(NamedTuple):
    link: Link
    address: str


class Disconnected(NamedTuple):
    link: Link


class Advertised(NamedTuple):
    """A device advertised its name."""

    address: str
    name: str


class AttPdu(NamedTuple):
    """A PDU of the Attribute Protocol. `is_received` as in `Packet`."""

    link: Link
    is_received: bool | None
    pdu: bytes


class Lost(NamedTuple):
    """A packet of the link is cut short or damaged in the file, so its content is lost."""

    link: Link


class Encrypted(NamedTuple):
    """An encrypted packet, whose content is unknown."""

    link: Link


class EnhancedBearer(NamedTuple):
    """The link also uses the enhanced bearer of the Attribute Protocol, which is not read."""

    link: Link


Message = Connected | Disconnected | Advertised | AttPdu | Lost | Encrypted | EnhancedBearer


def format_address(data: bytes) -> str:
    """The written form of an address, which is sent last byte first."""
    return data[::-1].hex(":").upper()


def find_name(advertising_data: bytes) -> str:
    """The local name in advertising data, "" if there is none (Core 5.4, volume 3, part C, 11; Supplement, 1.2)."""
    at = 0
    found = ""
    while at + 1 < len(advertising_data):
        length, kind = advertising_data[at], advertising_data[at + 1]
        if length == 0:
            break
        text = clean_name(advertising_data[at + 2 : at + 1 + length])
        if kind == _COMPLETE_NAME:
            return text
        if kind == _SHORTENED_NAME:
            found = text
        at += 1 + length
    return found


def clean_name(data: bytes) -> str:
    return data.decode(errors="replace").strip("\0 ")


_SHORTENED_NAME, _COMPLETE_NAME = 8, 9

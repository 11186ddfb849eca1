"""Reads pcap files with Bluetooth packets: libpcap's classic format, in either byte order, with times in µs or ns."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from captures.bluetooth.packets import PCAP_LINK_TYPES, RECORD_LIMIT, Ending, Record
from captures.recording import RecordingError
from captures.streams import open_stream

MAGICS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1),
    b"\xd4\xc3\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1000),
}
"""The first bytes, with the byte order and the fractions of a second in a microsecond."""
_HEADER_BYTES: Final = 24
_RECORD_BYTES: Final = 16
_LINK_TYPE_BITS: Final = 0x0FFF_FFFF
"""The upper bits hold the length of a frame check sequence."""


def read_pcap(path: Path) -> Iterator[Record | Ending]:
    """Yield the records of a file in order; an `Ending` last if the file ends within a record.

    Raises:
        RecordingError: the packets are not of Bluetooth, or a record is damaged.
        OSError: the file cannot be read.
    """
    with open_stream(path) as stream:
        header = stream.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            raise RecordingError(f"{path}: a pcap file that ends within its header; record it again")
        order, per_us = MAGICS[header[:4]]
        link_type = struct.unpack_from(f"{order}I", header, 20)[0] & _LINK_TYPE_BITS
        if link_type not in PCAP_LINK_TYPES:
            raise RecordingError(f"{path}: {explain_link_type(link_type)}")
        record = struct.Struct(f"{order}IIII")
        number = 0
        while head := stream.read(_RECORD_BYTES):
            number += 1
            if len(head) < _RECORD_BYTES:
                yield cut_ending(number)
                return
            seconds, fraction, included, _ = record.unpack(head)
            if included > RECORD_LIMIT:
                raise RecordingError(
                    f"{path}: record {number}: {included} bytes, which no packet has; the file is damaged there"
                )
            data = stream.read(included)
            if len(data) < included:
                yield cut_ending(number)
                return
            yield Record(number, seconds * 1_000_000 + fraction // per_us, link_type, data)
        if stream.is_cut:
            yield cut_ending(number)


def cut_ending(number: int) -> Ending:
    return Ending(f"record {number}, the last one, is truncated and ignored; the records before it are complete")


def explain_link_type(link_type: int) -> str:
    """What to do about packets that are not read."""
    return (
        f"link type {link_type} is not Bluetooth HCI or Bluetooth LE ({', '.join(map(str, PCAP_LINK_TYPES))});"
        " record with a Bluetooth sniffer, btmon or Android's HCI log"
    )

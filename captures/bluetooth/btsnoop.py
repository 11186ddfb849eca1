"""Reads btsnoop files: Android's `btsnoop_hci.log`, BlueZ's `btmon -w`, Zephyr, Bumble.

Format: a header of 16 bytes ("btsnoop", version 1, link type), then records: original and included length, flags, dropped
packets, time in microseconds since the year 0; all big-endian (RFC 1761, as extended by Symbian and BlueZ).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from captures.bluetooth.packets import BTSNOOP_H1, BTSNOOP_H4, BTSNOOP_MONITOR, RECORD_LIMIT, Ending, Record
from captures.recording import RecordingError
from captures.streams import open_stream

MAGIC: Final = b"btsnoop\0"
HEADER: Final = struct.Struct(">8sII")
RECORD: Final = struct.Struct(">IIIIQ")
EPOCH_US: Final = 0x00DCDDB30F2F8000
"""1970-01-01 in microseconds since the year 0 of the format."""
_LINK_TYPES: Final = (BTSNOOP_H1, BTSNOOP_H4, BTSNOOP_MONITOR)


def read_btsnoop(path: Path) -> Iterator[Record | Ending]:
    """Yield the records of a file in order; an `Ending` last if the file ends within a record.

    Raises:
        RecordingError: the header is of another version or link type, or a record is damaged.
        OSError: the file cannot be read.
    """
    with open_stream(path) as stream:
        header = stream.read(HEADER.size)
        if len(header) < HEADER.size:
            raise RecordingError(f"{path}: a btsnoop file that ends within its header; record it again")
        _, version, link_type = HEADER.unpack(header)
        if version != 1:
            raise RecordingError(
                f"{path}: btsnoop version {version} is not supported, only 1; export it with Wireshark as btsnoop"
            )
        if link_type not in _LINK_TYPES:
            raise RecordingError(
                f"{path}: btsnoop link type {link_type} is not supported, only H1 (1001), H4 (1002) and monitor (2001);"
                " record the HCI log with btmon or Android"
            )
        number = 0
        while head := stream.read(RECORD.size):
            number += 1
            if len(head) < RECORD.size:
                yield Ending(_cut(number))
                return
            original, included, flags, _, time_us = RECORD.unpack(head)
            if included > RECORD_LIMIT or included > original:
                raise RecordingError(
                    f"{path}: record {number}: {included} of {original} bytes, which no packet has; the file is damaged there"
                )
            data = stream.read(included)
            if len(data) < included:
                yield Ending(_cut(number))
                return
            yield Record(number, time_us - EPOCH_US, link_type, data, flags)
        if stream.is_cut:
            yield Ending(_cut(number))


def _cut(number: int) -> str:
    return f"record {number}, the last one, is truncated and ignored; the records before it are complete"

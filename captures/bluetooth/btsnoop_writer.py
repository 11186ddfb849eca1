"""Writes the payloads of a sensor as a btsnoop file, which Wireshark and other tools for Bluetooth open.

The agent sees values of characteristics, not the packets of the radio. The file has the packets that a host would have seen:
the advertised name, the connection, the discovery of each characteristic before its first value, and each value as a
notification. Handles and the address are made up. Format: `captures.bluetooth.btsnoop`; packets: Core Specification 5.4.
"""

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from captures.bluetooth.btsnoop import EPOCH_US, HEADER, MAGIC, RECORD
from captures.bluetooth.packets import BTSNOOP_H4
from captures.payloads import EVENTS

_ACL, _EVENT = 2, 4
_RECEIVED: Final = 1
_IS_EVENT: Final = 2
"""Flags of a record: its direction, and whether it is a command or an event."""
_LINK: Final = 0x0040
_ADDRESS: Final = bytes.fromhex("0100000000C0")
"""C0:00:00:00:00:01, a random static one, low byte first."""
_RANDOM_ADDRESS: Final = 1
_ATTRIBUTE_CHANNEL: Final = 4
_FIRST_FROM_CONTROLLER: Final = 2 << 12
_READ_BY_TYPE, _READ_BY_TYPE_RESPONSE, _NOTIFICATION = 0x08, 0x09, 0x1B
_DECLARATION: Final = 0x2803
_CAN_NOTIFY: Final = 0x10
_NAME_LIMIT: Final = 29
"""Bytes of a name in an advertisement of 31."""
_SIG_UUID_TAIL: Final = "-0000-1000-8000-00805f9b34fb"


class BtsnoopWriter:
    """Writes a new file; when a call returns, its packets are complete in the file.

    Raises:
        FileExistsError: the file exists; a capture is never overwritten.
        OSError: the file cannot be created or written.
    """

    def __init__(self, path: Path, name: str, started_us: int) -> None:
        """`name` is what the sensor advertises, `started_us` the wall clock at the start."""
        # Readable only by its owner: these are measurements of a patient.
        self._path, self._started_us = path, started_us
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self._handles: dict[str, int] = {}
        """By characteristic, the handle of its value: those that this connection has discovered."""
        self._is_connected = False
        self._file.write(HEADER.pack(MAGIC, 1, BTSNOOP_H4))
        text = name.encode()[:_NAME_LIMIT]
        data = bytes((len(text) + 1, 0x09)) + text
        report = bytes((0x02, 1, 0, _RANDOM_ADDRESS)) + _ADDRESS + bytes((len(data),)) + data + b"\x7f"
        self._write_event(0.0, 0x3E, report)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write_payload(self, t: float, characteristic: str, payload: bytes) -> None:
        """Writes a payload that was received `t` seconds after the start."""
        self._connect(t)
        handle = self._handles.get(characteristic) or self._discover(t, characteristic)
        self._write_attribute(t, struct.pack("<BH", _NOTIFICATION, handle) + payload, _RECEIVED)

    def write_event(self, t: float, name: str) -> None:
        """Writes an event of the link: one of `EVENTS`."""
        if name not in EVENTS:
            raise ValueError(f"{name!r} is not an event of a capture; use {' or '.join(EVENTS)}")
        if name == "connected":
            self._connect(t)
        elif self._is_connected:
            self._is_connected = False
            self._handles.clear()
            self._write_event(t, 0x05, struct.pack("<BHB", 0, _LINK, 0x08))

    def close(self) -> None:
        self._file.close()

    def delete(self) -> None:
        """Closes and deletes the file, because nothing was recorded."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _connect(self, t: float) -> None:
        """LE Connection Complete: as a central, with an interval of 30 ms and a time-out of 720 ms."""
        if not self._is_connected:
            self._is_connected = True
            body = struct.pack("<BBHBB6sHHHB", 0x01, 0, _LINK, 0, _RANDOM_ADDRESS, _ADDRESS, 24, 0, 72, 0)
            self._write_event(t, 0x3E, body)

    def _discover(self, t: float, characteristic: str) -> int:
        """Write the discovery of a characteristic: its declaration, then the handle of its value."""
        declaration = 2 * len(self._handles) + 1
        handle = self._handles[characteristic] = declaration + 1
        self._write_attribute(t, struct.pack("<BHHH", _READ_BY_TYPE, declaration, 0xFFFF, _DECLARATION), 0)
        entry = struct.pack("<HBH", declaration, _CAN_NOTIFY, handle) + _uuid_bytes(characteristic)
        self._write_attribute(t, bytes((_READ_BY_TYPE_RESPONSE, len(entry))) + entry, _RECEIVED)
        return handle

    def _write_attribute(self, t: float, pdu: bytes, direction: int) -> None:
        channel = struct.pack("<HH", len(pdu), _ATTRIBUTE_CHANNEL) + pdu
        link = _LINK | (_FIRST_FROM_CONTROLLER if direction == _RECEIVED else 0)
        self._write(t, bytes((_ACL,)) + struct.pack("<HH", link, len(channel)) + channel, direction)

    def _write_event(self, t: float, code: int, body: bytes) -> None:
        self._write(t, bytes((_EVENT, code, len(body))) + body, _RECEIVED | _IS_EVENT)

    def _write(self, t: float, data: bytes, flags: int) -> None:
        time_us = self._started_us + round(t * 1e6) + EPOCH_US
        self._file.write(RECORD.pack(len(data), len(data), flags, 0, time_us) + data)


def _uuid_bytes(uuid: str) -> bytes:
    """2 bytes of a UUID of the Bluetooth SIG, otherwise 16; low byte first."""
    if uuid.startswith("0000") and uuid.endswith(_SIG_UUID_TAIL):
        return bytes.fromhex(uuid[4:8])[::-1]
    return bytes.fromhex(uuid.replace("-", ""))[::-1]

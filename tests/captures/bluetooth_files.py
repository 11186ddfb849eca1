"""Writes and opens Bluetooth captures: packets of a hub that listens to a sensor, in any container and link type."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from captures import PayloadCapture, ReadOptions, RecordingError, open_file
from captures.payloads import Payload

START_US: Final = 1_714_912_200_000_000
YEAR_0_US: Final = 946_684_800_000_000 - 0x00E0_3AB4_4A67_6000
"""The start of the times of btsnoop, in microseconds since 1970: BlueZ and Bumble state it as 0xE03AB44A676000 before 2000."""
SENSOR: Final = "C1:02:03:04:05:06"
HANDLE: Final = 0x0040
RATE: Final = "00002a37-0000-1000-8000-00805f9b34fb"
BATTERY: Final = "00002a19-0000-1000-8000-00805f9b34fb"
MODEL: Final = "00002a24-0000-1000-8000-00805f9b34fb"
PMD_DATA: Final = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"


class Sent(NamedTuple):
    """An HCI packet with its H4 type; `from_host` is its direction."""

    t_us: int
    from_host: bool
    packet: bytes


def address_bytes(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))[::-1]


def uuid_bytes(uuid: str) -> bytes:
    """Two bytes for a number of the Bluetooth SIG, else 16, last byte first."""
    digits = bytes.fromhex(uuid.replace("-", ""))
    return digits[3:1:-1] if uuid.endswith("-0000-1000-8000-00805f9b34fb") else digits[::-1]


def event(code: int, body: bytes) -> bytes:
    return bytes((4, code, len(body))) + body


def connected(handle: int = HANDLE, address: str = SENSOR, subevent: int = 1) -> bytes:
    tail = {1: b"", 0x0A: bytes(12), 0x29: bytes(15)}[subevent]
    body = bytes((subevent, 0)) + struct.pack("<HBB", handle, 0, 1) + address_bytes(address)
    return event(0x3E, body + tail + bytes.fromhex("1800 0000 9001 00"))


def disconnected(handle: int = HANDLE) -> bytes:
    return event(5, b"\0" + struct.pack("<HB", handle, 0x08))


def advertised(name: str, address: str = SENSOR) -> bytes:
    data = bytes((2, 1, 6, len(name) + 1, 9)) + name.encode()
    return event(0x3E, bytes((2, 1, 4, 1)) + address_bytes(address) + bytes((len(data),)) + data + b"\xc0")


def acl(pdu: bytes, *, from_host: bool, handle: int = HANDLE, channel: int = 4, size: int = 1024) -> list[bytes]:
    """An L2CAP PDU in ACL packets of at most `size` bytes."""
    whole = struct.pack("<HH", len(pdu), channel) + pdu
    packets = []
    for at in range(0, len(whole), size):
        boundary = 1 if at else (0 if from_host else 2)
        piece = whole[at : at + size]
        packets.append(b"\2" + struct.pack("<HH", handle | boundary << 12, len(piece)) + piece)
    return packets


@dataclass
class Session:
    """Packets of a link in order, 20 ms apart unless `at` sets the time."""

    handle: int = HANDLE
    address: str = SENSOR
    t_us: int = START_US
    size: int = 1024

    def __post_init__(self) -> None:
        self.packets: list[Sent] = []

    def add(self, packets: bytes | Iterable[bytes], *, from_host: bool) -> None:
        for packet in [packets] if isinstance(packets, bytes) else packets:
            self.packets.append(Sent(self.t_us, from_host, packet))
            self.t_us += 20_000

    def at(self, seconds: float) -> "Session":
        self.t_us = START_US + round(seconds * 1e6)
        return self

    def connect(self, subevent: int = 1) -> "Session":
        self.add(connected(self.handle, self.address, subevent), from_host=False)
        return self

    def disconnect(self) -> "Session":
        self.add(disconnected(self.handle), from_host=False)
        return self

    def advertise(self, name: str) -> "Session":
        self.add(advertised(name, self.address), from_host=False)
        return self

    def request(self, pdu: bytes) -> "Session":
        self.add(acl(pdu, from_host=True, handle=self.handle, size=self.size), from_host=True)
        return self

    def answer(self, pdu: bytes) -> "Session":
        self.add(acl(pdu, from_host=False, handle=self.handle, size=self.size), from_host=False)
        return self

    def discover(self, handles: dict[int, str]) -> "Session":
        """Find each characteristic by its declaration, which is in the handle before its value."""
        for handle, uuid in handles.items():
            self.request(b"\x08" + struct.pack("<HH", handle - 1, 0xFFFF) + b"\x03\x28")
            entry = struct.pack("<HBH", handle - 1, 0x10, handle) + uuid_bytes(uuid)
            self.answer(bytes((9, len(entry))) + entry)
        self.request(b"\x08\x40\x00\xff\xff\x03\x28")
        return self.answer(b"\x01\x08\x40\x00\x0a")

    def notify(self, handle: int, value: bytes) -> "Session":
        return self.answer(b"\x1b" + struct.pack("<H", handle) + value)

    def read(self, handle: int, value: bytes) -> "Session":
        return self.request(b"\x0a" + struct.pack("<H", handle)).answer(b"\x0b" + value)


def heart_rate_session(count: int = 5, **keywords: object) -> Session:
    """A connection, the discovery of the heart rate at handle 0x11, and one measurement a second."""
    session = Session(**keywords).connect().discover({0x11: RATE})  # type: ignore[arg-type]
    for number in range(count):
        session.at(1.0 + number).notify(0x11, rate(number))
    return session


def rate(number: int) -> bytes:
    return bytes((0x10, 60 + number)) + struct.pack("<H", 1000 + number)


def btsnoop(packets: Iterable[Sent], link_type: int = 1002) -> bytes:
    """A btsnoop file; of link type 2001, the number of the controller is 0."""
    out = b"btsnoop\0" + struct.pack(">II", 1, link_type)
    for t_us, from_host, packet in packets:
        is_data = packet[0] == 2
        flags = (0 if from_host else 1) | (0 if is_data else 2)
        data = packet if link_type == 1002 else packet[1:]
        if link_type == 2001:
            flags = {1: 2, 4: 3, 2: 4 if from_host else 5}[packet[0]]
        out += struct.pack(">IIIIq", len(data), len(data), flags, 0, t_us - YEAR_0_US) + data
    return out


def framed(packet: Sent, link_type: int) -> bytes:
    """A packet with the header of its link type."""
    if link_type == 187:
        return packet.packet
    if link_type == 201:
        return struct.pack(">I", 0 if packet.from_host else 1) + packet.packet
    opcode = {1: 2, 4: 3, 2: 4 if packet.from_host else 5}[packet.packet[0]]
    return struct.pack(">HH", 0, opcode) + packet.packet[1:]


def pcap(frames: Iterable[tuple[int, bytes]], link_type: int, order: str = "<", *, nanoseconds: bool = False) -> bytes:
    """A classic pcap file of frames with their times in µs."""
    out = struct.pack(f"{order}IHHIIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link_type)
    for t_us, frame in frames:
        fraction = t_us % 1_000_000 * (1000 if nanoseconds else 1)
        out += struct.pack(f"{order}IIII", t_us // 1_000_000, fraction, len(frame), len(frame)) + frame
    return out


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + length + body + length


def pcapng(
    frames: Iterable[tuple[int, bytes]], link_type: int, order: str = "<", *, resolution: int = 6, offset_s: int = 0
) -> bytes:
    """A pcapng file; `resolution` is that of if_tsresol, `offset_s` that of if_tsoffset."""
    section = struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)
    options = struct.pack(f"{order}HHB3x", 9, 1, resolution) + struct.pack(f"{order}HHq", 14, 8, offset_s) + bytes(4)
    out = block(order, 0x0A0D0D0A, section)
    out += block(order, 1, struct.pack(f"{order}HHI", link_type, 0, 0) + options)
    ticks = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    for t_us, frame in frames:
        time = -(-(t_us - offset_s * 1_000_000) * ticks // 1_000_000)
        head = struct.pack(f"{order}IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame))
        out += block(order, 6, head + frame)
    return out


RATES = [Payload(1.0 + number, RATE, rate(number)) for number in range(5)]
WATCH = "D0:00:00:00:00:07"


def open_bytes(folder: Path, content: bytes, **options: object) -> PayloadCapture:
    path = folder / "capture.bin"
    path.write_bytes(content)
    opened = open_file(path, ReadOptions(**options))  # type: ignore[arg-type]
    assert isinstance(opened, PayloadCapture)
    return opened


def payloads(capture: PayloadCapture) -> list[Payload]:
    return [entry for entry in capture.read_entries() if isinstance(entry, Payload)]


def values(folder: Path, session: Session) -> list[tuple[str, bytes]]:
    return [(item.characteristic, item.payload) for item in payloads(open_bytes(folder, btsnoop(session.packets)))]


def refuse(folder: Path, content: bytes, **options: object) -> str:
    with pytest.raises(RecordingError) as error:
        open_bytes(folder, content, **options)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert "capture.bin" in message
    return message

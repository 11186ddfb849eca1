"""Captures of sniffers on the air: connection, discovery and values as a log of the phone gives them; encryption is told."""

import struct
from pathlib import Path

import pytest

from captures import PayloadCapture, RecordingError, open_file
from captures.payloads import LinkEvent, Payload
from tests.captures.bluetooth_files import RATE, SENSOR, START_US, address_bytes, pcap, pcapng, rate

ADVERTISING = 0x8E89BED6
ACCESS = 0x50655F21
FROM_CENTRAL, FROM_PERIPHERAL = False, True


class Air:
    """Packets on the air, in the form of a link type: a connection event every 50 ms, with the sequence bits of each side."""

    def __init__(self, link_type: int) -> None:
        self.link_type = link_type
        self.frames: list[tuple[int, bytes]] = []
        self.t_us = START_US
        self.sequence = {False: 0, True: 0}

    def add(self, access: int, pdu: bytes, received: bool = False, *, flags: int = 0, crc_is_right: bool = True) -> None:
        packet = struct.pack("<I", access) + pdu + b"\x11\x22\x33"
        kind = 0 if access == ADVERTISING else (3 if received else 2)
        if self.link_type == 256:
            bits = 0x0C11 if crc_is_right else 0x0411
            packet = (
                struct.pack("<BbbBIH", 0 if access == ADVERTISING else 5, -40, -90, 0, access, bits | kind << 7 | flags)
                + packet
            )
        elif self.link_type == 272:
            is_advertising = access == ADVERTISING
            low = (1 if crc_is_right else 0) | (0 if received or is_advertising else 2) | (0x0C if flags else 0)
            radio = bytes((10, low, 37 if is_advertising else 5, 40)) + struct.pack("<HI", 1, 150) + packet
            packet = b"\0" + struct.pack("<HBHB", len(radio), 3, 1, 2 if access == ADVERTISING else 6) + radio
        self.frames.append((self.t_us, packet))
        self.t_us += 50_000

    def advertise(self, name: str) -> None:
        data = address_bytes(SENSOR) + bytes((len(name) + 1, 9)) + name.encode()
        self.add(ADVERTISING, bytes((0x40, len(data))) + data)

    def connect(self) -> None:
        body = address_bytes("40:00:00:00:00:01") + address_bytes(SENSOR) + struct.pack("<I", ACCESS) + bytes(18)
        self.add(ADVERTISING, bytes((0xC5, len(body))) + body)

    def data(self, received: bool, llid: int, payload: bytes, **keywords: object) -> None:
        header = llid | self.sequence[received] << 3
        self.sequence[received] ^= 1
        self.add(ACCESS, bytes((header, len(payload))) + payload, received, **keywords)  # type: ignore[arg-type]

    def att(self, received: bool, pdu: bytes, size: int = 27, **keywords: object) -> None:
        whole = struct.pack("<HH", len(pdu), 4) + pdu
        for at in range(0, len(whole), size):
            self.data(received, 1 if at else 2, whole[at : at + size], **keywords)
        self.data(not received, 1, b"")


def record(link_type: int, count: int = 4, size: int = 27) -> Air:
    air = Air(link_type)
    air.advertise("Strap 7")
    air.connect()
    air.att(FROM_CENTRAL, b"\x08\x01\x00\xff\xff\x03\x28", size)
    air.att(FROM_PERIPHERAL, b"\x09\x07\x10\x00\x10\x11\x00\x37\x2a", size)
    for number in range(count):
        air.att(FROM_PERIPHERAL, b"\x1b\x11\x00" + rate(number), size)
    return air


def open_bytes(folder: Path, content: bytes) -> PayloadCapture:
    path = folder / "air.pcap"
    path.write_bytes(content)
    opened = open_file(path)
    assert isinstance(opened, PayloadCapture)
    return opened


def values(capture: PayloadCapture) -> list[bytes]:
    found = [entry for entry in capture.read_entries() if isinstance(entry, Payload)]
    assert {entry.characteristic for entry in found} <= {RATE}
    return [entry.payload for entry in found]


@pytest.mark.parametrize("link_type", [251, 256, 272])
@pytest.mark.parametrize("size", [5, 27])
def test_reads_the_link_types_of_sniffers(tmp_path: Path, link_type: int, size: int) -> None:
    air = record(link_type, size=size)
    air.data(FROM_PERIPHERAL, 3, b"\x02\x13")
    for content in (pcap(air.frames, link_type), pcapng(air.frames, link_type)):
        capture = open_bytes(tmp_path, content)
        assert capture.header.sensor == "Strap 7"
        assert values(capture) == [rate(number) for number in range(4)]
        assert [entry.name for entry in capture.read_entries() if isinstance(entry, LinkEvent)] == ["connected", "disconnected"]


@pytest.mark.parametrize("link_type", [251, 256, 272])
def test_a_packet_that_was_sent_again_counts_once(tmp_path: Path, link_type: int) -> None:
    air = record(link_type)
    again = [frame for frame in air.frames for _ in range(2)]
    assert values(open_bytes(tmp_path, pcap(again, link_type))) == [rate(number) for number in range(4)]


@pytest.mark.parametrize("link_type", [251, 256, 272])
def test_equal_values_of_two_seconds_count_twice(tmp_path: Path, link_type: int) -> None:
    air = record(link_type, 0)
    for _ in range(3):
        air.att(FROM_PERIPHERAL, b"\x1b\x11\x00" + rate(5))
        air.sequence[FROM_PERIPHERAL] = 0  # the sniffer missed an empty packet
        air.t_us += 1_000_000
    assert values(open_bytes(tmp_path, pcap(air.frames, link_type))) == [rate(5)] * 3


@pytest.mark.parametrize("link_type", [256, 272])
def test_packets_with_a_wrong_checksum_are_ignored(tmp_path: Path, link_type: int) -> None:
    air = record(link_type)
    air.att(FROM_PERIPHERAL, b"\x1b\x11\x00" + rate(9), crc_is_right=False)
    assert values(open_bytes(tmp_path, pcap(air.frames, link_type))) == [rate(number) for number in range(4)]


def encrypt(air: Air) -> None:
    air.data(FROM_CENTRAL, 3, b"\x03" + bytes(22))
    air.data(FROM_PERIPHERAL, 3, b"\x04" + bytes(12))
    air.data(FROM_PERIPHERAL, 3, b"\x05")
    air.data(FROM_CENTRAL, 3, b"\x8a\x99\x01\x02\x03")


@pytest.mark.parametrize("link_type", [251, 256, 272])
def test_encrypted_packets_are_told(tmp_path: Path, link_type: int) -> None:
    air = record(link_type)
    encrypt(air)
    air.att(FROM_PERIPHERAL, bytes(11))
    capture = open_bytes(tmp_path, pcap(air.frames, link_type))
    assert values(capture) == [rate(number) for number in range(4)]
    assert any("2 packets of its link are encrypted" in note for note in capture.notes)

    alone = Air(link_type)
    alone.connect()
    encrypt(alone)
    with pytest.raises(RecordingError, match="encrypted; record the HCI log"):
        open_bytes(tmp_path, pcap(alone.frames, link_type))


@pytest.mark.parametrize("link_type", [256, 272])
@pytest.mark.parametrize("mic", [b"", b"\x01\x02\x03\x04"])
def test_packets_that_the_sniffer_decrypted_are_read(tmp_path: Path, link_type: int, mic: bytes) -> None:
    air = record(link_type, 1)
    encrypt(air)
    pdu = b"\x1b\x11\x00" + rate(3)
    air.data(FROM_PERIPHERAL, 2, struct.pack("<HH", len(pdu), 4) + pdu + mic, flags=8)
    assert values(open_bytes(tmp_path, pcap(air.frames, link_type))) == [rate(0), rate(3)]


def test_a_new_connection_ends_the_one_before(tmp_path: Path) -> None:
    """A sniffer does not see that a link was lost."""
    air = record(256, 1)
    air.t_us += 20_000_000
    air.connect()
    air.att(FROM_PERIPHERAL, b"\x1b\x11\x00" + rate(1))
    capture = open_bytes(tmp_path, pcap(air.frames, 256))
    events = [entry.name for entry in capture.read_entries() if isinstance(entry, LinkEvent)]
    assert events == ["connected", "disconnected", "connected"]
    assert values(capture) == [rate(0), rate(1)]

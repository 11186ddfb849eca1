"""The btsnoop files that `pulsegate record` writes, as our own reader and as a reader of the packets sees them."""

import stat
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.bluetooth import is_bluetooth_capture, read_bluetooth_capture
from captures.bluetooth.btsnoop_writer import BtsnoopWriter
from captures.payloads import LinkEvent, Payload
from captures.recording import ReadOptions
from drivers.spec import uuid16

RATE, BATTERY, PMD = uuid16(0x2A37), uuid16(0x2A19), "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
STARTED_US = 1_790_000_000_000_000


def read(path: Path) -> tuple[str, int, list[object]]:
    begin = path.read_bytes()[:16]
    assert is_bluetooth_capture(begin)
    capture = read_bluetooth_capture(path, begin, ReadOptions())
    return capture.header.sensor, capture.header.started_us, list(capture.read_entries())


def test_our_reader_finds_the_sensor_its_values_and_its_links(tmp_path: Path) -> None:
    path = tmp_path / "strap.btsnoop"
    with BtsnoopWriter(path, "Polar H10 1A2B", STARTED_US) as writer:
        writer.write_payload(0.5, BATTERY, b"\x33")
        writer.write_event(0.75, "connected")
        writer.write_payload(1.0, RATE, b"\x00\x48")
        writer.write_payload(1.25, PMD, bytes(229))
        writer.write_event(2.0, "disconnected")
        writer.write_event(2.5, "disconnected")
        writer.write_payload(3.0, RATE, b"\x00\x49")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    name, started_us, entries = read(path)
    assert (name, started_us) == ("Polar H10 1A2B", STARTED_US + 500_000)
    assert entries == [
        LinkEvent(0.0, "connected"),
        Payload(0.0, BATTERY, b"\x33"),
        Payload(0.5, RATE, b"\x00\x48"),
        Payload(0.75, PMD, bytes(229)),
        LinkEvent(1.5, "disconnected"),
        LinkEvent(2.5, "connected"),
        Payload(2.5, RATE, b"\x00\x49"),
    ]


@given(payloads=st.lists(st.binary(max_size=512), min_size=1, max_size=8))
def test_every_payload_comes_back(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("captures") / "x.btsnoop"
    with BtsnoopWriter(path, "é" * 40, STARTED_US) as writer:
        for payload in payloads:
            writer.write_payload(1.0, RATE, payload)
    assert [entry.payload for entry in read(path)[2] if isinstance(entry, Payload)] == payloads


def test_the_packets_are_those_of_the_specification(tmp_path: Path) -> None:
    """Octets by hand from Core Specification 5.4: volume 4, part E, 5.4 and 7.7.65; volume 3, part F, 3.4."""
    path = tmp_path / "x.btsnoop"
    with BtsnoopWriter(path, "H10", STARTED_US) as writer:
        writer.write_payload(0.0, RATE, b"\x00\x48")
    data, packets, flags = path.read_bytes()[16:], [], []
    while data:
        size, _, flag, _, _ = struct.unpack(">IIIIQ", data[:24])
        flags.append(flag)
        packets.append(data[24 : 24 + size].hex())
        data = data[24 + size :]
    assert packets == [
        "043e11" + "02010001" + "0100000000c0" + "05" + "0409483130" + "7f",
        "043e13" + "010040000001" + "0100000000c0" + "18000000480000",
        "0240000b00" + "07000400" + "080100ffff0328",
        "0240200d00" + "09000400" + "0907" + "0100100200372a",
        "0240200900" + "05000400" + "1b02000048",
    ]
    assert flags == [3, 3, 0, 1, 1]


def test_a_file_is_never_overwritten_and_an_empty_one_can_be_deleted(tmp_path: Path) -> None:
    path = tmp_path / "x.btsnoop"
    BtsnoopWriter(path, "H10", 0).delete()
    assert not path.exists()
    BtsnoopWriter(path, "H10", 0).close()
    with pytest.raises(FileExistsError):
        BtsnoopWriter(path, "H10", 0)
    with BtsnoopWriter(tmp_path / "y.btsnoop", "H10", 0) as writer, pytest.raises(ValueError, match="not an event"):
        writer.write_event(0.0, "seen")

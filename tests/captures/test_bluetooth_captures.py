"""Bluetooth captures of a hub that listens to a sensor give the sensor's payloads with the times of the records."""

import gzip
import struct
from pathlib import Path

import pytest

from captures import RecordingError
from captures.payloads import LinkEvent, Truncation
from tests.captures.bluetooth_files import (
    BATTERY,
    HANDLE,
    MODEL,
    PMD_DATA,
    RATE,
    RATES,
    SENSOR,
    START_US,
    WATCH,
    Session,
    acl,
    btsnoop,
    framed,
    heart_rate_session,
    open_bytes,
    payloads,
    pcap,
    pcapng,
    rate,
    refuse,
    values,
)

# Containers and link types


@pytest.mark.parametrize("link_type", [1001, 1002, 2001])
def test_reads_every_link_type_of_btsnoop(tmp_path: Path, link_type: int) -> None:
    capture = open_bytes(tmp_path, btsnoop(heart_rate_session().packets, link_type))
    assert capture.header.sensor == SENSOR
    assert capture.header.started_us == START_US
    assert list(capture.read_entries()) == [LinkEvent(0.0, "connected"), *RATES]


@pytest.mark.parametrize("link_type", [187, 201, 254])
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_hci_in_pcap_and_pcapng(tmp_path: Path, link_type: int, order: str) -> None:
    frames = [(packet.t_us, framed(packet, link_type)) for packet in heart_rate_session().packets]
    for content in (
        pcap(frames, link_type, order),
        pcap(frames, link_type, order, nanoseconds=True),
        pcapng(frames, link_type, order),
        pcapng(frames, link_type, order, resolution=9),
        pcapng(frames, link_type, order, resolution=0x80 | 20),
        pcapng(frames, link_type, order, offset_s=1_700_000_000),
    ):
        capture = open_bytes(tmp_path, content)
        assert capture.header.started_us == START_US
        assert payloads(capture) == RATES


def test_reads_the_interface_of_bluetooth_among_others(tmp_path: Path) -> None:
    frames = [(packet.t_us, framed(packet, 201)) for packet in heart_rate_session().packets]
    other = pcapng([(START_US, bytes(60))], 1)
    assert payloads(open_bytes(tmp_path, other + pcapng(frames, 201))) == RATES
    assert "link type 1 is not Bluetooth" in refuse(tmp_path, other)
    assert "link type 1 is not Bluetooth" in refuse(tmp_path, pcap([], 1))


def test_refuses_what_no_reader_of_btsnoop_knows(tmp_path: Path) -> None:
    assert "link type 1004" in refuse(tmp_path, b"btsnoop\0" + struct.pack(">II", 1, 1004))
    assert "version 2" in refuse(tmp_path, b"btsnoop\0" + struct.pack(">II", 2, 1002))
    assert "header" in refuse(tmp_path, b"btsnoop\0\0")


@pytest.mark.parametrize("lost", [1, 5, 16, 30])
def test_a_cut_last_record_is_told(tmp_path: Path, lost: int) -> None:
    frames = [(packet.t_us, framed(packet, 201)) for packet in heart_rate_session().packets]
    for content in (btsnoop(heart_rate_session().packets), pcap(frames, 201), pcapng(frames, 201)):
        entries = list(open_bytes(tmp_path, content[:-lost]).read_entries())
        assert entries[1:-1] == RATES[:4]
        assert isinstance(entries[-1], Truncation)
        assert "truncated" in entries[-1].note


def test_damage_in_the_middle_stops_the_replay_there(tmp_path: Path) -> None:
    whole = btsnoop(heart_rate_session().packets)
    entries = open_bytes(tmp_path, whole + struct.pack(">IIIIq", 1, 1 << 30, 0, 0, 0) + bytes(100)).read_entries()
    assert [next(entries) for _ in range(6)][1:] == RATES
    with pytest.raises(RecordingError, match=r"record 11: 1073741824 of 1 bytes"):
        next(entries)


def test_reads_a_gzipped_capture(tmp_path: Path) -> None:
    packed = gzip.compress(btsnoop(heart_rate_session().packets))
    assert payloads(open_bytes(tmp_path, packed)) == RATES
    *rest, last = open_bytes(tmp_path, packed[:-4]).read_entries()
    assert rest[1:] == RATES
    assert isinstance(last, Truncation)


# Connections and the attributes of a sensor


@pytest.mark.parametrize("subevent", [1, 0x0A, 0x29])
def test_knows_the_sensor_by_its_address(tmp_path: Path, subevent: int) -> None:
    session = Session().connect(subevent).discover({0x11: RATE}).notify(0x11, rate(0))
    assert open_bytes(tmp_path, btsnoop(session.packets)).header.sensor == SENSOR


def test_names_the_sensor_as_it_advertises_or_answers(tmp_path: Path) -> None:
    advertised = heart_rate_session().advertise("Polar H10 1A2B")
    assert open_bytes(tmp_path, btsnoop(advertised.packets)).header.sensor == "Polar H10 1A2B"
    asked = heart_rate_session()
    asked.request(b"\x08\x01\x00\xff\xff\x00\x2a").answer(b"\x09\x0c\x03\x00HRM-Pro 77")
    assert open_bytes(tmp_path, btsnoop(asked.packets)).header.sensor == "HRM-Pro 77"


@pytest.mark.parametrize("size", [1, 3, 7, 20, 27])
def test_joins_fragments(tmp_path: Path, size: int) -> None:
    session = heart_rate_session(size=size).discover({0x21: PMD_DATA})
    frame = bytes(range(230))
    session.notify(0x21, frame)
    assert values(tmp_path, session)[-1] == (PMD_DATA, frame)
    framed_187 = pcap([(packet.t_us, packet.packet) for packet in session.packets], 187)
    assert payloads(open_bytes(tmp_path, framed_187))[-1].payload == frame


def test_fragments_of_two_links_do_not_mix(tmp_path: Path) -> None:
    first, second = heart_rate_session(1), Session(handle=0x41, address=WATCH).connect().discover({0x11: BATTERY})
    halves = [
        acl(b"\x1b\x11\x00" + value, from_host=False, handle=handle, size=6)
        for handle, value in ((0x40, rate(7)), (0x41, b"\x50"))
    ]
    for pair in zip(*(half + [b""] * (2 - len(half)) for half in halves), strict=True):
        first.add([packet for packet in pair if packet], from_host=False)
    assert payloads(open_bytes(tmp_path, btsnoop(second.packets + first.packets), signal=SENSOR))[-1].payload == rate(7)


def test_reads_every_kind_of_value(tmp_path: Path) -> None:
    session = Session().connect().discover({0x11: RATE, 0x21: BATTERY, 0x31: MODEL})
    session.answer(b"\x1d\x11\x00" + rate(1)).request(b"\x1e")  # indication and confirmation
    session.read(0x21, b"\x57")
    session.answer(b"\x23\x11\x00\x04\x00" + rate(2) + b"\x21\x00\x01\x00\x56")
    session.read(0x31, b"A model with a long na").request(b"\x0c\x31\x00\x16\x00").answer(b"\x0dme of 27")
    session.read(0x31, b"H10")
    assert values(tmp_path, session) == [
        (RATE, rate(1)),
        (BATTERY, b"\x57"),
        (RATE, rate(2)),
        (BATTERY, b"\x56"),
        (MODEL, b"A model with a long name of 27"),
        (MODEL, b"H10"),
    ]


def test_a_long_value_whose_end_was_not_read_is_kept(tmp_path: Path) -> None:
    session = heart_rate_session(1).discover({0x31: MODEL}).read(0x31, b"A model with a long na")
    assert values(tmp_path, session)[-1] == (MODEL, b"A model with a long na")
    session.request(b"\x0c\x31\x00\x16\x00").answer(b"\x01\x0c\x31\x00\x0b").notify(0x11, rate(3))
    assert values(tmp_path, session)[-2:] == [(MODEL, b"A model with a long na"), (RATE, rate(3))]


def test_finds_characteristics_by_find_information(tmp_path: Path) -> None:
    session = Session().connect()
    session.request(b"\x04\x01\x00\xff\xff").answer(b"\x05\x01\x10\x00\x03\x28\x11\x00\x37\x2a\x12\x00\x02\x29")
    session.request(b"\x04\x13\x00\xff\xff").answer(b"\x05\x02\x21\x00" + bytes.fromhex("c8f08d2dcd8aad1c87f3e702825c00fb"))
    session.notify(0x11, rate(0)).notify(0x21, bytes(13))
    assert values(tmp_path, session) == [(RATE, rate(0)), (PMD_DATA, bytes(13))]


@pytest.mark.parametrize("discovery_last", [False, True])
def test_a_discovery_holds_for_every_connection_of_the_address(tmp_path: Path, discovery_last: bool) -> None:
    """The handle of the connection differs; another device with the same attribute handle is another sensor."""
    known = Session().connect().discover({0x11: RATE}).notify(0x11, rate(1)).disconnect()
    cached = Session(handle=0x47).at(60).connect().notify(0x11, rate(2)).disconnect()
    other = Session(handle=0x48, address=WATCH).at(120).connect().notify(0x11, b"\x01\x02")
    if discovery_last:
        known, cached = Session(handle=0x47).connect().notify(0x11, rate(1)).disconnect(), heart_rate_session(0).at(60)
        cached.notify(0x11, rate(2)).disconnect()
    capture = open_bytes(tmp_path, btsnoop(known.packets + cached.packets + other.packets))
    assert [(item.characteristic, item.payload) for item in payloads(capture)] == [(RATE, rate(1)), (RATE, rate(2))]
    assert [entry.name for entry in capture.read_entries() if isinstance(entry, LinkEvent)].count("disconnected") == 2
    assert any(note.startswith("not read") and WATCH in note for note in capture.notes)


def test_a_new_discovery_moves_the_handles(tmp_path: Path) -> None:
    session = Session().connect().notify(0x11, rate(0)).discover({0x11: RATE}).notify(0x11, rate(1)).disconnect()
    session.connect().discover({0x11: BATTERY, 0x21: RATE}).notify(0x11, b"\x55").notify(0x21, rate(2))
    session.discover({0x11: "0000f101-0000-1000-8000-00805f9b34fb"}).notify(0x11, b"\x56")
    assert values(tmp_path, session) == [(RATE, rate(0)), (RATE, rate(1)), (BATTERY, b"\x55"), (RATE, rate(2))]


def test_a_log_that_begins_within_a_connection_is_read(tmp_path: Path) -> None:
    capture = open_bytes(tmp_path, btsnoop(heart_rate_session().packets[1:]))
    assert capture.header.sensor == "connection 0x0040"
    assert len(payloads(capture)) == 5


def test_a_reset_of_the_controller_ends_the_link(tmp_path: Path) -> None:
    session = heart_rate_session(1)
    session.add(b"\x01\x03\x0c\x00", from_host=True)
    capture = open_bytes(tmp_path, btsnoop(session.packets))
    assert [entry.name for entry in capture.read_entries() if isinstance(entry, LinkEvent)] == ["connected", "disconnected"]


def test_reads_what_the_sensor_itself_recorded(tmp_path: Path) -> None:
    packets = [
        packet._replace(from_host=packet.packet[0] == 2 and not packet.from_host) for packet in heart_rate_session().packets
    ]
    capture = open_bytes(tmp_path, btsnoop(packets))
    assert payloads(capture) == RATES
    assert capture.header.sensor == "this device"


@pytest.mark.parametrize("link_type", [187, 201])
def test_what_the_sensor_asks_the_phone_does_not_change_its_handles(tmp_path: Path, link_type: int) -> None:
    """A watch reads the phone's characteristics while the phone reads those of the watch."""
    session = heart_rate_session(1)
    session.answer(b"\x08\x01\x00\xff\xff\x03\x28").request(b"\x09\x07\x10\x00\x02\x11\x00\x19\x2a").notify(0x11, rate(1))
    capture = open_bytes(tmp_path, pcap([(packet.t_us, framed(packet, link_type)) for packet in session.packets], link_type))
    assert [(item.characteristic, item.payload) for item in payloads(capture)] == [(RATE, rate(0)), (RATE, rate(1))]


@pytest.mark.parametrize("boundary", [0, 2])
def test_hosts_may_send_either_boundary_flag(tmp_path: Path, boundary: int) -> None:
    """Where the capture does not state directions, requests are known by their numbers."""
    frames = []
    for t_us, from_host, packet in heart_rate_session().packets:
        changed = packet[:2] + bytes((boundary << 4,)) + packet[3:] if packet[0] == 2 and from_host else packet
        frames.append((t_us, changed))
    assert payloads(open_bytes(tmp_path, pcap(frames, 187))) == RATES


# Damaged packets


def test_packets_cut_by_a_snap_length_are_told(tmp_path: Path) -> None:
    session = heart_rate_session()
    whole = btsnoop(session.packets)
    size = len(btsnoop(session.packets[-1:])) - 16
    at = len(whole) - size * 3
    head = struct.unpack(">IIIIq", whole[at : at + 24])
    cut = whole[:at] + struct.pack(">IIIIq", head[0], 12, *head[2:]) + whole[at + 24 : at + 36] + whole[at + size :]
    capture = open_bytes(tmp_path, cut)
    assert payloads(capture) == [*RATES[:2], *RATES[3:]]
    assert any(note.startswith("1 packets of its link are cut short") for note in capture.notes)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x02\x40\x20\xff\x00\x07\x00\x04\x00\x1b\x11\x00\x10\x46",  # ACL length beyond the record
        b"\x02\x40\x20\x0a\x00\x04\x00\x04\x00\x1b\x11\x00\x10\x46\x47",  # more data than the length of the PDU
        b"\x02\x40\x20\x05\x00\x01\x00\x04\x00\x1b",  # a notification without a handle
        b"\x02\x40\x20\x0a\x00\x06\x00\x04\x00\x23\x11\x00\x09\x00\x10",  # a value longer than the notification
        b"\x02\x40\x20\x08\x00\x04\x00\x04\x00\x09\x07\x01\x02",  # entries of 7 bytes in a response of 2
    ],
)
def test_damaged_packets_are_counted_and_cost_nothing_else(tmp_path: Path, damaged: bytes) -> None:
    session = heart_rate_session()
    session.packets.insert(7, session.packets[6]._replace(packet=damaged))
    capture = open_bytes(tmp_path, btsnoop(session.packets))
    assert payloads(capture) == RATES
    assert any(note.startswith("1 packets of its link") for note in capture.notes)


def test_an_unfinished_pdu_is_lost_when_the_next_begins(tmp_path: Path) -> None:
    session = heart_rate_session()
    session.packets.insert(7, session.packets[6]._replace(packet=acl(b"\x1b\x11\x00" + rate(40), from_host=False, size=8)[0]))
    capture = open_bytes(tmp_path, btsnoop(session.packets))
    assert payloads(capture) == RATES
    assert any(note.startswith("1 packets of its link") for note in capture.notes)


def test_the_log_of_the_controller_is_no_link(tmp_path: Path) -> None:
    session = heart_rate_session()
    session.add(acl(b"\x1b\x99\x00\x01", from_host=False, handle=0x0EDC), from_host=False)
    assert not any("0x0099" in note for note in open_bytes(tmp_path, btsnoop(session.packets)).notes)


# Times


def test_a_clock_that_was_set_back_is_told_and_time_goes_on(tmp_path: Path) -> None:
    session = heart_rate_session(3)
    moved = [packet._replace(t_us=packet.t_us - 3_600_000_000) for packet in heart_rate_session().packets[-2:]]
    capture = open_bytes(tmp_path, btsnoop(session.packets + moved))
    assert [item.t for item in payloads(capture)] == pytest.approx([1.0, 2.0, 3.0, 3.0, 4.0])
    assert any("the clock was set by -3599.000 s at record 9" in note for note in capture.notes)


def test_records_out_of_order_do_not_move_the_clock(tmp_path: Path) -> None:
    session = heart_rate_session(3)
    session.packets[-1] = session.packets[-1]._replace(t_us=session.packets[-2].t_us - 400)
    session.at(4).notify(0x11, rate(3))
    capture = open_bytes(tmp_path, btsnoop(session.packets))
    assert [item.t for item in payloads(capture)] == pytest.approx([1.0, 2.0, 2.0, 4.0])
    assert not any("clock" in note for note in capture.notes)


def test_a_clock_set_for_the_first_time_is_told(tmp_path: Path) -> None:
    booted = [packet._replace(t_us=packet.t_us - START_US + 10**6) for packet in heart_rate_session(2).packets]
    later = heart_rate_session(4).packets[-2:]
    capture = open_bytes(tmp_path, btsnoop(booted + later))
    assert capture.header.started_us == 0
    assert any("the date is unknown" in note for note in capture.notes)
    assert [item.t for item in payloads(capture)] == pytest.approx([1.0, 2.0, 2.0, 3.0])
    assert any("the clock was set by +17149" in note for note in capture.notes)


def test_time_begins_with_the_link_to_the_sensor(tmp_path: Path) -> None:
    early = Session(handle=0x41, address=WATCH).at(-7200).connect()
    capture = open_bytes(tmp_path, btsnoop(early.packets + heart_rate_session().packets))
    assert capture.header.started_us == START_US
    assert payloads(capture) == RATES


def test_the_handle_of_a_connection_is_that_of_its_controller(tmp_path: Path) -> None:
    """Two controllers of btmon may use the same connection handle for different sensors."""
    content = btsnoop(heart_rate_session().packets, 2001)
    other = Session(address=WATCH).connect().discover({0x11: BATTERY}).notify(0x11, b"\x01")
    second = btsnoop(other.packets, 2001)[16:]
    at = 0
    shifted = b""
    while at < len(second):
        original, included, flags, drops, time = struct.unpack_from(">IIIIq", second, at)
        shifted += (
            struct.pack(">IIIIq", original, included, flags | 1 << 16, drops, time) + second[at + 24 : at + 24 + included]
        )
        at += 24 + included
    assert other.handle == HANDLE
    assert payloads(open_bytes(tmp_path, content + shifted)) == RATES


def test_times_before_the_epoch_are_read_without_a_date(tmp_path: Path) -> None:
    packets = [packet._replace(t_us=packet.t_us - START_US - 10**12) for packet in heart_rate_session().packets]
    capture = open_bytes(tmp_path, btsnoop(packets))
    assert capture.header.started_us == 0
    assert payloads(capture) == RATES


def test_more_devices_or_handles_than_a_capture_has_are_refused(tmp_path: Path) -> None:
    devices = Session()
    for number in range(300):
        devices.handle, devices.address = number, f"C0:00:00:00:{number >> 8:02X}:{number & 255:02X}"
        devices.connect().notify(0x11, b"\0")
    for packets in (devices.packets, heart_rate_session().packets + devices.packets):
        assert "more than 256 connected devices" in refuse(tmp_path, btsnoop(packets))
    handles = heart_rate_session()
    for number in range(4100):
        handles.notify(0x1000 + number, b"\0")
    assert "more than 4096 handles" in refuse(tmp_path, btsnoop(handles.packets))

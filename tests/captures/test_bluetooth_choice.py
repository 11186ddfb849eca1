"""The choice of the sensor of a Bluetooth capture, and the map of --gatt."""

import json
from pathlib import Path

import pytest

from captures import RecordingError
from tests.captures.bluetooth_files import (
    BATTERY,
    RATE,
    RATES,
    SENSOR,
    WATCH,
    Session,
    acl,
    btsnoop,
    heart_rate_session,
    open_bytes,
    payloads,
    rate,
    refuse,
)


def test_refuses_without_discovery_and_reads_with_the_map(tmp_path: Path) -> None:
    content = btsnoop([heart_rate_session(0).packets[0], *heart_rate_session().packets[-5:]])
    message = refuse(tmp_path, content)
    for part in ("no GATT discovery", "handle 0x0011 (5 values)", "--gatt"):
        assert part in message
    gatt = tmp_path / "map.json"
    for text in ('{"0x0011": "2a37"}', '{"17": "0x2A37"}', json.dumps({"0x11": RATE.upper()})):
        gatt.write_text(text)
        assert payloads(open_bytes(tmp_path, content, gatt=gatt)) == RATES


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object"),
        ("{}", "not an object"),
        ('{"0x0": "2a37"}', "not a handle"),
        ('{"70000": "2a37"}', "not a handle"),
        ('{"' + "1" * 5000 + '": "2a37"}', "not a handle"),
        ('{"0x0011": "heart"}', "not a UUID"),
        ('{"0x0011": 10807}', "not a UUID"),
        ('{"0x0011": ' + "1" * 5000 + "}", "not JSON"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path: Path, text: str, wrong: str) -> None:
    gatt = tmp_path / "map.json"
    gatt.write_text(text)
    with pytest.raises(RecordingError, match=wrong) as error:
        open_bytes(tmp_path, btsnoop(heart_rate_session().packets), gatt=gatt)
    assert len(str(error.value)) < 400
    with pytest.raises(RecordingError, match="check the name"):
        open_bytes(tmp_path, btsnoop(heart_rate_session().packets), gatt=tmp_path / "none.json")


def test_the_discovery_of_the_file_comes_before_the_map(tmp_path: Path) -> None:
    gatt = tmp_path / "map.json"
    gatt.write_text('{"0x0011": "2a19"}')
    capture = open_bytes(tmp_path, btsnoop(heart_rate_session().packets), gatt=gatt)
    assert payloads(capture) == RATES
    assert any("--gatt is not used for handle 0x0011" in note for note in capture.notes)
    assert any("2a37 at handle 0x0011" in note for note in capture.notes)


def test_two_sensors_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    second = Session(handle=0x41, address=WATCH).at(10).connect().discover({0x31: RATE}).notify(0x31, rate(9))
    content = btsnoop(heart_rate_session().packets + second.advertise("Watch").packets)
    message = refuse(tmp_path, content)
    for part in (SENSOR, f"Watch ({WATCH})", "--signal"):
        assert part in message
    for choice in (WATCH, WATCH.lower(), "watch", "2"):
        assert [item.payload for item in payloads(open_bytes(tmp_path, content, signal=choice))] == [rate(9)]
    message = refuse(tmp_path, content, signal="H10")
    for part in ("no sensor is named 'H10'", f"1. {SENSOR}", f"2. Watch ({WATCH})"):
        assert part in message


def test_a_name_of_two_sensors_chooses_none(tmp_path: Path) -> None:
    second = Session(handle=0x41, address=WATCH).at(10).connect().discover({0x31: RATE}).notify(0x31, rate(9))
    content = btsnoop(heart_rate_session().advertise("HRM").packets + second.advertise("HRM").packets)
    assert "several sensors are named 'HRM'" in refuse(tmp_path, content, signal="HRM")


def test_notes_say_what_was_read(tmp_path: Path) -> None:
    session = heart_rate_session().discover({0x21: BATTERY}).read(0x21, b"\x50")
    (note,) = open_bytes(tmp_path, btsnoop(session.packets)).notes
    assert note == f"6 values of {SENSOR} are read: 2a37 at handle 0x0011, 2a19 at handle 0x0021"
    gatt = tmp_path / "map.json"
    gatt.write_text('{"0x0011": "2a37"}')
    cached = [session.packets[0], *session.packets[5:10]]
    (note,) = open_bytes(tmp_path, btsnoop(cached), gatt=gatt).notes
    assert note.endswith("2a37 at handle 0x0011, by --gatt")


def test_a_battery_beside_the_strap_needs_no_choice(tmp_path: Path) -> None:
    earbuds = Session(handle=0x41, address=WATCH).at(-9).connect().discover({0x31: BATTERY}).notify(0x31, b"\x20")
    capture = open_bytes(tmp_path, btsnoop(earbuds.packets + heart_rate_session().packets))
    assert payloads(capture) == RATES
    assert any(note.startswith("not read") and WATCH in note for note in capture.notes)


def test_says_why_no_sensor_can_be_read(tmp_path: Path) -> None:
    silent = Session().connect().discover({0x11: RATE})
    assert "no notification" in refuse(tmp_path, btsnoop(silent.packets))
    other = Session().connect().discover({0x11: "0000f101-0000-1000-8000-00805f9b34fb"}).notify(0x11, b"\x01")
    assert "characteristics f101 (1)" in refuse(tmp_path, btsnoop(other.packets))
    assert "no values of a Bluetooth LE sensor" in refuse(tmp_path, btsnoop([]))
    enhanced = Session().connect()
    enhanced.add(acl(bytes.fromhex("17010a0027000001400001004000"), from_host=True, channel=5), from_host=True)
    assert "enhanced bearer" in refuse(tmp_path, btsnoop(enhanced.packets))

"""The HCI log of an Android phone: read as Bumble's decoders read it, and refused because no driver reads its sensor."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from bumble import att, hci, l2cap

from captures import RecordingError, open_file
from captures.bluetooth.att import Named, Value
from captures.bluetooth.btsnoop import read_btsnoop
from captures.bluetooth.hci import HciReader
from captures.bluetooth.packets import Ending, unpack_record
from captures.bluetooth.sensors import Event, Tracker

DEVICE = "D8:0B:CB:62:5C:2B"
Found = tuple[set[tuple[int, str]], list[tuple[int, bytes]]]


@pytest.fixture
def log(data: Path) -> Path:
    return data / "btsnoop" / "generic-android-hci.log"


def read_with_bumble(log: Path) -> Found:
    """The declared characteristics and the values, from the ACL packets, of which none is fragmented in this log."""
    content, at = log.read_bytes(), 16
    declared: set[tuple[int, str]] = set()
    values: list[tuple[int, bytes]] = []
    asked: att.ATT_PDU | None = None
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at + 4)
        packet = hci.HCI_Packet.from_bytes(content[at + 24 : at + 24 + length])
        at += 24 + length
        if not isinstance(packet, hci.HCI_AclDataPacket) or packet.connection_handle == 0x0EDC:
            continue
        pdu = l2cap.L2CAP_PDU.from_bytes(packet.data)
        if pdu.cid != att.ATT_CID:
            continue
        message = att.ATT_PDU.from_bytes(pdu.payload)
        match message:
            case att.ATT_Read_By_Type_Response() if asked and asked.attribute_type.to_hex_str() == "2803":
                for _, entry in message.attributes:
                    declared.add((struct.unpack_from("<H", entry, 1)[0], entry[3:].hex()))
            case att.ATT_Read_Response() if asked:
                values.append((asked.attribute_handle, bytes(message.attribute_value)))
            case att.ATT_Handle_Value_Notification():
                values.append((message.attribute_handle, bytes(message.attribute_value)))
            case att.ATT_Read_By_Type_Request() | att.ATT_Read_Request():
                asked = message
            case _:
                pass
    return declared, values


def events(log: Path) -> Iterator[Event]:
    hci_reader, tracker = HciReader(), Tracker()
    for record in read_btsnoop(log):
        assert not isinstance(record, Ending)
        packet = unpack_record(record)
        if packet is not None:
            for message in hci_reader.feed(packet):
                yield from tracker.feed(message)


def test_agrees_with_bumble(log: Path) -> None:
    declared, expected = read_with_bumble(log)
    found = list(events(log))
    values = [(event.what.handle, event.what.payload) for event in found if isinstance(event.what, Value)]
    names = {(event.what.handle, event.what.uuid) for event in found if isinstance(event.what, Named)}
    assert len(values) > 700
    assert values == expected
    assert len(declared) == 15
    for handle, uuid in declared:
        text = bytes.fromhex(uuid)[::-1].hex()
        long = text if len(text) == 32 else f"0000{text}00001000800000805f9b34fb"
        assert any((handle, long) == (number, name.replace("-", "")) for number, name in names)
    assert [event.what for event in found if isinstance(event.what, str)] == ["connected", "disconnected", "connected"]
    assert {event.address for event in found} == {DEVICE}


def test_a_log_without_a_heart_sensor_is_refused(log: Path) -> None:
    with pytest.raises(
        RecordingError, match=r"no values that a driver reads, only notifications of characteristics f101 \(34\)"
    ):
        open_file(log)

"""Bumble's recorders of HCI packets, at the virtual strap's hub and at the strap, give the payloads of `pulsegate record`."""

import asyncio
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from bumble.snoop import BtSnooper, PcapSnooper, Snooper

from captures import PayloadCapture, open_file
from captures.jsonl import read_entries
from captures.payloads import Entry, LinkEvent, Payload
from config.settings import SensorSettings
from drivers.polar_pmd import CONTROL_POINT
from drivers.registry import load_drivers
from gateway import virtual_time
from gateway.cli import main
from gateway.clock import VirtualClock
from gateway.radio.bumble_backend import make_bumble_radio
from gateway.radio.virtual import VirtualLink, make_device
from gateway.replay.record import record
from gateway.simulate import pmd
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script
from gateway.simulate.strap import ADDRESS, NAME, Strap

SECONDS = 12.0
FEATURES = pmd.encode_features(pmd.H10)
"""What a read of the control point gives; the strap sends responses only."""


class BothSnoopers(Snooper):
    def __init__(self, *snoopers: Snooper) -> None:
        self._snoopers = snoopers

    def snoop(self, hci_packet: bytes, direction: Snooper.Direction) -> None:
        for snooper in self._snoopers:
            snooper.snoop(hci_packet, direction)


async def record_strap(folder: Path) -> dict[str, bytes]:
    """Record a strap with `pulsegate record` and with Bumble's recorders; the captures of these, by name."""
    files = {name: io.BytesIO() for name in ("hub.log", "hub.pcap", "strap.log")}
    link = VirtualLink()
    device, hub = make_device(link, ADDRESS, NAME), make_device(link, "C2:00:00:00:00:01", "pulsegate")
    device.host.snooper = BtSnooper(files["strap.log"])
    hub.host.snooper = BothSnoopers(BtSnooper(files["hub.log"]), PcapSnooper(files["hub.pcap"]))
    await device.power_on()
    await hub.power_on()
    with Journal(folder / "strap.jsonl", "run") as journal:
        playback = Playback(from_script(load_script("demo")), SensorClock.set_to(1_800_000_000 * 10**9, 0.0), journal)
        strap = asyncio.create_task(Strap(device, playback, lambda _: None).run())
        clock = VirtualClock(asyncio.get_running_loop(), 1_800_000_000_000_000)
        sensor = SensorSettings("recorded", advertised_name="Virtual H10")
        radio = make_bumble_radio(hub, "virtual")
        await record(sensor, radio, load_drivers(), clock, folder / "own.jsonl", SECONDS)
        strap.cancel()
        await asyncio.wait([strap])
    return {name: file.getvalue() for name, file in files.items()}


def pushed(entries: Iterable[Entry]) -> list[tuple[str, bytes]]:
    """Return what the strap sent by itself. What a driver's procedure reads is not in a capture of `pulsegate record`."""
    streams = {stream.uuid for driver in load_drivers().drivers for stream in driver.streams if not stream.is_optional}
    found = [(entry.characteristic, entry.payload) for entry in entries if isinstance(entry, Payload)]
    return [each for each in found if each[0] in streams and each != (CONTROL_POINT, FEATURES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strap")
    for name, content in virtual_time.run(record_strap(folder)).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", ["hub.log", "hub.pcap", "strap.log"])
def test_the_payloads_are_those_of_pulsegate_record(folder: Path, name: str) -> None:
    own = pushed(read_entries(folder / "own.jsonl"))
    assert len(own) > 25
    capture = open_file(folder / name)
    assert isinstance(capture, PayloadCapture)
    # A frame and the answers to the two stops may arrive after `pulsegate record` stopped, while the hub still disconnects.
    assert pushed(capture.read_entries())[: len(own)] == own
    assert len(pushed(capture.read_entries())) <= len(own) + 3
    events = [entry.name for entry in capture.read_entries() if isinstance(entry, LinkEvent)]
    assert events == ["connected", "disconnected"]
    assert capture.header.sensor == (NAME if name.startswith("hub") else "this device")
    assert not any("missing" in note for note in capture.notes)


def test_the_device_information_is_read_too(folder: Path) -> None:
    capture = open_file(folder / "hub.log")
    assert isinstance(capture, PayloadCapture)
    texts = {entry.payload for entry in capture.read_entries() if isinstance(entry, Payload)}
    assert {b"pulsegate", b"Virtual H10", b"0A1B2C3D"} <= texts


def test_the_command_replays_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs: list[list[dict[str, object]]] = []
    for arguments in ([], ["--as", "chest"]):
        assert main(["replay", str(folder / "hub.log"), *arguments, "--json"]) == 0
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [lines[-1]["sensor"] for lines in outputs] == [NAME, "chest"]
    assert not any(line["type"] == "quarantined" for line in outputs[0])
    assert any(line["type"] == "vital" and line["kind"] == "heart_rate" for line in outputs[0])

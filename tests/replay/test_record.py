"""`pulsegate replay` reads what `pulsegate record` writes, from the virtual strap on virtual time."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from captures.jsonl import CaptureWriter
from captures.payloads import CaptureHeader
from config.settings import SensorSettings
from drivers.registry import load_drivers
from drivers.spec import uuid16
from gateway import virtual_time
from gateway.cli import main
from gateway.clock import VirtualClock
from gateway.radio.virtual import VirtualLink, make_device, open_in_process_radio
from gateway.replay.record import record
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script
from gateway.simulate.strap import ADDRESS, NAME, Strap


async def record_demo(folder: Path, seconds: float) -> int:
    link, loop = VirtualLink(), asyncio.get_running_loop()
    device = make_device(link, ADDRESS, NAME)
    await device.power_on()
    with Journal(folder / "strap.jsonl", "run") as journal:
        playback = Playback(from_script(load_script("demo")), SensorClock.set_to(1_800_000_000 * 10**9, 0.0), journal)
        strap = asyncio.create_task(Strap(device, playback, lambda _: None).run())
        async with open_in_process_radio(link, "C2:00:00:00:00:01") as radio:
            clock = VirtualClock(loop, 1_800_000_000_000_000)
            sensor = SensorSettings("recorded", advertised_name="Virtual H10")
            count = await record(sensor, radio, load_drivers(), clock, folder / "strap.capture.jsonl", seconds)
        strap.cancel()
        await asyncio.wait([strap])
    return count


def test_a_recorded_strap_replays_with_its_episodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payloads = virtual_time.run(record_demo(tmp_path, 95.0))
    assert payloads > 90 + 90 * 130 // 73
    assert main(["replay", str(tmp_path / "strap.capture.jsonl"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["kind"] for line in lines if line["type"] == "alert"} == {"af", "tachycardia", "pause"}
    assert [line for line in lines if line["type"] == "quarantined"] == []
    assert any(line["type"] == "vital" and line["kind"] == "heart_rate" for line in lines)


def test_a_stored_result_replays_with_its_own_time_and_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    started_us = round(datetime(2025, 7, 15, 15, 10, tzinfo=UTC).timestamp() * 1e6)
    with CaptureWriter(tmp_path / "cuff.jsonl", CaptureHeader("cuff", started_us)) as capture:
        capture.write_payload(2.0, uuid16(0x2A35), bytes.fromhex("1E7B004E005D00E907070F0F00005A00010000"))
    assert main(["replay", str(tmp_path / "cuff.jsonl"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (systolic,) = [line for line in lines if line.get("kind") == "systolic"]
    assert (systolic["t"], systolic["value"]) == (-600.0, 123.0)
    assert systolic["origin"]["time_source"] == "unconfirmed"  # nothing shows that the clock is right
    assert (systolic["origin"]["user"], systolic["origin"]["clock"]) == (1, "set")
    assert systolic["origin"]["local_us"] == started_us - 600_000_000
    monkeypatch.undo()
    time.tzset()


def test_never_overwrites_a_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "there.jsonl"
    file.touch()
    assert main(["record", str(file), "--name", "Strap", "--radio", f"virtual:{tmp_path / 'none.sock'}"]) == 1
    assert "no virtual radio at" in capsys.readouterr().err
    with pytest.raises(FileExistsError):
        virtual_time.run(record_into(file))
    assert file.read_bytes() == b""


async def record_into(file: Path) -> None:
    async with open_in_process_radio(VirtualLink(), "C2:00:00:00:00:01") as radio:
        clock = VirtualClock(asyncio.get_running_loop(), 0)
        await record(SensorSettings("recorded", advertised_name="x"), radio, load_drivers(), clock, file, 1.0)

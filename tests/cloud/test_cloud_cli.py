"""`pulsegate-cloud`: exit codes, one-line errors, export and rebuild, start and stop of the embedded clinic."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud import projections_database, tables
from cloud.api import alert_queries, queries
from cloud.api.alert_queries import ListCursor
from cloud.changes import SensorKey
from cloud.cli import main
from cloud.migrations import migrate
from cloud.projections_database import open_projections
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from sync.record_codec import encode_records
from sync.records import GapRecord
from sync.seal import LaneEnd, parse_header, seal_block
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, strip, waveform

SAMPLES = counts(ecg_mv([0.5], 1.0))
START_LIMIT_S = 60


@pytest.fixture
def folder(clinic: Clinic) -> Path:
    return clinic.folder.path


def fill_store(folder: Path, hub: Hub) -> None:
    with closing(Store.open(folder / "blocks.db")) as store:
        hub.send(store, "wave", waveform(START_US, SAMPLES))
        hub.send(store, "wave", GapRecord("strap-1", "ecg", START_US + 1_000_000, None, None, "the link was lost"))
        hub.send(store, "alert", alert(strip=strip(START_US, [0.5, 1.3], 2.0)))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any], str]:
    code = main(arguments)
    output = capsys.readouterr()
    return code, [json.loads(line) for line in output.out.splitlines()], output.err


def test_help_exits_0_and_bad_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "dev" in capsys.readouterr().out
    for arguments in ([], ["dev"], ["dev", "--data", "x", "--port", "70000"], ["open", "--data", "x", "--colour"]):
        assert main(arguments) == 2
        assert "usage: pulsegate-cloud" in capsys.readouterr().err


def test_exports_every_record_with_its_sequence_number(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    fill_store(folder, hub)
    code, lines, _ = run(capsys, "open", "--data", str(folder), "--json")
    assert code == 0
    raised, wave, gap, account = lines
    assert (wave["type"], wave["hub"], wave["lane"], wave["epoch"], wave["seq"]) == ("waveform", "hub-1", "wave", 1, 1)
    assert (wave["sensor_ns"], wave["n"], wave["samples_crc32"]) == (0, 130, zlib.crc32(SAMPLES.astype("<i4").tobytes()))
    assert (gap["type"], gap["reason"], gap["to_us"]) == ("gap", "the link was lost", None)
    assert (raised["type"], raised["lane"], raised["strip"]["n"], raised["measured"]["rate_bpm"]) == (
        "alert",
        "alert",
        260,
        150.0,
    )
    assert (account["blocks"], account["records"], account["missing_blocks"], account["duplicate_blocks"]) == (3, 3, 0, 0)


def test_export_finds_missing_blocks_and_duplicate_waveforms(
    folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(folder / "blocks.db")) as store:
        hub.send(store, "wave", waveform(START_US, SAMPLES))
        lost = hub.seal("wave", b"")
        rejected = seal_block(replace(hub.header("wave", 3), subject="subject-9"), b"", hub.key)
        assert hub.receive(store, hub.message(rejected))[0].aside[0].seq == parse_header(hub.seal("wave", b"")).seq
        hub.send(store, "wave", waveform(START_US, SAMPLES))
        hub.epoch, previous = 2, LaneEnd(1, 6, bytes(32))
        hub.send_block(store, seal_block(replace(hub.header("wave", 1), prev=previous), encode_records([]), hub.key))
    code, lines, _ = run(capsys, "open", "--data", str(folder), "--json")
    assert code == 0
    lost_seq = parse_header(lost).seq
    gaps = [(gap["epoch"], gap["first"], gap["last"]) for gap in lines[-1]["missing"]]
    assert gaps == [(1, lost_seq, lost_seq), (1, 5, 6)]
    assert lines[-1]["duplicate_waveforms"] == 1


def test_reports_missing_private_keys_in_one_line(
    clinic: Clinic, folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_store(folder, hub)
    shutil.rmtree(clinic.folder.keys)
    code, lines, error = run(capsys, "open", "--data", str(folder), "--json")
    assert code == 1
    assert [line["type"] for line in lines] == ["account"]
    assert lines[0]["unopened"] == {"no key": 3}
    assert error.count("\n") == 1
    assert "3 of 3 blocks could not be opened, the first because its data key is not wrapped for a recipient" in error


def test_reports_a_missing_clinic_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, "open", "--data", str(tmp_path / "nowhere"))
    assert (code, error) == (
        1,
        f"pulsegate-cloud: no clinic in {tmp_path}/nowhere: give the folder that pulsegate-cloud dev was started with\n",
    )


def test_rebuilds_the_projections_from_the_blocks(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    fill_store(folder, hub)
    engine = open_projections(folder / "projections.db")
    stale = SensorKey("x", "x", "stale")
    with engine.begin() as connection:
        row = {"kind": "heart_rate", "epoch": 1, "seq": 1, "at_us": 1, "value": 1, "flags": "[]"}
        connection.execute(tables.vitals.insert().values({**stale._asdict(), **row}))
    engine.dispose()
    assert main(["open", "--data", str(folder), "--rebuild"]) == 0
    capsys.readouterr()
    engine = open_projections(folder / "projections.db")
    assert queries.read_vitals(engine, EVERY_SUBJECT, stale, "heart_rate", 0, 10)["vitals"] == []
    assert queries.read_counters(engine, EVERY_SUBJECT)["samples"] == 130
    assert len(alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(0))["alerts"]) == 1
    engine.dispose()


def test_recreates_projections_of_an_old_version(folder: Path) -> None:
    engine = open_projections(folder / "projections.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alerts")
        connection.exec_driver_sql("DROP TABLE projections_revision")
        connection.execute(tables.source.update().values(schema=5))
    engine.dispose()
    migrate(folder / "projections.db", projections_database.SCHEMA, may_contract=True)
    engine = open_projections(folder / "projections.db")
    assert alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(0)) == {"revision": 0, "alerts": [], "next": None}
    engine.dispose()


def start_dev(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cloud.cli", "dev", "--data", str(folder), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_endpoints(folder: Path) -> Any:
    deadline = time.monotonic() + START_LIMIT_S
    while not (folder / "clinic.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return json.loads((folder / "clinic.json").read_text())


def test_dev_writes_its_endpoints_and_locks_its_folder(tmp_path: Path) -> None:
    first = start_dev(tmp_path, "--port", "0", "--watch-stdin")
    endpoints = wait_endpoints(tmp_path)
    assert endpoints["pid"] == first.pid
    assert endpoints["mqtt"]["host"] == "127.0.0.1"
    assert [file.name for file in tmp_path.rglob("*") if file.stat().st_mode & 0o077] == ["audit.pub"]
    second = start_dev(tmp_path, "--port", "0")
    assert second.communicate(timeout=START_LIMIT_S)[1].decode().count("is in use by another pulsegate-cloud") == 1
    assert second.returncode == 1
    _, error = first.communicate(timeout=START_LIMIT_S)  # closes its stdin
    assert (first.returncode, error) == (0, b"")
    assert not (tmp_path / "clinic.json").exists()


def test_a_start_makes_files_of_an_older_version_private(tmp_path: Path) -> None:
    open_projections(tmp_path / "projections.db").dispose()
    Store.open(tmp_path / "blocks.db").close()
    names = ("projections.db", "blocks.db")
    for name in names:
        (tmp_path / name).chmod(0o644)
    open_projections(tmp_path / "projections.db").dispose()
    Store.open(tmp_path / "blocks.db").close()
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in names] == [0o600] * 2


def test_dev_restarts_after_a_kill(tmp_path: Path) -> None:
    killed = start_dev(tmp_path, "--port", "0")
    port = wait_endpoints(tmp_path)["page"].rstrip("/").rsplit(":", 1)[1]
    killed.kill()
    killed.communicate()
    again = start_dev(tmp_path, "--port", port, "--watch-stdin")
    deadline = time.monotonic() + START_LIMIT_S
    while not (tmp_path / "clinic.json").exists() or wait_endpoints(tmp_path)["pid"] != again.pid:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    _, error = again.communicate(timeout=START_LIMIT_S)
    assert (again.returncode, error) == (0, b"")


def test_dev_says_at_its_start_that_the_store_was_lost(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    fill_store(folder, hub)
    assert main(["open", "--data", str(folder), "--rebuild"]) == 0
    capsys.readouterr()
    for path in folder.glob("blocks.db*"):
        path.unlink()
    process = start_dev(folder, "--port", "0", "--watch-stdin")
    wait_endpoints(folder)
    _, error = process.communicate(timeout=START_LIMIT_S)
    assert process.returncode == 0
    assert error.count(b"\n") == 1
    assert b"WARNING cloud.opener: the clinic's store was lost or restored from a backup" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_stops_cleanly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    process = start_dev(tmp_path, "--port", "0")
    wait_endpoints(tmp_path)
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=START_LIMIT_S)
    assert (process.returncode, error) == (0, b"")


@pytest.mark.parametrize("option", ["--port", "--mqtt-port"])
def test_reports_a_port_in_use_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = {"--port": "--mqtt-port", "--mqtt-port": "--port"}[option]
        assert main(["dev", "--data", str(tmp_path), option, str(port), other, "0"]) == 1
    assert capsys.readouterr().err == f"pulsegate-cloud: port {port} is in use: choose another with {option}\n"


@pytest.mark.parametrize("port", ["-1", "65536", "x", pytest.param("9" * 5000, id="long")])
def test_refuses_what_is_no_port(tmp_path: Path, capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert main(["dev", "--data", str(tmp_path), f"--port={port}"]) == 2
    assert f"{port!r} is not a port: give a number from 0 to 65535" in capsys.readouterr().err


OPEN_AND_LIST_MODULES = """
import json, sys
from cloud.cli import main
code = main(["open", "--data", sys.argv[1], "--rebuild"])
print(json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def test_open_imports_no_web_server_and_no_broker(folder: Path, hub: Hub) -> None:
    fill_store(folder, hub)
    command = [sys.executable, "-c", OPEN_AND_LIST_MODULES, str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, timeout=START_LIMIT_S).stdout
    code, modules = json.loads(output.splitlines()[-1])
    assert code == 0
    assert "sqlalchemy" in modules
    assert {"fastapi", "starlette", "uvicorn", "amqtt", "websockets"}.isdisjoint(modules)

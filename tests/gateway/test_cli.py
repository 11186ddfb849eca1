"""The commands as a user types them: a failure is reported in one line that says what to do, and changes nothing."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli import COMMANDS
from sync.keys import HubKey


def pulsegate(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    env = os.environ | (environment or {})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def assert_fails(run: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Checks for exit status 1 and a last line that contains every part."""
    assert run.returncode == 1, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("pulsegate: ")
    assert [part for part in parts if part not in last] == []
    assert "Traceback" not in run.stderr


def test_refuses_another_hub_key_and_leaves_the_buffer_unchanged(hub: Path) -> None:
    (hub / "data" / "hub.key").unlink()
    HubKey.load_or_create(hub / "data" / "hub.key")
    before = (hub / "data" / "buffer.db").read_bytes()
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "buffer.db", "another hub key", "restore")
    assert (hub / "data" / "buffer.db").read_bytes() == before


def test_refuses_a_buffer_of_a_newer_version_and_leaves_it_unchanged(hub: Path) -> None:
    with closing(sqlite3.connect(hub / "data" / "buffer.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (hub / "data" / "buffer.db").read_bytes()
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "newer pulsegate (schema 99", "update")
    assert (hub / "data" / "buffer.db").read_bytes() == before


def test_names_a_missing_clinic_key(hub: Path) -> None:
    (hub / "clinic.pub").unlink()
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "cannot read the clinic public key", "clinic.pub")


def test_names_a_damaged_clinic_key(hub: Path) -> None:
    (hub / "clinic.pub").write_text("not a key")
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "clinic.pub", "is not a clinic public key")


def test_names_a_missing_settings_file(tmp_path: Path) -> None:
    assert_fails(pulsegate(tmp_path, "run", "--config", "none.toml"), "cannot read the settings none.toml", "--config")


def test_status_says_how_to_start_an_agent_that_never_ran(hub: Path) -> None:
    assert_fails(pulsegate(hub, "status", "--config", "pulsegate.toml"), "never run", "pulsegate run")


def test_shows_a_stale_status_and_says_that_it_is_stale(hub: Path) -> None:
    (hub / "data" / "status.json").write_text('{"at_us": 1000000, "blocks_pending": 3}')
    run = pulsegate(hub, "status", "--config", "pulsegate.toml")
    assert '"blocks_pending": 3' in run.stdout
    assert_fails(run, "is not running", "pulsegate run")


def test_names_a_data_folder_that_cannot_be_created(hub: Path) -> None:
    text = (hub / "pulsegate.toml").read_text().replace('data = "data"', 'data = "clinic.pub/data"')
    (hub / "pulsegate.toml").write_text(text)
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "cannot create the data folder", "clinic.pub")


def test_reports_a_machine_without_bluetooth(tmp_path: Path) -> None:
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path / 'none'}"}
    assert_fails(pulsegate(tmp_path, "scan", "--seconds", "1", environment=environment), "no Bluetooth service", "bluez")


def test_says_what_to_start_if_the_virtual_radio_is_missing(tmp_path: Path) -> None:
    assert_fails(pulsegate(tmp_path, "scan", "--radio", "virtual:none.sock"), "no virtual radio at none.sock", "start")


def test_names_an_unknown_radio(tmp_path: Path) -> None:
    assert_fails(pulsegate(tmp_path, "scan", "--radio", "wifi"), "unknown radio 'wifi'")


def test_names_the_missing_signal_file_of_a_recording(tmp_path: Path, data: Path) -> None:
    shutil.copy(data / "mitdb" / "101.hea", tmp_path)
    assert_fails(pulsegate(tmp_path, "simulate", "strap", "--record", "101.hea"), "101.dat")


@pytest.mark.parametrize("arguments", [("replay",), ("demo", "--seconds", "-1"), ("unknown",), ()])
def test_bad_usage_exits_with_status_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert pulsegate(tmp_path, *arguments).returncode == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    run = pulsegate(tmp_path, command, "--help")
    assert run.returncode == 0
    assert command in run.stdout

"""The commands as a person types them: what goes wrong is one line that says what to do, and changes nothing."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair

SETTINGS = """
hub = "hub-1"
subject = "subject-1"
data = "data"
radio = "virtual:none.sock"
[clinic]
host = "127.0.0.1"
port = {port}
public_key = "clinic.pub"
[[sensor]]
name = "strap"
advertised_name = "Virtual H10"
"""


def pulsegate(folder: Path, *words: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *words]
    env = os.environ | (environment or {})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def assert_one_line(run: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit status 1, and a last line with all of it."""
    assert run.returncode == 1, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("pulsegate: ")
    assert [part for part in parts if part not in last] == []
    assert "Traceback" not in run.stderr


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's folder with settings, a clinic's key, and a buffer with one block in it."""
    (tmp_path / "pulsegate.toml").write_text(SETTINGS.format(port=1))
    pair = ClinicKeyPair.generate()
    pair.public.save(tmp_path / "clinic.pub")
    (tmp_path / "data").mkdir()
    key = HubKey.load_or_create(tmp_path / "data" / "hub.key")
    settings = {"hub": "hub-1", "subject": "subject-1", "hub_key": key, "clinic": pair.public}
    with closing(Outbox.open(tmp_path / "data" / "buffer.db", clock=lambda: 1_800_000_000, **settings)) as outbox:
        outbox.put("vital", b"a reading")
    return tmp_path


def test_another_hub_key_is_refused_and_the_buffer_is_untouched(hub: Path) -> None:
    (hub / "data" / "hub.key").unlink()
    HubKey.load_or_create(hub / "data" / "hub.key")
    before = (hub / "data" / "buffer.db").read_bytes()
    assert_one_line(pulsegate(hub, "run", "--config", "pulsegate.toml"), "buffer.db", "another hub key", "restore")
    assert (hub / "data" / "buffer.db").read_bytes() == before


def test_a_buffer_of_a_newer_version_is_refused_and_untouched(hub: Path) -> None:
    with closing(sqlite3.connect(hub / "data" / "buffer.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (hub / "data" / "buffer.db").read_bytes()
    assert_one_line(pulsegate(hub, "run", "--config", "pulsegate.toml"), "newer pulsegate (schema 99", "update")
    assert (hub / "data" / "buffer.db").read_bytes() == before


def test_a_missing_clinic_key_is_named(hub: Path) -> None:
    (hub / "clinic.pub").unlink()
    assert_one_line(pulsegate(hub, "run", "--config", "pulsegate.toml"), "cannot read the clinic public key", "clinic.pub")


def test_a_damaged_clinic_key_is_named(hub: Path) -> None:
    (hub / "clinic.pub").write_text("not a key")
    assert_one_line(pulsegate(hub, "run", "--config", "pulsegate.toml"), "clinic.pub", "is no clinic public key")


def test_settings_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert_one_line(pulsegate(tmp_path, "run", "--config", "none.toml"), "cannot read the settings none.toml", "--config")


def test_the_status_of_an_agent_that_never_ran_says_how_to_start_it(hub: Path) -> None:
    assert_one_line(pulsegate(hub, "status", "--config", "pulsegate.toml"), "never run", "pulsegate run")


def test_an_old_status_is_shown_and_called_old(hub: Path) -> None:
    (hub / "data" / "status.json").write_text('{"at_us": 1000000, "blocks_pending": 3}')
    run = pulsegate(hub, "status", "--config", "pulsegate.toml")
    assert '"blocks_pending": 3' in run.stdout
    assert_one_line(run, "does not run any more", "pulsegate run")


def test_a_data_folder_that_cannot_be_made_is_named(hub: Path) -> None:
    text = (hub / "pulsegate.toml").read_text().replace('data = "data"', 'data = "clinic.pub/data"')
    (hub / "pulsegate.toml").write_text(text)
    assert_one_line(pulsegate(hub, "run", "--config", "pulsegate.toml"), "cannot create the data folder", "clinic.pub")


def test_a_machine_without_bluetooth_is_told_from_a_sensor_that_is_not_there(tmp_path: Path) -> None:
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path / 'none'}"}
    assert_one_line(pulsegate(tmp_path, "scan", "--seconds", "1", environment=environment), "no Bluetooth service", "bluez")


def test_a_virtual_radio_that_is_not_there_says_what_to_start(tmp_path: Path) -> None:
    assert_one_line(pulsegate(tmp_path, "scan", "--radio", "virtual:none.sock"), "no virtual radio at none.sock", "start")


def test_an_unknown_radio_is_named(tmp_path: Path) -> None:
    assert_one_line(pulsegate(tmp_path, "scan", "--radio", "wifi"), "unknown radio 'wifi'")


def test_a_recording_without_its_signal_file_is_named(tmp_path: Path, data: Path) -> None:
    shutil.copy(data / "mitdb" / "101.hea", tmp_path)
    assert_one_line(pulsegate(tmp_path, "simulate", "air", "--record", "101.hea"), "101.dat")


@pytest.mark.parametrize("words", [("replay",), ("demo", "--seconds", "-1"), ("dance",), ()])
def test_bad_usage_is_exit_status_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert pulsegate(tmp_path, *words).returncode == 2


@pytest.mark.parametrize("command", ["run", "status", "scan", "record", "simulate", "demo", "replay"])
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    run = pulsegate(tmp_path, command, "--help")
    assert run.returncode == 0
    assert command in run.stdout

"""The commands as a user types them: a failure is reported in one line that says what to do, and changes nothing."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from config.endpoint import Endpoint
from config.limits import DEFAULT_LIMITS
from config.sample import make_sample
from config.settings import ENVIRONMENT_OVERRIDES, ClinicSettings, Settings, load_settings
from config.version import VERSION
from gateway.cli import COMMANDS
from gateway.link_states import LinkState
from gateway.startup import PRIVATE_FILES, check_data_folder, check_startup, load_device_key, prepare_data_folder
from gateway.status_table import make_status_table
from sync.errors import PermanentError
from sync.keys import HubKey
from sync.signing import SigningKey, Use, VerifyingKey


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
        connection.execute("INSERT INTO _sqlite_migrations VALUES (99, 'outbox', '99', '')")
        connection.commit()
    before = (hub / "data" / "buffer.db").read_bytes()
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "newer pulsegate (schema 99", "update")
    assert (hub / "data" / "buffer.db").read_bytes() == before


def test_names_a_missing_registration(hub: Path) -> None:
    (hub / "registration.toml").unlink()
    run = pulsegate(hub, "run", "--config", "pulsegate.toml")
    assert_fails(run, "cannot read the registration registration.toml", "pulsegate-cloud register")


def test_a_subject_that_is_not_registered_is_refused(hub: Path) -> None:
    environment = {"PULSEGATE_SUBJECT": "subject-3"}
    run = pulsegate(hub, "run", "--config", "pulsegate.toml", environment=environment)
    assert_fails(run, "does not name the subject subject-3, but subject-1, subject-2", "pulsegate-cloud register")


def test_identity_creates_the_device_key_once_and_names_the_public_file(hub: Path) -> None:
    shutil.rmtree(hub / "data")
    runs = [pulsegate(hub, "identity", "--config", "pulsegate.toml") for _ in range(2)]
    assert [(run.returncode, run.stdout) for run in runs] == [(0, "data/device.pub\ndata/command.pub\n")] * 2
    assert (
        "pulsegate-cloud register --data DIR --hub hub-1 --hub-key device.pub --command-key command.pub --subject subject-1"
        in runs[0].stderr
    )
    key = SigningKey.load(hub / "data" / "device.key", Use.DEVICE)
    assert VerifyingKey.load(hub / "data" / "device.pub", Use.DEVICE).to_bytes() == key.public.to_bytes()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (hub / "data").iterdir()}
    assert modes == {"device.key": 0o600, "device.pub": 0o644, "command.key": 0o600, "command.pub": 0o644}


@pytest.mark.parametrize("content", [None, "damaged", "of another key"])
def test_the_public_key_is_written_only_where_it_is_not_there(tmp_path: Path, content: str | None) -> None:
    """An agent that ran before needs no room on a full disk for it."""
    key, public = load_device_key(tmp_path), tmp_path / "device.pub"
    number = public.stat().st_ino
    load_device_key(tmp_path)
    assert public.stat().st_ino == number  # a file that is replaced has another one
    if content == "of another key":
        SigningKey.generate(Use.DEVICE).public.save(public)
    elif content is not None:
        public.write_text(content)
    else:
        public.unlink()
    load_device_key(tmp_path)
    assert VerifyingKey.load(public, Use.DEVICE).to_bytes() == key.public.to_bytes()


def test_identity_does_not_replace_a_damaged_device_key(hub: Path) -> None:
    (hub / "data" / "device.key").write_text("not a key")
    for command in ("identity", "run"):
        assert_fails(pulsegate(hub, command, "--config", "pulsegate.toml"), "device.key", "does not begin with")
    assert (hub / "data" / "device.key").read_text() == "not a key"


def test_names_a_missing_settings_file(tmp_path: Path) -> None:
    assert_fails(pulsegate(tmp_path, "run", "--config", "none.toml"), "cannot read the settings none.toml", "--config")


def test_status_says_how_to_start_an_agent_that_never_ran(hub: Path) -> None:
    assert_fails(pulsegate(hub, "status", "--config", "pulsegate.toml"), "never run", "pulsegate run")


def test_shows_a_stale_status_and_says_that_it_is_stale(hub: Path) -> None:
    (hub / "data" / "status.json").write_text('{"at_us": 1000000, "blocks_pending": 3}')
    run = pulsegate(hub, "status", "--config", "pulsegate.toml", "--json")
    assert json.loads(run.stdout) == {"at_us": 1000000, "blocks_pending": 3}
    assert_fails(run, "is not running", "pulsegate run")


def test_status_is_a_table_without_escapes_for_people(hub: Path) -> None:
    status = {"at_us": time.time_ns() // 1000 + 60_000_000, "hub": "hub-1", "sensors": {"strap": "streaming"}}
    status |= {"uplink_problem": "lost\x1b[2J the broker", "models": {"release": 23, "running": ["rr_af"]}, "blocks_pending": 3}
    (hub / "data" / "status.json").write_text(json.dumps(status))
    run = pulsegate(hub, "status", "--config", "pulsegate.toml")
    assert run.returncode == 0
    rows = dict(re.split(r"  +", line.strip(), maxsplit=1) for line in run.stdout.splitlines())
    assert rows == {
        "agent": "running",
        "hub": "hub-1",
        "sensor strap": "connected",
        "clinic": r"lost\x1b[2J the broker",
        "models": "release 23: rr_af",
        "blocks not acknowledged yet": "3",
    }


def test_status_has_words_for_every_state_of_a_sensor() -> None:
    status = {"at_us": 1_000_000, "sensors": {state: state for state in get_args(LinkState)} | {"newer": "levitating"}}
    table = make_status_table(status, 1_000_000)
    labels, values = (list(map(str, column.cells)) for column in table.columns)
    rows = dict(zip(labels, values, strict=True))
    assert rows["sensor absent"] == "searching: out of range, switched off, or asleep until its next use"
    assert rows["sensor newer"] == "levitating"
    words = [rows[f"sensor {state}"] for state in get_args(LinkState)]
    assert len(set(words)) == len(words)
    assert not set(words) & {"absent", "seen", "securing", "backing_off", "streaming"}


def test_status_names_what_somebody_should_look_at(hub: Path) -> None:
    status = {"at_us": 1_000_000, "identity_is_copied": True, "buffer_is_nearly_full": True, "blocks_aside": 7}
    status |= {"aside_reason": "not\x1b[2J assigned", "ignored_reason": "a stranger's key", "blocks_without_receipt": 2}
    status |= {"refused_reason": "erased"}
    (hub / "data" / "status.json").write_text(json.dumps(status))
    lines = pulsegate(hub, "status", "--config", "pulsegate.toml", environment={"COLUMNS": "200"}).stdout.splitlines()
    rows = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines)
    assert rows["identity"].startswith("another machine uses this hub's identity")
    assert rows["buffer"].startswith("nearly full")
    assert rows["set aside"] == r"the last block: not\x1b[2J assigned"
    assert rows["refused"].startswith("the last block: erased; ask the clinic")
    assert rows["blocks set aside by the clinic"] == "7"
    assert rows["messages ignored"] == "one of them: a stranger's key"
    assert rows["blocks without a receipt yet"] == "2"


def test_status_says_why_the_models_were_refused(hub: Path) -> None:
    (hub / "data" / "status.json").write_text('{"at_us": 1000000, "models": {"release": null, "refused": ["altered."]}}')
    assert "rules alone: altered." in pulsegate(hub, "status", "--config", "pulsegate.toml").stdout


@pytest.mark.parametrize("module", ["gateway.cli", "cloud.cli"])
def test_both_programs_have_a_version(module: str) -> None:
    run = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, timeout=60, check=False)
    name = {"gateway.cli": "pulsegate", "cloud.cli": "pulsegate-cloud"}[module]
    assert (run.returncode, run.stdout) == (0, f"{name} {VERSION}\n")


def test_init_writes_settings_that_are_valid_and_new_each_time(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        path = tmp_path / name / "pulsegate.toml"
        run = pulsegate(tmp_path, "init", "--config", str(path))
        assert (run.returncode, run.stderr) == (0, "")
        assert str(path) in run.stdout
        assert path.stat().st_mode & 0o777 == 0o600
        found.append(load_settings(path, {}))
    assert found[0].hub != found[1].hub
    assert found[0].subject != found[1].subject


def test_init_explains_every_setting_and_variable() -> None:
    sample = make_sample()
    assert [name for name in ENVIRONMENT_OVERRIDES if name not in sample] == []
    assert all("#" in line for line in sample.splitlines() if "=" in line)


def test_init_never_overwrites_a_file(hub: Path) -> None:
    before = (hub / "pulsegate.toml").read_bytes()
    assert_fails(pulsegate(hub, "init", "--config", "pulsegate.toml"), "exists and is not overwritten")
    assert (hub / "pulsegate.toml").read_bytes() == before


def test_init_names_a_folder_that_cannot_be_written(hub: Path) -> None:
    assert_fails(
        pulsegate(hub, "init", "--config", "registration.toml/pulsegate.toml"), "cannot write registration.toml/pulsegate.toml"
    )


def test_check_config_changes_nothing(hub: Path) -> None:
    shutil.rmtree(hub / "data")
    run = pulsegate(hub, "check-config", "--config", "pulsegate.toml")
    assert (run.returncode, run.stderr) == (0, "")
    assert "pulsegate.toml is valid: hub hub-1, data folder data, sensors strap" in run.stdout
    assert sorted(path.name for path in hub.iterdir()) == ["pulsegate.toml", "registration.toml"]


@pytest.mark.parametrize("command", ["run", "check-config"])
def test_a_damaged_registration_leaves_nothing_behind(hub: Path, command: str) -> None:
    shutil.rmtree(hub / "data")
    (hub / "registration.toml").write_text("not a table")
    assert_fails(pulsegate(hub, command, "--config", "pulsegate.toml"), "registration.toml", "is not valid TOML")
    assert not (hub / "data").exists()


@pytest.mark.parametrize("command", ["run", "check-config"])
def test_a_data_folder_of_another_user_is_refused_and_unchanged(hub: Path, command: str) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder to another user")
    shutil.rmtree(hub / "data")
    (hub / "data").mkdir()
    os.chown(hub / "data", 12345, 12345)
    assert_fails(pulsegate(hub, command, "--config", "pulsegate.toml"), "belongs to another user (id 12345", "run pulsegate as")
    assert list((hub / "data").iterdir()) == []


def test_a_data_folder_that_others_keep_closed_is_named(hub: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can run a program as another user")
    (hub / "data").chmod(0o700)
    for path in (hub, *hub.parents):
        path.chmod(path.stat().st_mode | 0o055)
    settings = Settings(
        "hub-1",
        "subject-1",
        hub / "data",
        "bluetooth",
        ClinicSettings(Endpoint("127.0.0.1", 1), hub / "registration.toml"),
        (),
        DEFAULT_LIMITS,
    )
    os.seteuid(12345)
    try:
        with pytest.raises(PermanentError, match=r"data folder .* belongs to another user"):
            check_startup(settings)
        with pytest.raises(PermanentError, match=r"cannot use the data folder .*Permission denied"):
            check_data_folder(hub / "data" / "deeper")
    finally:
        os.seteuid(0)


def test_files_that_others_may_read_are_made_private(hub: Path) -> None:
    for name in PRIVATE_FILES:
        (hub / "data" / name).touch()
        (hub / "data" / name).chmod(0o664)
    (hub / "elsewhere").touch(0o644)
    (hub / "data" / "status.json").unlink()
    (hub / "data" / "status.json").symlink_to(hub / "elsewhere")
    prepare_data_folder(hub / "data")
    modes = {name: (hub / "data" / name).lstat().st_mode & 0o777 for name in PRIVATE_FILES if name != "status.json"}
    assert set(modes.values()) == {0o600}
    assert (hub / "elsewhere").stat().st_mode & 0o777 == 0o644


def test_a_record_without_a_sensor_leaves_no_file(tmp_path: Path) -> None:
    missing = pulsegate(tmp_path, "record", "x.jsonl", "--name", "Strap", "--radio", "virtual:none.sock", "--seconds", "1")
    assert_fails(missing, "no virtual radio at none.sock")
    assert list(tmp_path.iterdir()) == []


def test_names_a_data_folder_that_cannot_be_created(hub: Path) -> None:
    text = (hub / "pulsegate.toml").read_text().replace('data = "data"', 'data = "registration.toml/data"')
    (hub / "pulsegate.toml").write_text(text)
    assert_fails(pulsegate(hub, "run", "--config", "pulsegate.toml"), "cannot create the data folder", "registration.toml")


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


@pytest.mark.parametrize("arguments", [("replay", "--rate", "0", "r.csv"), ("replay", "--\x1b[2J\n", "r.csv"), ("replay",)])
def test_bad_usage_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (line,) = pulsegate(tmp_path, *arguments).stderr.splitlines()
    assert line.startswith("pulsegate")
    assert line.endswith("--help")
    assert line.isprintable()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    run = pulsegate(tmp_path, command, "--help")
    assert run.returncode == 0
    assert command in run.stdout

"""`pulsegate doctor`: each check finds its fault, names the remedy, and changes nothing."""

import asyncio
import ctypes
import json
import shutil
import socket
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from config.endpoint import Endpoint
from config.settings import load_settings
from gateway.cli import main
from gateway.commands import doctor
from gateway.paired_sensors import store_paired, with_forgotten
from models.inference import release
from tests.gateway.test_cli import pulsegate

Usage = namedtuple("Usage", "total used free")


def settings_of(hub: Path) -> Any:
    return load_settings(hub / "pulsegate.toml", {})


def assert_failed(check: doctor.Check, detail: str, remedy: str) -> None:
    assert check.state == "failed"
    assert detail in check.detail
    assert remedy in check.remedy


def test_faults_are_listed_with_their_remedies_and_exit_1(hub: Path) -> None:
    (hub / "registration.toml").unlink()
    before = sorted(hub.rglob("*"))
    run = pulsegate(hub, "doctor", "--config", "pulsegate.toml", "--json")
    assert run.returncode == 1
    checks = {check["name"]: check for check in json.loads(run.stdout)}
    assert set(checks) == {"data folder", "sensors", "disk", "registration", "models", "clock", "broker", "adapter"}
    assert checks["broker"]["detail"] == "127.0.0.1:1 cannot be reached (Connection refused)"
    assert checks["adapter"]["remedy"] == "start its simulator first (pulsegate simulate)"
    assert checks["registration"]["detail"].endswith("registration.toml: No such file or directory")
    assert "pulsegate-cloud register" in checks["registration"]["remedy"]
    assert (checks["data folder"]["state"], checks["models"]["state"]) == ("ok", "ok")
    assert sorted(hub.rglob("*")) == before


def test_a_healthy_machine_exits_with_0(hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "check_clock", lambda: doctor.Check("clock", "ok", "synchronised"))
    monkeypatch.chdir(hub)
    with socket.create_server(("127.0.0.1", 0)) as broker, socket.socket(socket.AF_UNIX) as radio:
        radio.bind("air.sock")
        text = (hub / "pulsegate.toml").read_text().replace("port = 1\n", f"port = {broker.getsockname()[1]}\n")
        (hub / "pulsegate.toml").write_text(text.replace("none.sock", "air.sock"))
        assert main(["doctor", "--config", "pulsegate.toml"]) == 0
    output = capsys.readouterr().out
    assert "failed" not in output
    assert "hub-1 for subject-1" in output
    assert "is signed and unchanged" in output


def test_a_damaged_list_of_paired_sensors_is_found(hub: Path) -> None:
    (hub / "data" / "sensors.json").write_text("{")
    assert_failed(doctor.check_sensors(settings_of(hub)), "sensors.json", "pair the sensors again")


def test_a_sensor_that_forgot_its_pairing_is_named(hub: Path) -> None:
    settings = settings_of(hub)
    assert doctor.check_sensors(settings) == doctor.Check("sensors", "ok", "0 of 1 known by their address")
    store_paired(settings.data, with_forgotten(settings.sensors[0], {}, "C0:DE:00:00:00:07"))
    assert_failed(doctor.check_sensors(settings), "strap no longer knows this hub", "pulsegate pair strap")


@pytest.mark.parametrize(("free", "state"), [(63 << 20, "failed"), (65 << 20, "warning"), (2 << 30, "ok")])
def test_a_full_disk(hub: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, free))
    check = doctor.check_disk(hub / "not" / "there" / "yet")
    assert (check.state, bool(check.remedy)) == (state, state != "ok")


@pytest.mark.parametrize(("answer", "state"), [(5, "failed"), (-1, "warning"), (0, "ok")])
def test_an_unsynchronised_clock(monkeypatch: pytest.MonkeyPatch, answer: int, state: str) -> None:
    class Library:
        def adjtimex(self, request: Any) -> int:
            assert bytes(request) == bytes(512)  # nothing is set
            return answer

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library())
    assert doctor.check_clock().state == state


def test_the_kernel_answers_about_its_clock() -> None:
    assert doctor.check_clock().detail in ("synchronised", "not synchronised")


def test_altered_models_are_found(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    altered = tmp_path / "release"
    shutil.copytree(release.RELEASE_DIR, altered)
    with next(altered.glob("*.onnx")).open("r+b") as file:
        file.write(b"x")
    monkeypatch.setattr(doctor, "open_release", lambda newest_seen: release.open_release(altered, newest_seen=newest_seen))
    assert_failed(doctor.check_models(hub / "data"), ".onnx", "reinstall pulsegate")


def test_a_broker_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_arguments: object, **_options: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "open_connection", hang)
    monkeypatch.setattr(doctor, "CONNECT_TIMEOUT_S", 0.01)
    assert_failed(asyncio.run(doctor.check_broker(Endpoint("127.0.0.1", 1883))), "no answer", "check that the broker runs")


@pytest.mark.parametrize(
    ("script", "state", "detail"),
    [
        ("echo bluetoothctl: 5.66", "ok", "5.66"),
        ("echo bluetoothctl: 5.54", "failed", "5.54"),
        ("echo 4.101", "failed", "4.101"),
        ("echo none", "warning", "unknown"),
        ("exec sleep 60", "warning", "unknown: bluetoothctl does not answer"),
    ],
)
def test_the_version_of_bluez(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: str, detail: str) -> None:
    monkeypatch.setattr(doctor, "PROGRAM_TIMEOUT_S", 0.5 if "sleep" in script else 10)
    program = tmp_path / "bluetoothctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    check = asyncio.run(doctor.check_bluez_version(str(program)))
    assert (check.state, check.detail) == (state, detail)
    assert (check.remedy == "") == (state == "ok")


def test_a_machine_without_bluetoothctl_gets_a_warning(tmp_path: Path) -> None:
    assert asyncio.run(doctor.check_bluez_version(str(tmp_path / "none"))).state == "warning"


def test_programs_with_a_pairing_agent_are_named(tmp_path: Path) -> None:
    for number, name in (("1", "init"), ("20", "blueman-applet"), ("21", "bluetoothctl"), ("x", "hass")):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{name}\n")
    check = doctor.check_agents(tmp_path)
    assert (check.state, check.detail) == ("warning", "blueman-applet, bluetoothctl")
    shutil.rmtree(tmp_path / "20")
    shutil.rmtree(tmp_path / "21")
    assert doctor.check_agents(tmp_path).state == "ok"


def test_a_machine_without_a_message_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    assert_failed(asyncio.run(doctor.check_radio("bluetooth")), "no Bluetooth service answers", "systemctl start bluetooth")


def test_every_radio_of_the_settings_is_checked(hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(hub)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={hub}/none")
    text = (hub / "pulsegate.toml").read_text()
    assert '"virtual:none.sock"' in text
    (hub / "pulsegate.toml").write_text(
        text.replace('"virtual:none.sock"', '["virtual:air.sock", "bluetooth:hci1", "bluetooth:hci0"]')
    )
    with socket.socket(socket.AF_UNIX) as radio:
        radio.bind("air.sock")
        assert main(["doctor", "--config", "pulsegate.toml", "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in checks}
    assert (states["adapter"], states["adapter 2"], states["adapter 3"]) == ("ok", "failed", "failed")
    assert [check["name"] for check in checks].count("BlueZ version") == 1

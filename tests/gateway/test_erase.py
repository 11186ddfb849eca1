"""`pulsegate erase --everything` leaves nothing of the patient, and nothing by halves without a person's word."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from config.files import locked
from config.settings import load_settings
from gateway.commands.erase import EraseError, erase_everything
from gateway.models import load_models
from gateway.startup import LOCK_FILE
from tests.gateway.testbed import Testbed, run_scenario

OURS = (
    "hub.key", "device.key", "device.pub", "buffer.db-wal", "buffer.db-shm", "buffer.db-reserve", "bonds.json", "models.json",
    "status.json", "identity/identity.pem", "identity/roots.pem", "identity/site.json", "identity/time.json",
    "identity/registration.toml", "answers/0123", ".identity-a1b2c3.pem", ".buffer-x", "enrolment.lock", "rotate-keys",
)  # fmt: skip


@pytest.fixture
def used(hub: Path) -> Path:
    """A hub's folder with everything that an agent may leave there."""
    data = hub / "data"
    for name in OURS:
        (data / name).parent.mkdir(exist_ok=True)
        if not (data / name).exists():
            (data / name).write_text("secret")
    (data / "notes.txt").write_text("not ours")
    return hub


def erase(folder: Path, answer: str) -> int:
    return erase_everything(load_settings(folder / "pulsegate.toml", {}), lambda _question: answer)


def test_everything_of_ours_goes_and_nothing_else(used: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert erase(used, "hub-1\n") == 0

    assert sorted(path.name for path in (used / "data").rglob("*")) == ["notes.txt"]
    assert not (used / "registration.toml").exists()
    assert (used / "pulsegate.toml").exists()
    said = capsys.readouterr().err
    assert "It cannot be undone" in said
    assert "Tell it to revoke this hub" in said
    assert "not ours, left in" in said


def test_nothing_that_a_running_agent_wrote_is_left(tmp_path: Path) -> None:
    testbed = Testbed(tmp_path, load_models())

    async def run_and_erase(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(20)

    run_scenario(testbed, run_and_erase)
    data = testbed.settings.data
    assert {"buffer.db", "hub.key", "device.key", "status.json", "bonds.json"} <= {path.name for path in data.iterdir()}

    assert erase_everything(testbed.settings, lambda _question: testbed.settings.hub) == 0
    assert list(data.iterdir()) == []


@pytest.mark.parametrize("answer", ["", "y", "yes", "hub-2"])
def test_without_the_hubs_name_nothing_is_erased(used: Path, answer: str) -> None:
    before = sorted((used / "data").rglob("*"))

    with pytest.raises(EraseError, match="nothing was erased"):
        erase(used, answer)
    assert sorted((used / "data").rglob("*")) == sorted({*before, used / "data" / LOCK_FILE})


def test_a_running_agent_is_not_erased(used: Path) -> None:
    with locked(used / "data" / LOCK_FILE), pytest.raises(EraseError, match="the agent is running: stop it first"):
        erase(used, "hub-1")
    assert (used / "data" / "hub.key").exists()


def test_keys_are_overwritten_before_anything_else_goes(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted erasure leaves cannot be read, and it can be repeated."""

    def fail(_path: Path) -> None:
        raise OSError("the disk is gone")

    hard_link = used / "hub.key.before"
    hard_link.hardlink_to(used / "data" / "hub.key")
    with monkeypatch.context() as patch:
        patch.setattr("gateway.commands.erase.shutil.rmtree", fail)
        with pytest.raises(EraseError, match="run it again"):
            erase(used, "hub-1")

    assert set(hard_link.read_bytes()) == {0}
    assert not (used / "data" / "device.key").exists()
    assert erase(used, "hub-1") == 0
    assert sorted(path.name for path in (used / "data").rglob("*")) == ["notes.txt"]


def test_the_command_asks_on_standard_input(used: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "erase", "--config", used / "pulsegate.toml"]
    refused = subprocess.run(command, input="hub-1\n", capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    done = subprocess.run([*command, "--everything"], input="hub-1\n", capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert not (used / "data" / "hub.key").exists()

"""A demo's temporary folder holds private keys: it is deleted however the demo ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.simulate.demo_folder import demo_folder

HOLD = """
import sys
from gateway.simulate.demo_folder import demo_folder
with demo_folder(None) as folder:
    (folder / "hub.key").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_is_deleted_after_a_failure(error: type[BaseException], temporary: Path) -> None:
    def fail() -> None:
        with demo_folder(None) as folder:
            (folder / "hub.key").touch()
            assert folder.stat().st_mode & 0o777 == 0o700
            raise error

    with pytest.raises(error):
        fail()
    assert list(temporary.iterdir()) == []


def test_a_killed_demo_is_cleaned_up_by_the_next_one_and_a_running_one_is_not(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        running = Path(other.stdout.readline().strip())
        with demo_folder(None):
            assert (running / "hub.key").exists()
        other.kill()
        other.wait()
        assert (running / "hub.key").exists()
        foreign = temporary / "pulsegate-demo-link"
        foreign.symlink_to(temporary)
        with demo_folder(None):
            assert not running.exists()
    assert list(temporary.iterdir()) == [foreign]


def test_a_chosen_folder_is_kept(temporary: Path) -> None:
    with pytest.raises(ValueError, match="failed"), demo_folder(temporary / "a" / "b") as folder:
        raise ValueError("failed")
    assert folder.is_dir()

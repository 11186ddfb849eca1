"""A disk that is full: the buffer can delete and store alerts, the agent starts on it, and no key file stays incomplete."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sync.key_files import KeyFileError
from sync.keys import HubKey
from sync.outbox.reserve import RESERVE_BYTES, STEP_BYTES, Reserve
from sync.recipients import RecipientKeyPair
from sync.seal import SealError
from sync.signing import SigningKey, Use
from tests.namespaces import unshare_command

DISK_BYTES = 6 * 1024 * 1024


def run_on_small_disk(folder: Path, commands: list[list[str]]) -> list[dict[str, object]]:
    """Run the commands one after the other on a tmpfs that only they see; returns the JSON that each printed."""
    namespace = unshare_command("--mount")
    script = Path(__file__).with_name("full_disk.py")
    shell = [f"mount -t tmpfs -o size={DISK_BYTES} tmpfs {folder}"]
    shell += [f"{sys.executable} {script} {' '.join(command)} {folder} || [ $? = 137 ]" for command in commands]
    environment = os.environ | {"PYTHONPATH": str(script.parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [*namespace, "sh", "-ec", "\n".join(shell)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_full_disk_empties_itself_even_after_kill_9(tmp_path: Path) -> None:
    filled, reopened = run_on_small_disk(tmp_path, [["fill"], ["reopen"]])
    assert filled["released"] == 20
    assert filled["waves"] == [0, 5]  # none until blocks were released, then in their place
    assert isinstance(filled["alerts"], int)
    assert 20 <= filled["alerts"] < 400
    assert reopened == {"pending": filled["pending"], "left": 0}


def test_the_reserve_takes_what_the_disk_has(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve")
    reserve.fill()
    assert reserve.is_full
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    assert reserve.release()
    assert not reserve.release()
    assert list(tmp_path.iterdir()) == []
    with limited_file_size(RESERVE_BYTES - 1):
        reserve.fill()
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES - STEP_BYTES
    assert reserve.has_room_for_alerts
    assert not reserve.is_full


class limited_file_size:  # noqa: N801 - used as a function
    """No file can grow beyond this size: a write fails as on a full disk."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.mark.parametrize(
    "create", [HubKey.load_or_create, RecipientKeyPair.generate().create, SigningKey.generate(Use.DEVICE).public.save]
)
def test_a_key_file_that_cannot_be_written_is_created_later(tmp_path: Path, create: Callable[[Path], object]) -> None:
    path = tmp_path / "key"
    with limited_file_size(16), pytest.raises((KeyFileError, OSError)):
        create(path)
    assert list(tmp_path.iterdir()) == []
    create(path)
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_key_file_that_was_cut_short_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    path.touch(0o600)
    with pytest.raises(SealError, match=r"0 bytes, not 32: restore it .* or delete it if this hub has no buffer yet"):
        HubKey.load_or_create(path)

"""What `pulsegate demo` says of a failure that the system names without a place."""

import errno
import os
from pathlib import Path

import pytest

from gateway.simulate.demo import told


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_its_place_and_what_to_do(number: int) -> None:
    said = told(OSError(number, os.strerror(number)), Path("/data"))
    assert said == f"{os.strerror(number)} in /data: make room there, or choose another folder with --data"


def test_a_write_to_a_full_device_is_such_a_failure() -> None:
    with pytest.raises(OSError, match="No space left") as full, Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")
    assert told(full.value, Path("/data")).startswith("No space left on device in /data")


def test_other_failures_are_told_as_they_are() -> None:
    assert told(PermissionError(errno.EACCES, "Permission denied", "/data/x"), Path("/data")) == (
        "[Errno 13] Permission denied: '/data/x'"
    )
    assert told(ValueError("what it says"), None) == "what it says"

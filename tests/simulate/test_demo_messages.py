"""Error messages of `pulsegate demo`."""

import errno
import os
from pathlib import Path

import pytest

from gateway.simulate.demo import describe_failure


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_folder_and_the_remedy(number: int) -> None:
    message = describe_failure(OSError(number, os.strerror(number)), Path("/data"))
    assert message == f"{os.strerror(number)} in /data: free some space there, or choose another folder with --data"


def test_a_write_to_a_full_device_is_a_full_disk() -> None:
    with pytest.raises(OSError, match="No space left") as full, Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")
    assert describe_failure(full.value, Path("/data")).startswith("No space left on device in /data")


def test_other_failures_keep_their_message() -> None:
    assert describe_failure(PermissionError(errno.EACCES, "Permission denied", "/data/x"), Path("/data")) == (
        "[Errno 13] Permission denied: '/data/x'"
    )
    assert describe_failure(ValueError("a message"), None) == "a message"

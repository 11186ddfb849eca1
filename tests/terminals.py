"""A terminal for programs that behave otherwise on one."""

import fcntl
import os
import pty
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNLOCK = 0x40045431
NUMBER = 0x80045430
"""TIOCSPTLCK and TIOCGPTN of ioctl_tty(2)."""


@contextmanager
def open_terminal(folder: Path) -> Iterator[tuple[int, int]]:
    """The descriptors of both ends of a new terminal. The caller closes them.

    Where the machine has no /dev/pts, as in a bare chroot, a file system of terminals is mounted in the folder.
    """
    mounted: Path | None = None
    try:
        ends = pty.openpty()
    except OSError:
        mounted = folder / "terminals"
        mounted.mkdir()
        subprocess.run(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", mounted], check=True)
        ends = _open_mounted(mounted)
    try:
        yield ends
    finally:
        if mounted:
            subprocess.run(["umount", "-l", mounted], check=True)


def _open_mounted(folder: Path) -> tuple[int, int]:
    ours = os.open(folder / "ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(ours, UNLOCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(ours, NUMBER, bytes(4)))
    return ours, os.open(folder / str(number), os.O_RDWR | os.O_NOCTTY)


def read_terminal(ours: int) -> bytes:
    """Everything that is written to the other end until its last user closes it."""
    written = b""
    try:
        while chunk := os.read(ours, 4096):
            written += chunk
    except OSError:  # the other end is closed
        pass
    return written

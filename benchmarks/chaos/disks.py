"""Small disks of the run's own, in memory, which may be filled. They need a mount namespace (`unshare --mount`)."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CLINIC: Final = "clinic"
_UNMOUNT: Final = ("umount", "--lazy")
"""Lazy: a process that was just killed may still have a file open."""
CLINIC_BYTES: Final = 1 << 30
"""Room for the databases of an hour of twenty hubs, their backups, and the logs of transactions."""
HUB_BYTES: Final = 48 << 20
"""The buffer of an hour, and the reserve of 2 MB and more that a hub keeps for a full disk."""


@contextmanager
def mounted_disks(hubs: int) -> Iterator[dict[str, Path]]:
    """Mount a disk for the clinic's databases, and one for each of so many hubs, in a folder of their own.

    Its path is short, as the path of a socket must be. PostgreSQL's user may enter it.
    """
    sizes = {CLINIC: CLINIC_BYTES} | {f"hub-{number}": HUB_BYTES for number in range(1, hubs + 1)}
    with tempfile.TemporaryDirectory(prefix="pulsegate-chaos-") as folder:
        Path(folder).chmod(0o711)
        disks = {name: Path(folder) / name for name in sizes}
        for name, disk in disks.items():
            disk.mkdir()
            words = ["mount", "-t", "tmpfs", "-o", f"size={sizes[name]},mode=755", "none"]
            subprocess.run([*words, disk], check=True)
        try:
            yield disks
        finally:
            for disk in disks.values():
                subprocess.run([*_UNMOUNT, disk], check=True)

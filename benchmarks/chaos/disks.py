"""Small disks of the run's own, in memory, which may be filled. They need a mount namespace (`unshare --mount`)."""

import subprocess
from pathlib import Path
from typing import Final

CLINIC: Final = "clinic"
CLINIC_BYTES: Final = 1 << 30
"""Room for the databases of an hour of twenty hubs, their backups, and the logs of transactions."""
HUB_BYTES: Final = 48 << 20
"""The buffer of an hour, and the reserve of 2 MB and more that a hub keeps for a full disk."""


def mount_disks(folder: Path, hubs: int) -> dict[str, Path]:
    """Mount a disk for the clinic's databases, and one for each of so many hubs, in an empty folder."""
    sizes = {CLINIC: CLINIC_BYTES} | {f"hub-{number}": HUB_BYTES for number in range(1, hubs + 1)}
    disks = {}
    for name, size in sizes.items():
        disks[name] = folder / name
        disks[name].mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none"]
        subprocess.run([*words, disks[name]], check=True)
    return disks

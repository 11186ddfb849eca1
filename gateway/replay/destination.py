"""Where a report is written: a new file, an existing one that the user agrees to replace, or a device."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from config.files import replacing
from config.terminal import escape_controls

DEVICES: Final = (Path("/dev"), Path("/proc"))
"""A path in these folders is a device or an open file such as /dev/stdout, even if it links to a regular file."""


def find_wrong_destination(report: Path, recordings: Sequence[Path], *, force: bool) -> str | None:
    """Says why the report must not be written there; None if it may. An existing file is replaced with `force`, or if the user
    agrees on a terminal.
    """
    if not report.absolute().parent.is_dir():
        return f"{report.parent}: no such folder for the report; create it"
    if report.is_dir():
        return f"{report}: is a folder; give the name of a file for the report"
    if _is_device(report) or not report.exists():
        return None
    if any(recording.exists() and recording.samefile(report) for recording in recordings):
        return f"{report}: is one of the recordings; give another name for the report"
    if force or _user_agrees(report):
        return None
    return f"{report}: exists already; replace it with --force, or choose another name for the report"


def write_page(path: Path, content: bytes) -> None:
    """Writes the whole content or keeps the existing file: a full disk must not destroy an older report."""
    if _is_device(path):
        sys.stdout.flush()
        with path.open("ab") as device:  # the output may already have begun
            device.write(content)
        return
    with replacing(path) as draft:
        draft.write_bytes(content)


def _is_device(path: Path) -> bool:
    return any(path.absolute().is_relative_to(folder) for folder in DEVICES) or (path.exists() and not path.is_file())


def _user_agrees(report: Path) -> bool:
    """Asks on the terminal, if there is one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{escape_controls(str(report))} exists already. Replace it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")

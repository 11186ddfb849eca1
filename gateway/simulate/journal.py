"""What the strap sent, for the audit: every sample in here must be in the store or inside a gap record.

An append-only file of JSON lines. A line is written in one call before its frame is handed to the Bluetooth stack, and lies
with the operating system from then on: it survives `kill -9` of the strap (not a loss of power).
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gateway.simulate.pmd import EPOCH_UNIX_NS


class JournalError(ValueError):
    """A file that is no journal. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Start:
    """The script began to play at `script_start_ns`, in nanoseconds of the strap's clock; its epoch in Unix time is given."""

    run: str
    script_start_ns: int
    sensor_epoch_unix_ns: int


@dataclass(frozen=True, slots=True)
class Frame:
    """`n` samples were sent, the last of them measured at `last_ns` of the strap's clock."""

    run: str
    last_ns: int
    n: int
    samples_crc32: int

    @property
    def last_us(self) -> int:
        """The last sample's time in UTC, microseconds since 1970."""
        return (self.last_ns + EPOCH_UNIX_NS) // 1000


@dataclass(frozen=True, slots=True)
class Contents:
    """A journal's lines, oldest first. `cut` counts lines that a kill left unfinished."""

    starts: tuple[Start, ...]
    frames: tuple[Frame, ...]
    cut: int


def checksum(microvolts: NDArray[np.int32]) -> int:
    """CRC-32 of samples in µV as little-endian int32: what `Frame.samples_crc32` holds."""
    return zlib.crc32(microvolts.astype("<i4").tobytes())


class Journal:
    """Open for appending; a context manager."""

    def __init__(self, path: Path, run: str) -> None:
        """`run` names this process among all that wrote to the file."""
        self._run = run
        self._file = path.open("ab", buffering=0)
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # a kill cut the last line: what comes now must not be glued to it

    def start(self, script_start_ns: int) -> None:
        self._write({"type": "start", "script_start_ns": script_start_ns, "sensor_epoch_unix_ns": EPOCH_UNIX_NS})

    def frame(self, last_ns: int, microvolts: NDArray[np.int32]) -> None:
        crc = checksum(microvolts)
        self._write({"type": "frame", "last_ns": last_ns, "n": microvolts.size, "samples_crc32": crc})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({**line, "run": self._run}, separators=(",", ":")).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def read_journal(path: Path) -> Contents:
    """Everything in a journal.

    Raises:
        JournalError: a whole line is none of ours.
    """
    starts: list[Start] = []
    frames: list[Frame] = []
    cut = 0
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            fields = json.loads(line) if line else {"type": "blank"}
        except ValueError:
            cut += 1
            continue
        match fields:
            case {"type": "blank"}:
                continue
            case {"type": "start", "run": str(run), "script_start_ns": int(start), "sensor_epoch_unix_ns": int(epoch)}:
                starts.append(Start(run, start, epoch))
            case {"type": "frame", "run": str(run), "last_ns": int(last), "n": int(n), "samples_crc32": int(crc)}:
                frames.append(Frame(run, last, n, crc))
            case _:
                raise JournalError(f"{path}, line {number}: not a line of a strap's journal")
    return Contents(tuple(starts), tuple(frames), cut)

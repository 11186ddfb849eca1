"""The strap's journal: every frame that it sent. For the audit, each sample must be in the clinic's store or inside a gap
record.

An append-only file of JSON lines. A line is written in one call before its frame is handed to the Bluetooth stack. The
operating system then has it: it survives `kill -9` of the strap, but not a loss of power.
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
    """The file is not a journal. The message names the file and the line."""


@dataclass(frozen=True, slots=True)
class StartEntry:
    """Playback began at `script_start_ns`, in nanoseconds of the strap's clock, whose epoch is `sensor_epoch_unix_ns`."""

    run: str
    script_start_ns: int
    sensor_epoch_unix_ns: int


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """A frame of `n` samples was sent; the last one was measured at `last_ns` of the strap's clock."""

    run: str
    last_ns: int
    n: int
    samples_crc32: int

    @property
    def last_us(self) -> int:
        """The last sample's time in UTC, microseconds since 1970."""
        return (self.last_ns + EPOCH_UNIX_NS) // 1000


@dataclass(frozen=True, slots=True)
class JournalContents:
    """A journal's entries, oldest first. `truncated_lines` counts lines that a kill left incomplete."""

    starts: tuple[StartEntry, ...]
    frames: tuple[FrameEntry, ...]
    truncated_lines: int


def checksum(microvolts: NDArray[np.int32]) -> int:
    """Return the CRC-32 of samples in µV as little-endian int32, for `FrameEntry.samples_crc32`."""
    return zlib.crc32(microvolts.astype("<i4").tobytes())


class Journal:
    """A journal open for appending. Use it as a context manager."""

    def __init__(self, path: Path, run: str) -> None:
        """`run` distinguishes this process from others that wrote to the file."""
        self._run = run
        self._file = path.open("ab", buffering=0)
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")  # a kill truncated the last line: the next entry needs a line of its own

    def write_start(self, script_start_ns: int) -> None:
        self._write({"type": "start", "script_start_ns": script_start_ns, "sensor_epoch_unix_ns": EPOCH_UNIX_NS})

    def write_frame(self, last_ns: int, microvolts: NDArray[np.int32]) -> None:
        crc = checksum(microvolts)
        self._write({"type": "frame", "last_ns": last_ns, "n": microvolts.size, "samples_crc32": crc})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({**line, "run": self._run}, separators=(",", ":")).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def read_journal(path: Path) -> JournalContents:
    """Read all entries of a journal.

    Raises:
        JournalError: a complete line is not a journal entry.
    """
    starts: list[StartEntry] = []
    frames: list[FrameEntry] = []
    truncated = 0
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            fields = json.loads(line) if line else {"type": "blank"}
        except ValueError:
            truncated += 1
            continue
        match fields:
            case {"type": "blank"}:
                continue
            case {"type": "start", "run": str(run), "script_start_ns": int(start), "sensor_epoch_unix_ns": int(epoch)}:
                starts.append(StartEntry(run, start, epoch))
            case {"type": "frame", "run": str(run), "last_ns": int(last), "n": int(n), "samples_crc32": int(crc)}:
                frames.append(FrameEntry(run, last, n, crc))
            case _:
                raise JournalError(f"{path}, line {number}: not an entry of a strap's journal")
    return JournalContents(tuple(starts), tuple(frames), truncated)

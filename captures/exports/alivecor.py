"""Reads the files of AliveCor's Kardia (.atc): leads of 16-bit samples in tagged blocks.

A file is the signature `ALIVE`, three zeros, the version, and blocks: identifier (4 bytes), length, data, checksum. `fmt `
holds the sampling rate in Hz and the nanovolts of a count, `info` begins with the start, and `ecg `, `ecg2` … `ecgc` hold a
lead each. All numbers are little-endian. The checksum covers identifier, length and data. The specification calls it a CRC32,
but the files of its own tests hold the sum of the bytes, so both are accepted.

Source: alivecor/ATCpy, "ATC File Format Specification 1.7".
"""

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from captures.choice import Candidate, choose_signal
from captures.leads import millivolts_per_unit
from captures.moments import parse_moment
from captures.recording import ReadOptions, Recording, RecordingError, Samples, split_chunks
from captures.streams import open_stream

_SIGNATURE: Final = b"ALIVE\0\0\0"
_FIRST_BLOCK: Final = 12
_LIMIT_BYTES: Final = 64 << 20
"""The app records 5 minutes: 2 MB for 12 leads."""
_BLOCK_LIMIT: Final = 1_000
"""Blocks of a file: 12 leads have 12 of samples, 24 of beats, and some others."""
_FORMAT_16_BIT: Final = 1
_LEADS: Final = dict(
    zip(
        (b"ecg ", *(b"ecg%c" % digit for digit in b"23456789abc")),
        ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
        strict=True,
    )
)
_DATE_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Block:
    """The data of a block: fewer bytes than `size` if the file is cut. `is_damaged` says that the checksum does not match."""

    name: bytes
    size: int
    data: bytes
    is_damaged: bool

    @property
    def counts(self) -> Samples:
        """The data as samples of 16 bits."""
        return np.frombuffer(self.data, "<i2", len(self.data) // 2).astype(np.float64)


def starts_alivecor(begin: bytes) -> bool:
    """Whether a file with these first bytes is an AliveCor file."""
    return begin.startswith(_SIGNATURE)


def read_alivecor(path: Path, options: ReadOptions) -> Recording:
    """Open an AliveCor file. Its annotations and average beats are not read.

    Raises:
        RecordingError: the file is too long or damaged, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    with open_stream(path) as file:
        data = file.read(_LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise RecordingError(f"{path}: an AliveCor file of more than {_LIMIT_BYTES >> 20} MiB; check what it holds")
    blocks = _split_blocks(data)
    leads = [block for block in blocks if block.name in _LEADS and len(block.data) > 1]
    if not leads:
        raise RecordingError(f"{path}: an AliveCor file without samples of an ECG; export it again")
    rate_hz, unit = _read_format(path, blocks)
    candidates = [
        Candidate(number, _LEADS[block.name], options.unit or unit, partial(lambda block: iter((block.counts,)), block))
        for number, block in enumerate(leads, 1)
    ]
    choice = choose_signal(str(path), "signal", candidates, options)
    block = leads[choice.candidate.number - 1]
    rate_hz, factor = options.rate_hz or rate_hz, millivolts_per_unit(choice.candidate.unit)
    if not rate_hz or not factor:
        raise RecordingError(f"{path}: its header states no sampling rate or scale; give --rate HZ and --unit N/mV")
    if block.is_damaged:
        raise RecordingError(f"{path}: the checksum of lead {choice.candidate.name} is wrong; fetch or export the file again")
    others = ", ".join(candidate.name for candidate in candidates if candidate != choice.candidate)
    is_cut = len(block.data) < block.size
    mv = block.counts * factor
    return Recording(
        name=path.name.split(".")[0],
        rate_hz=rate_hz,
        start_us=_read_start(blocks),
        notes=(
            *choice.notes,
            f"lead {choice.candidate.name} at {rate_hz:g} Hz, {1 / factor:g} counts per mV (AliveCor)",
            *(
                [f"the file holds more leads ({others:.100}); choose one with --signal NAME"]
                if others and not options.signal
                else []
            ),
            *([f"the file is cut: {mv.size} of {block.size // 2} samples are left"] if is_cut else []),
        ),
        read_chunks=lambda: split_chunks(None, mv, rate_hz),
        is_truncated=is_cut,
    )


def _split_blocks(data: bytes) -> list[_Block]:
    """The blocks of a file in order; the last one may be cut."""
    found: list[_Block] = []
    at = _FIRST_BLOCK
    while at + 8 <= len(data) and len(found) < _BLOCK_LIMIT:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size
        checksum = data[end : end + 4]
        covered = data[at:end]
        sums = (int(np.frombuffer(covered, np.uint8).sum(dtype=np.int64)) & 0xFFFFFFFF, zlib.crc32(covered))
        is_damaged = len(checksum) == 4 and int.from_bytes(checksum, "little") not in sums
        found.append(_Block(covered[:4], size, covered[8:], is_damaged))
        at = end + 4
    return found


def _read_format(path: Path, blocks: list[_Block]) -> tuple[float | None, str]:
    """The sampling rate and the unit of a count; None and empty where the file does not state them."""
    data = next((block.data for block in blocks if block.name == b"fmt " and not block.is_damaged), b"")
    if len(data) < 5:
        return None, ""
    if data[0] != _FORMAT_16_BIT:
        raise RecordingError(f"{path}: AliveCor samples of format {data[0]}, which is not supported; export it as CSV or EDF")
    resolution_nv = int.from_bytes(data[3:5], "little")
    return float(int.from_bytes(data[1:3], "little")) or None, f"{1e6 / resolution_nv:.6f}/mV" if resolution_nv else ""


def _read_start(blocks: list[_Block]) -> int | None:
    data = next((block.data for block in blocks if block.name == b"info"), b"")
    return parse_moment(data[:_DATE_BYTES].partition(b"\0")[0].decode("ascii", "replace"))

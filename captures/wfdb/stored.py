"""Reads one signal of a signal file in chunks, without the other signals of the file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from captures.recording import CHUNK_SAMPLES, RecordingError
from captures.wfdb.flac import read_flac
from captures.wfdb.formats import FLAC_BITS, FORMATS, Adc
from captures.wfdb.header import LARGEST_FRAME, Header, Signal
from captures.wfdb.locate import find_named

_DECODED_SAMPLES: Final = 1 << 19
"""Samples of all signals of a file that are decoded at a time: 1 MiB."""
_OTHER_KINDS: Final = {
    b"\x1f\x8b\x08": "a gzip file; decompress it",
    b"PK\3\4": "a zip file; unpack it",
    b"fLaC": "a FLAC file (formats 508, 516 and 524); correct the header",
    b"MATLAB ": "a MATLAB file of version 5 or later; export the record again with WFDB",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself",
    b"<": "a page of a web site or other text; fetch the file again",
}
"""First bytes of files that are not signal files in a plain format, and what these files are."""
_TEXT: Final = re.compile(rb"[\t\n\r\x20-\x7e]{32,}")
UNKNOWN_LENGTH: Final = 1 << 60
"""Frames of a FLAC file whose length the header does not state: known when it has been read."""


@dataclass(frozen=True, slots=True)
class StoredSignal:
    """A signal in its file. A frame of the file has `frame` samples, of which those of the signal begin at `position`.

    `frames` are the frames that the header states and the file holds, from the start of the file, before the skew. `missing`
    are those that the header states and the file does not hold, `surplus` those that it holds beyond.
    """

    signal: Signal
    file: Path
    frame: int
    position: int
    frames: int
    missing: int = 0
    surplus: int = 0

    @property
    def usable(self) -> int:
        """The number of frames of the record that the signal covers, from its start."""
        return max(0, self.frames - self.signal.skew)

    def read(self) -> Iterator[Adc]:
        """Yield the ADC values from the start of the record, at most `CHUNK_SAMPLES` at a time."""
        late = self.signal.skew * self.signal.per_frame
        for values in self.read_stored():
            kept = values[late:]
            late = max(0, late - values.size)
            for first in range(0, kept.size, CHUNK_SAMPLES):
                yield kept[first : first + CHUNK_SAMPLES]

    def read_stored(self) -> Iterator[Adc]:
        """Yield the ADC values from the start of the file. They end early where the file has become shorter or is damaged."""
        left = self.frames * self.signal.per_frame
        for values in _read_flac(self) if self.signal.format in FLAC_BITS else _read_plain(self):
            yield values[:left]
            left -= values.size
            if left <= 0:
                return

    def measure(self) -> tuple[int, int]:
        """Read the file. Returns the number of frames that can be read, and the sum of their ADC values."""
        samples = total = 0
        for values in self.read_stored():
            samples += values.size
            total += int(values.sum(dtype=np.int64))
        return samples // self.signal.per_frame, total


def open_stored(header: Header, signal: Signal) -> StoredSignal:
    """Find a signal in its file, and compare the file's length with the header.

    Raises:
        RecordingError: the format is not known, or the signal file is missing, not a regular file, or holds no samples.
        OSError: the file cannot be read.
    """
    if signal.format not in FORMATS and signal.format not in FLAC_BITS:
        known = ", ".join(map(str, (*FORMATS, *FLAC_BITS)))
        raise RecordingError(f"{header.path}: signal format {signal.format} is not known (only {known}); correct the header")
    file = find_named(header.path, "signal file", signal.file)
    others = [other for other in header.signals if other.file == signal.file]
    frame = sum(other.per_frame for other in others)
    position = sum(other.per_frame for other in others if other.number < signal.number)
    if frame > LARGEST_FRAME:
        raise RecordingError(f"{header.path}: a frame of {frame} samples is too long; correct the header")
    if any(other.format != signal.format for other in others):
        raise RecordingError(f"{header.path}: the signals of {signal.file[:40]} differ in format; correct the header")
    if signal.format in FLAC_BITS:
        if any(other.per_frame != signal.per_frame for other in others):
            raise RecordingError(f"{header.path}: the signals of a FLAC file differ in samples per frame; correct the header")
        return StoredSignal(signal, file, frame, position, header.length or UNKNOWN_LENGTH)
    _check_content(header, file)
    held = FORMATS[signal.format].count_samples(max(0, file.stat().st_size - signal.offset)) // frame
    if not held:
        raise RecordingError(f"{file}: truncated: holds no samples; fetch the file again")
    stated = header.length or held
    # The end of a skewed signal is missing, unless the file goes on beyond the stated length.
    frames = min(held, stated + signal.skew)
    return StoredSignal(signal, file, frame, position, frames, max(0, stated - held), held - frames)


def _check_content(header: Header, file: Path) -> None:
    with file.open("rb") as stream:
        begin = stream.read(64)
    what = next((what for magic, what in _OTHER_KINDS.items() if begin.startswith(magic)), None)
    if what and (not begin.startswith(b"<") or _TEXT.fullmatch(begin)):
        raise RecordingError(f"{header.path}: its signal file {file.name[:80]} is {what}")


def _read_plain(stored: StoredSignal) -> Iterator[Adc]:
    signal, frame, position = stored.signal, stored.frame, stored.position
    kind = FORMATS[signal.format]
    frames = min(CHUNK_SAMPLES // signal.per_frame, _DECODED_SAMPLES // frame)
    frames = max(frames - frames % kind.block_samples, kind.block_samples)
    size = kind.count_bytes(frames * frame)
    last = signal.initial
    with stored.file.open("rb") as stream:
        stream.seek(signal.offset)
        while raw := stream.read(size):
            samples = kind.decode(raw)
            whole = samples.size - samples.size % frame
            values = samples[:whole].reshape(-1, frame)[:, position : position + signal.per_frame].reshape(-1)
            if kind.is_difference and values.size:
                values = last + np.cumsum(values, dtype=np.int64)
                last = int(values[-1])
            yield values


def _read_flac(stored: StoredSignal) -> Iterator[Adc]:
    """In a FLAC file, each signal is a channel, and the offset counts samples."""
    signal = stored.signal
    channels, channel = stored.frame // signal.per_frame, stored.position // signal.per_frame
    skipped = signal.offset
    for values in read_flac(stored.file, signal.format, channels, channel, CHUNK_SAMPLES):
        yield values[skipped:]
        skipped = max(0, skipped - values.size)

"""Reads MIT annotation files (`.atr`, `.qrs`, `.ecg`): beats, rhythm changes and notes of PhysioNet records."""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.files import read_file
from captures.recording import RecordingError

SYMBOLS: Final = dict(enumerate("NLRaVFJASEj/Q~", start=1)) | {16: "|"} | dict(enumerate('sT*D"=pB^t+u?![]en@xf()r', start=18))
"""Annotation code to symbol: WFDB library, `ecgcodes.h` and `ecgmap.h`."""

BEATS: Final = frozenset("NLRBAaJSVrFejnE/fQ?")
"""The symbols that mark a QRS complex: WFDB library, `isqrs`."""

_SKIP, _NUM, _SUB, _CHN, _AUX = range(59, 64)
"""Pseudo-annotations: WFDB Applications Guide, `annot(5)`. SKIP moves the time; the others describe the entry before them."""

_NOTE: Final = 22
_RESOLUTION: Final = "## time resolution: "


class AnnotationError(ValueError):
    """A file that is not a valid MIT annotation file. The message names the file, the place and the error."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations in order of time, one entry each.

    `sample` counts ticks from the start of the record, at `rate_hz` where the file states it, otherwise at the sampling rate of
    the record. `symbol` is one of `SYMBOLS`. `aux` is the note of the annotation, such as the rhythm `(AFIB` after `+`; it is
    mostly empty.
    """

    sample: NDArray[np.int64]
    symbol: tuple[str, ...]
    aux: tuple[str, ...]
    rate_hz: float | None = None

    def beats(self) -> NDArray[np.int64]:
        """Returns the ticks of the annotations that mark a QRS complex, shape (beats,)."""
        return self.sample[[symbol in BEATS for symbol in self.symbol]]

    def rhythm_at(self, sample: NDArray[np.int64]) -> list[str]:
        """Returns the rhythm at each tick, such as `(N`; empty before the first rhythm label."""
        changes = [index for index, aux in enumerate(self.aux) if aux.startswith("(")]
        labels = ["", *(self.aux[index] for index in changes)]
        return [labels[index] for index in np.searchsorted(self.sample[changes], sample, side="right")]


def read_annotations(path: Path) -> Annotations:
    """Reads one annotation file.

    Raises:
        AnnotationError: not a regular file, or it ends early, holds an unknown code, or its times decrease.
        OSError: the file cannot be read.
    """
    try:
        data = read_file(path)
    except RecordingError as error:
        raise AnnotationError(str(error)) from None
    try:
        entries = _parse_entries(data)
    except AnnotationError as error:
        raise AnnotationError(f"{path.name}: {error}") from None
    rate_hz = None
    while entries and entries[0].code == _NOTE and entries[0].aux.startswith("## "):
        rate_hz = _parse_rate(path, entries[0].aux, rate_hz)
        entries = entries[1:]
    kept = [entry for entry in entries if entry.code]
    if any(later.sample < earlier.sample for earlier, later in pairwise(kept)):
        raise AnnotationError(f"{path.name}: times decrease; the file is damaged, fetch it again")
    return Annotations(
        np.array([entry.sample for entry in kept], np.int64),
        tuple(SYMBOLS[entry.code] for entry in kept),
        tuple(entry.aux for entry in kept),
        rate_hz,
    )


@dataclass(slots=True)
class _Entry:
    sample: int
    code: int
    aux: str = ""


def _parse_entries(data: bytes) -> list[_Entry]:
    entries: list[_Entry] = []
    time = at = 0
    while True:
        word = _unpack("<H", data, at)
        at += 2
        code, value = word >> 10, word & 0x3FF
        if word == 0:
            return entries
        if code == _SKIP:
            high, low = _unpack("<h", data, at), _unpack("<H", data, at + 2)
            time += (high << 16) + low
            at += 4
        elif code == _AUX:
            if not entries or at + value > len(data):
                raise AnnotationError(
                    f"the note at byte {at} is truncated or does not follow an annotation; fetch the file again"
                )
            entries[-1].aux = data[at : at + value].split(b"\0")[0].decode("latin-1")
            at += value + value % 2
        elif code not in (_NUM, _SUB, _CHN):
            if code and code not in SYMBOLS:
                raise AnnotationError(f"unknown annotation code {code} at byte {at - 2}; fetch the file again")
            time += value
            entries.append(_Entry(time, code))


def _unpack(form: str, data: bytes, at: int) -> int:
    try:
        value: int = struct.unpack_from(form, data, at)[0]
    except struct.error:
        raise AnnotationError(f"ends at byte {len(data)} without an end mark; the file is truncated, fetch it again") from None
    return value


def _parse_rate(path: Path, note: str, known: float | None) -> float | None:
    if not note.startswith(_RESOLUTION):
        return known
    try:
        rate_hz = float(note.removeprefix(_RESOLUTION))
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz < 1e6:
        raise AnnotationError(f"{path.name}: {note!r} does not give a time resolution in ticks per second; correct the file")
    return rate_hz

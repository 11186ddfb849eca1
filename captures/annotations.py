"""Reads MIT annotation files (`.atr`, `.qrs`, `.ecg`): beats, rhythm changes and notes of PhysioNet records."""

import re
import struct
from collections.abc import Mapping
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
_DEFINITIONS: Final = "## annotation type definitions"
_END_OF_DEFINITIONS: Final = "## end of definitions"
_DEFINITION: Final = re.compile(r"(\d{1,2})\s+(\S+)(?:\s.*)?", re.DOTALL)
"""Code, symbol and description of a type that the file defines: WFDB Programmer's Guide, `setanndesc`."""


class AnnotationError(ValueError):
    """A file that is not a valid MIT annotation file. The message names the file, the place and the error."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations in order of time, one entry each.

    `sample` counts ticks from the start of the record, at `rate_hz` where the file states it, otherwise at the sampling rate of
    the record. `symbol` is one of `SYMBOLS`, or one that the file defines, or `[42]` for an unknown code, as the WFDB library
    shows it. `aux` is the note of the annotation, such as the rhythm `(AFIB` after `+`; it is mostly empty.
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
        AnnotationError: not a regular file, or it ends early, or its times decrease.
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
    rate_hz, defined, preamble = _parse_preamble(path, entries)
    symbols = _name_codes(defined)
    kept = [entry for entry in entries[preamble:] if entry.code]
    if any(later.sample < earlier.sample for earlier, later in pairwise(kept)):
        raise AnnotationError(f"{path.name}: times decrease; the file is damaged, fetch it again")
    return Annotations(
        np.array([entry.sample for entry in kept], np.int64),
        tuple(symbols.get(entry.code, f"[{entry.code}]") for entry in kept),
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
            time += value
            entries.append(_Entry(time, code))


def _unpack(form: str, data: bytes, at: int) -> int:
    try:
        value: int = struct.unpack_from(form, data, at)[0]
    except struct.error:
        raise AnnotationError(f"ends at byte {len(data)} without an end mark; the file is truncated, fetch it again") from None
    return value


def _parse_preamble(path: Path, entries: list[_Entry]) -> tuple[float | None, dict[int, str], int]:
    """Read the notes that describe the file. Returns ticks per second, symbols that it defines, and how many notes."""
    rate_hz: float | None = None
    defined: dict[int, str] = {}
    is_defining = False
    for count, entry in enumerate(entries):
        if entry.code != _NOTE or entry.sample or not (is_defining or entry.aux.startswith("## ")):
            return rate_hz, defined, count
        match = _DEFINITION.fullmatch(entry.aux) if is_defining else None
        if match:
            defined[int(match[1])] = match[2]
        is_defining = (is_defining or entry.aux == _DEFINITIONS) and entry.aux != _END_OF_DEFINITIONS
        rate_hz = _parse_rate(path, entry.aux, rate_hz)
    return rate_hz, defined, len(entries)


def _name_codes(defined: Mapping[int, str]) -> dict[int, str]:
    """The symbols of a file. A code cannot take the symbol of another one, which may mean a beat: it gets no name."""
    codes = {symbol: code for code, symbol in SYMBOLS.items()}
    own = {code: symbol if codes.get(symbol, code) == code else f"[{code}]" for code, symbol in defined.items()}
    return SYMBOLS | own


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

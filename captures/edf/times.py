"""Reads the times of data records from the annotations of EDF+ and BDF+ (EDF+ specification, 2.2.4)."""

import re
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.edf.records import Records, read_blocks
from captures.recording import LONGEST_S, RecordingError

_ONSET: Final = re.compile(rb"\0*([+-]?\d{1,12}(?:[.,]\d{0,12})?)(?:\x15[^\x14\0]{0,24})?\x14\x14")
"""The time of a record: an annotation list whose first text is empty."""
_TEXT: Final = re.compile(rb"(?<=\x14)[^\x14\0]+(?=\x14)")
_ROUNDING_S: Final = 1.5e-3
"""Steps between times in whole milliseconds are wrong by up to 1 ms. A shorter gap does not interrupt an ECG."""
_LARGEST_OVERLAP_S: Final = 0.1
"""Jitter of a recorder's clock stays below it. A larger overlap would shift beats too far."""
_MOST_RECORDS: Final = 1 << 22
"""Twelve hours at a hundred records a second. Their times take 32 MiB."""
_LIST_BYTES: Final = 1 << 16
"""Bytes of annotations of one record that are parsed: the time comes first."""


@dataclass(frozen=True, slots=True)
class Times:
    """When the records start. `offset_s` is the time from the start of the header to the first record.

    `gaps` are the numbers of the records before which samples are missing, `starts_s` their times from the first record.
    """

    offset_s: float = 0.0
    gaps: tuple[int, ...] = ()
    starts_s: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def read_times(records: Records, span: tuple[int, int], record_s: float, rate_hz: float, *, has_gaps: bool) -> Times:
    """Read the times of the records. `span` has the first byte and the length of the annotations in each record.

    Without `has_gaps` the records follow each other by definition, and a note reports times that differ.

    Raises:
        RecordingError: the records go back in time, or are too many.
    """
    if records.count > _MOST_RECORDS:
        if has_gaps:
            raise RecordingError(f"{records.path}: {records.count} data records with times are too many; split the recording")
        records = replace(records, count=1)
    onsets, texts = _read_onsets(records, span)
    notes = [f"{texts} annotation{'s are' if texts > 1 else ' is'} not read"] if texts else []
    known = np.flatnonzero(~np.isnan(onsets))
    if known.size < records.count and has_gaps:
        notes.append(f"{records.count - known.size} data records have no time: they are assumed to follow without a gap")
    if not known.size:
        return Times(notes=tuple(notes))
    offset_s = float(onsets[known[0]] - known[0] * record_s)
    late_s = np.diff(onsets[known]) - np.diff(known) * record_s
    tolerated_s = max(0.5 / rate_hz, _ROUNDING_S)
    odd = np.flatnonzero(np.abs(late_s) > tolerated_s)
    if not odd.size:
        return Times(offset_s, notes=tuple(notes))
    if not has_gaps:
        worst_s = float(late_s[odd][np.argmax(np.abs(late_s[odd]))])
        way = "after" if worst_s > 0 else "before"
        problem = f"{odd.size} data records state times up to {abs(worst_s):.3f} s {way} the end of the one before"
        return Times(offset_s, notes=(*notes, f"{problem}; the file says that it has no gaps, so these times are not used"))
    gaps = _find_gaps(records, known[odd + 1], late_s[odd], tolerated_s)
    return Times(offset_s, gaps, tuple(float(onsets[gap] - offset_s) for gap in gaps), tuple(notes))


def _find_gaps(records: Records, numbers: NDArray[np.int64], late: NDArray[np.float64], tolerated_s: float) -> tuple[int, ...]:
    """The records before which samples are missing. A small overlap is subtracted from the next gap."""
    gaps: list[int] = []
    ahead_s = 0.0
    for number, late_s in zip(numbers.tolist(), late.tolist(), strict=True):
        ahead_s -= late_s
        if ahead_s > _LARGEST_OVERLAP_S:
            raise RecordingError(
                f"{records.path}: data record {number + 1} starts {ahead_s:.3f} s before the one before it ends;"
                " its times cannot be right; export the file again"
            )
        if ahead_s < -tolerated_s:
            gaps.append(number)
        ahead_s = max(0.0, ahead_s)
    return tuple(gaps)


def _read_onsets(records: Records, span: tuple[int, int]) -> tuple[NDArray[np.float64], int]:
    """The time of each record in seconds, NaN where it states none, shape (records,); and the number of texts."""
    onsets = np.full(records.count, np.nan)
    texts = 0
    for block in read_blocks(records, span[0], min(span[1], _LIST_BYTES), 1):
        for i, row in enumerate(block.rows):
            raw = row.tobytes()
            match = _ONSET.match(raw)
            if match:
                onsets[block.first + i] = float(match[1].replace(b",", b"."))
            texts += len(_TEXT.findall(raw))
    onsets[np.abs(onsets) > LONGEST_S] = np.nan
    return onsets, texts

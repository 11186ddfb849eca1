"""Puts rows into the order of their times where packets of a sensor were stored out of order."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from captures.recording import Samples

_HELD: Final = 2048
"""Rows that are buffered because earlier ones may follow: a packet has up to 250 samples."""
_MOST_BACK: Final = 0.1
"""Largest share of steps that go back."""


class Batch(NamedTuple):
    """Rows of a table: their times in the unit of the file (without a column of times, the numbers of the rows from 0), the
    samples and RR intervals (NaN where a cell is empty), and the numbers of their lines.

    `cut_line` is the line of a truncated last row, which is left out. `wrap_value` is the value at which the counter of the
    times restarted, 0 if it did not. `is_reordered` says that rows were out of order. `repeated` is the number of rows that are
    left out because their packet was stored twice.
    """

    times: Samples
    values: Samples
    lines: NDArray[np.int64]
    rr: Samples | None = None
    cut_line: int | None = None
    wrap_value: float = 0.0
    is_reordered: bool = False
    repeated: int = 0


def sort_rows(batches: Iterator[Batch], step: float) -> Iterator[Batch]:
    """Yield the rows in the order of their times if the rows that go back fill gaps. `step` is the usual step of the times.

    Times that go back because of jitter do not fill gaps, so these rows keep the order of the file.
    """
    held: Batch | None = None
    for batch in batches:
        joined = _drop_repeats(_sort(_join(held, batch) if held else batch, step))
        stop = max(0, joined.times.size - _HELD)
        held = _cut(joined, slice(stop, None))._replace(repeated=0)
        yield _cut(joined, slice(0, stop))
    if held:
        yield held


def _join(first: Batch, second: Batch) -> Batch:
    rr = None if first.rr is None or second.rr is None else np.concatenate((first.rr, second.rr))
    times, values, lines = (np.concatenate(parts) for parts in zip(first[:3], second[:3], strict=True))
    return second._replace(
        times=times, values=values, lines=lines, rr=rr, is_reordered=first.is_reordered or second.is_reordered
    )


def _cut(batch: Batch, rows: slice | NDArray[np.int64]) -> Batch:
    rr = None if batch.rr is None else batch.rr[rows]
    return batch._replace(times=batch.times[rows], values=batch.values[rows], lines=batch.lines[rows], rr=rr)


def _sort(batch: Batch, step: float) -> Batch:
    is_back = np.diff(batch.times) < 0
    if not is_back.any() or is_back.mean() > _MOST_BACK or not _fills_gaps(batch, step):
        return batch
    return _cut(batch, np.argsort(batch.times, kind="stable"))._replace(is_reordered=True)


def _drop_repeats(batch: Batch) -> Batch:
    """Leave out packets that occur twice in a row, where all samples of a packet share a time."""
    edges = np.flatnonzero(np.diff(batch.times, prepend=np.nan, append=np.nan) != 0)
    counts = np.diff(edges)
    usual = int(np.median(counts)) if counts.size else 0
    kept = np.ones(batch.times.size, np.bool_)
    for first in edges[:-1][counts == 2 * usual].tolist() if usual > 1 else ():
        half, stop = first + usual, first + 2 * usual
        kept[half:stop] = not np.array_equal(batch.values[first:half], batch.values[half:stop], equal_nan=True)
    return batch if kept.all() else _cut(batch, np.flatnonzero(kept))._replace(repeated=int((~kept).sum()))


def _fills_gaps(batch: Batch, step: float) -> bool:
    """Whether the sorted times are about evenly spaced and have fewer gaps than the unsorted ones."""
    is_first = np.concatenate(([True], np.diff(batch.times) != 0))
    times, values = batch.times[is_first], batch.values[is_first]
    steps, even = np.diff(times), np.diff(np.unique(times))
    is_repeated_alike = np.unique(times + 1j * values).size == even.size + 1
    return bool(
        is_repeated_alike
        and (steps >= -_HELD * step).all()
        and (even > 0.5 * step).all()
        and (even > 1.5 * step).sum() < (steps > 1.5 * step).sum()
    )

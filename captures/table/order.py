"""Puts rows into the order of their times where packets of a sensor were stored out of order."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from captures.recording import Samples

_HELD: Final = 2048
"""Rows that are held back to see whether earlier ones follow: a packet has up to 250 samples."""
_MOST_BACK: Final = 0.1
"""Share of the steps that go back, at most."""


class Batch(NamedTuple):
    """Rows of a table: their times in the unit of the file (without a column of times, the numbers of the rows from 0), the
    samples and RR intervals (NaN where a cell is empty), and the numbers of their lines.

    `cut_line` is the line of a truncated last row, which is left out. `limit` is the value at which the counter of the times
    began again, 0 if it did not. `is_sorted` says that rows were out of order.
    """

    times: Samples
    values: Samples
    lines: NDArray[np.int64]
    rr: Samples | None = None
    cut_line: int | None = None
    limit: float = 0.0
    is_sorted: bool = False


def sort_rows(batches: Iterator[Batch], step: float) -> Iterator[Batch]:
    """Yield the rows in the order of their times, if those that go back fill a hole. `step` is the usual step of the times.

    Times that go back because they are inexact lie between others, and so keep the order of the file.
    """
    held: Batch | None = None
    for batch in batches:
        joined = _sort(_join(held, batch) if held else batch, step)
        stop = max(0, joined.times.size - _HELD)
        held = _cut(joined, slice(stop, None))
        yield _cut(joined, slice(0, stop))
    if held:
        yield held


def _join(first: Batch, second: Batch) -> Batch:
    rr = None if first.rr is None or second.rr is None else np.concatenate((first.rr, second.rr))
    times, values, lines = (np.concatenate(parts) for parts in zip(first[:3], second[:3], strict=True))
    return second._replace(times=times, values=values, lines=lines, rr=rr, is_sorted=first.is_sorted or second.is_sorted)


def _cut(batch: Batch, rows: slice | NDArray[np.int64]) -> Batch:
    rr = None if batch.rr is None else batch.rr[rows]
    return batch._replace(times=batch.times[rows], values=batch.values[rows], lines=batch.lines[rows], rr=rr)


def _sort(batch: Batch, step: float) -> Batch:
    is_back = np.diff(batch.times) < 0
    if not is_back.any() or is_back.mean() > _MOST_BACK or not _fills_holes(batch, step):
        return batch
    return _cut(batch, np.argsort(batch.times, kind="stable"))._replace(is_sorted=True)


def _fills_holes(batch: Batch, step: float) -> bool:
    """Whether the times are about evenly spaced once they are sorted, and miss fewer samples than before."""
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

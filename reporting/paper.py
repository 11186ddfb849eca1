"""An alert's strip on ECG paper as SVG text: 25 mm/s, 10 mm/mV, at true size."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from reporting.charts import svg
from reporting.text import clock
from sync.records import Strip

UNITS_PER_MM: Final = 20
"""SVG units: at 125 Hz and 25 mm/s a sample is exactly 4 of them, and one is 5 µV high."""
MM_PER_S: Final = 25
MM_PER_MV: Final = 10
ROW_S: Final = 6.0
"""One row of a strip: 150 mm, which fits a portrait page at true size."""
PULSE_MM: Final = 10
"""Room for the 1 mV calibration pulse before the first sample: two large squares."""
LARGEST_MV: Final = 3.0
"""Shown above and below zero at most; beyond it the trace runs along the edge. Few R waves at the surface are higher."""
_MARKS: Final = 6 * UNITS_PER_MM
"""Height above the paper for the beat marks, below it for the seconds."""


@dataclass(frozen=True, slots=True)
class _Row:
    """Where times and voltages of one row lie, in SVG units."""

    start_us: int
    length_s: float
    top_mv: float
    bottom_mv: float

    left: ClassVar[int] = PULSE_MM * UNITS_PER_MM
    right: ClassVar[int] = left + round(ROW_S * MM_PER_S) * UNITS_PER_MM

    @property
    def height(self) -> int:
        return round((self.top_mv - self.bottom_mv) * MM_PER_MV) * UNITS_PER_MM

    @property
    def zero(self) -> int:
        return _MARKS + round(self.top_mv * MM_PER_MV * UNITS_PER_MM)

    def x(self, at_us: int) -> int:
        return self.left + round((at_us - self.start_us) / 1e6 * MM_PER_S * UNITS_PER_MM)

    def shows(self, at_us: int) -> bool:
        return 0 <= at_us - self.start_us < self.length_s * 1e6


def strip_rows(strip: Strip, seconds: Callable[[int], float], marks: Sequence[tuple[int, str]]) -> list[str]:
    """One picture for each 6 s, with R peaks and RR intervals in ms above.

    `seconds` turns the strip's times (microseconds) into seconds from the file's start; `marks` are (time, label) to be shown
    as upright lines where they fall into the strip.
    """
    mv = np.clip(strip.samples.astype(np.float64) * strip.scale, -LARGEST_MV, LARGEST_MV)
    per_row = max(1, round(ROW_S * strip.rate_hz))
    rows = []
    for first in range(0, mv.size, per_row):
        part = mv[first : first + per_row]
        row = _Row(strip.start_us + round(first / strip.rate_hz * 1e6), part.size / strip.rate_hz, *_range(mv))
        rows.append(_picture(row, part, strip, seconds(row.start_us), marks))
    return rows


def _range(mv: NDArray[np.float64]) -> tuple[float, float]:
    """What the paper shows, in mV: whole large squares (0.5 mV) around the trace, at least -0.5 to 1."""
    return max(1.0, float(np.ceil(mv.max() * 2) / 2)), min(-0.5, float(np.floor(mv.min() * 2) / 2))


def _picture(row: _Row, mv: NDArray[np.float64], strip: Strip, begins: float, marks: Sequence[tuple[int, str]]) -> str:
    beats = [at_us for at_us in strip.beats_us if row.shows(at_us)]
    parts = [
        _grid(row.right, row.height),
        _pulse(row.zero),
        *(_mark(row.x(at_us), row.height, label) for at_us, label in marks if row.shows(at_us)),
        f'<path class="trace" d="{_trace(mv, strip.rate_hz, row.left, row.zero)}"/>',
        *(f'<path class="beat" d="M{row.x(at_us)} {_MARKS - 10}l-22 -40h44z"/>' for at_us in beats),
        *_labels(strip, row),
        *_intervals(strip.beats_us, row),
        *_second_labels(begins, row),
    ]
    size = (row.right, row.height + 2 * _MARKS)
    label = f"ECG from {clock(begins)} to {clock(begins + row.length_s)}, {len(beats)} beats"
    millimetres = f' width="{size[0] / UNITS_PER_MM:g}mm" height="{size[1] / UNITS_PER_MM:g}mm"'
    return svg("strip", size, label, parts, millimetres)


def _grid(width: int, height: int) -> str:
    """Small squares of 1 mm (40 ms, 0.1 mV), large ones of 5 mm (200 ms, 0.5 mV)."""
    bottom = _MARKS + height
    lines = {"fine": UNITS_PER_MM, "coarse": 5 * UNITS_PER_MM}
    paths = []
    for name, step in lines.items():
        upright = "".join(f"M{x} {_MARKS}v{height}" for x in range(0, width + 1, step))
        level = "".join(f"M0 {y}h{width}" for y in range(_MARKS, bottom + 1, step))
        paths.append(f'<path class="{name}" d="{upright}{level}"/>')
    return f'<rect class="paper" x="0" y="{_MARKS}" width="{width}" height="{height}"/>' + "".join(paths)


def _pulse(zero: int) -> str:
    """1 mV for 200 ms: shows the scale on any print."""
    mm = UNITS_PER_MM
    return f'<path class="pulse" d="M{mm} {zero}h{mm}v{-MM_PER_MV * mm}h{5 * mm}v{MM_PER_MV * mm}h{mm}"/>'


def _mark(x: int, height: int, label: str) -> str:
    line = f'<path class="mark" d="M{x} {_MARKS}v{height}"/>'
    return f'{line}<text class="marked" x="{x + 12}" y="{_MARKS + height - 16}">{label}</text>'


def _trace(mv: NDArray[np.float64], rate_hz: float, left: int, zero: int) -> str:
    """A path of whole-unit steps; rounded before differencing, so that errors do not add up."""
    x = np.rint(left + np.arange(mv.size) / rate_hz * MM_PER_S * UNITS_PER_MM).astype(np.int64)
    y = np.rint(zero - mv * MM_PER_MV * UNITS_PER_MM).astype(np.int64)
    steps = " ".join(f"{dx} {dy}" for dx, dy in zip(np.diff(x).tolist(), np.diff(y).tolist(), strict=True))
    return f"M{x[0]} {y[0]}l{steps}" if steps else f"M{x[0]} {y[0]}h1"


def _labels(strip: Strip, row: _Row) -> Iterable[str]:
    """The class of each beat that is not normal, beside its mark."""
    for at_us, label in zip(strip.beats_us, strip.labels, strict=False):
        if label != "N" and row.shows(at_us):
            yield f'<text class="label" x="{row.x(at_us) + 30}" y="{_MARKS + 40}">{escape(label)}</text>'


def _intervals(beats_us: Sequence[int], row: _Row) -> Iterable[str]:
    """Each interval above its middle; one shorter than 300 ms has no room for its number."""
    for before, after in pairwise(beats_us):
        if after - before >= 300_000 and row.shows((before + after) // 2):
            x = row.x((before + after) // 2)
            yield f'<text class="rr" x="{x}" y="{_MARKS - 14}">{round((after - before) / 1000)}</text>'


def _second_labels(begins: float, row: _Row) -> Iterable[str]:
    bottom = _MARKS + row.height
    last = begins + min(row.length_s, ROW_S - 0.15)  # a number at the very edge would be cut
    for second in range(math.ceil(begins), math.floor(last) + 1):
        x = row.left + round((second - begins) * MM_PER_S * UNITS_PER_MM)
        yield f'<path class="second" d="M{x} {bottom}v24"/>'
        yield f'<text class="seconds" x="{x}" y="{bottom + 88}">{clock(second)}</text>'

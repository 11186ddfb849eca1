"""Draws the charts of a replay report as SVG: heart-rate trend with alerts, Poincaré plot and histogram of RR intervals.

Colours and type come from the style sheet by class, so the charts follow light, dark and print.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reporting.text import format_clock

TIME_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)

_WIDTH, _LEFT, _RIGHT = 1120, 176, 16
_TOP, _PLOT_HEIGHT, _ROW_HEIGHT = 14, 210, 24


@dataclass(frozen=True, slots=True)
class Bar:
    """An episode on the time axis, in seconds from the start of the file; `title` is its tooltip."""

    onset: float
    end: float
    priority: str
    title: str


@dataclass(frozen=True, slots=True)
class Trend:
    """Heart rate in /min at `t` seconds: `per_beat` of single intervals, and `smoothed`; NaN where unknown."""

    t: NDArray[np.float64]
    per_beat: NDArray[np.float64]
    smoothed: NDArray[np.float64]


def draw_timeline(
    name: str,
    duration_s: float,
    trend: Trend,
    rows: Sequence[tuple[str, Sequence[Bar]]],
    gaps: Sequence[tuple[float, float]],
    limits: Sequence[tuple[float, str]],
) -> str:
    """Draws the trend with shaded gaps and dashed `limits` (value, label), and below it a row of bars for each of `rows`."""
    span = max(duration_s, 1.0)
    bottom = _TOP + _PLOT_HEIGHT
    low, high = rate_range(trend)

    def x(t: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(t / span, 0.0), 1.0)

    def y(rate: float) -> float:
        return bottom - _PLOT_HEIGHT * (min(max(rate, low), high) - low) / (high - low)

    axis = bottom + _ROW_HEIGHT * len(rows)
    parts = [
        *_time_axis(span, x, axis),
        *_rate_axis(low, high, y),
        *_gap_shades(gaps, x, axis),
        *(_limit(y(value), label) for value, label in limits if low < value < high),
        f'<path class="dots" d="{_dots(trend.t, trend.per_beat, x, y)}"/>',
        f'<path class="smooth" d="{_smooth(trend.t, trend.smoothed, x, y)}"/>',
        *_bar_rows(rows, x, bottom),
    ]
    return _svg("timeline", (_WIDTH, axis + 34), f"Heart rate and alerts over time: {name}", parts)


def draw_poincare(rr_s: NDArray[np.float64], known: NDArray[np.bool_], name: str) -> str:
    """Draws each interval against the one before it: a steady rhythm gives one spot, an irregular rhythm a cloud.

    `name` says what the intervals are: RR or PP.
    """
    pairs = known[1:] & known[:-1]
    before, after = rr_s[:-1][pairs], rr_s[1:][pairs]
    low, high = _rr_range(rr_s[known])
    size, left, bottom = 340, 50, 300

    def place(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip((values - low) / (high - low), 0.0, 1.0) * (bottom - 14)

    path = _raster(left + place(before), bottom - place(after))
    diagonal = f'<path class="grid" d="M{left} {bottom}L{left + bottom - 14} 14"/>'
    parts = [
        *_square_axes(low, high, left, bottom, f"previous {name}, s", f"{name}, s"),
        diagonal,
        f'<path class="dots" d="{path}"/>',
    ]
    return _svg("square", (size + 14, size), f"Each {name} interval against the one before it, {pairs.sum()} pairs", parts)


def draw_histogram(rr_s: NDArray[np.float64], name: str) -> str:
    """Draws how often each length of interval occurs; `name` as above."""
    low, high = _rr_range(rr_s)
    size, left, bottom = 340, 50, 300
    counts, edges = np.histogram(np.clip(rr_s, low, high), bins=40, range=(low, high))
    width = (bottom - 14) / counts.size
    bars = "".join(
        f'<rect x="{left + index * width:.1f}" y="{bottom - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"/>'
        for index, height in enumerate(counts / max(1, counts.max()) * (bottom - 20))
        if height
    )
    label = f"Histogram of {rr_s.size} {name} intervals, most often {edges[int(counts.argmax())]:.2f} s"
    parts = [*_square_axes(low, high, left, bottom, f"{name}, s", None), f'<g class="columns">{bars}</g>']
    return _svg("square", (size + 14, size), label, parts)


def rate_range(trend: Trend) -> tuple[float, float]:
    """Returns the ends of the rate axis: multiples of 20 /min that enclose 98 % of all rates, and at least 40 to 120 /min."""
    shown = np.concatenate((trend.smoothed, trend.per_beat))
    shown = shown[np.isfinite(shown)]
    if not shown.size:
        return 40.0, 120.0
    low, high = np.percentile(shown, (1, 99))
    return min(40.0, 20.0 * float(np.floor(low / 20))), max(120.0, 20.0 * float(np.ceil(high / 20)))


def _svg(kind: str, size: tuple[float, float], label: str, parts: Iterable[str]) -> str:
    """Returns an SVG of class `kind`; screen readers read `label`."""
    view = f'viewBox="0 0 {size[0]:g} {size[1]:g}"'
    return f'<svg class="chart {kind}" {view} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _time_axis(span: float, x: Callable[[float], float], bottom: float) -> Iterable[str]:
    step = next((step for step in TIME_STEPS_S if span / step <= 12), 86400 * max(1, round(span / 86400 / 10)))
    for t in range(0, int(span) + 1, step):
        yield f'<path class="grid" d="M{x(t):.1f} {_TOP}V{bottom:.1f}"/>'
        yield f'<text class="tick mid" x="{x(t):.1f}" y="{bottom + 16:.1f}">{format_clock(t)}</text>'
    title = "hours:minutes:seconds" if span >= 3600 else "minutes:seconds"
    yield f'<text class="tick end" x="{_WIDTH - _RIGHT}" y="{bottom + 31:.1f}">{title} from the start</text>'


def _rate_axis(low: float, high: float, y: Callable[[float], float]) -> Iterable[str]:
    step = 20 if high - low <= 160 else 40
    for rate in range(int(low), int(high) + 1, step):
        yield f'<path class="grid" d="M{_LEFT} {y(rate):.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="tick end" x="{_LEFT - 8}" y="{y(rate) + 4:.1f}">{rate}</text>'
    yield f'<text class="rowname" x="0" y="{_TOP + 12}">Heart rate</text>'
    yield f'<text class="tick" x="0" y="{_TOP + 28}">beats per minute</text>'


def _limit(y: float, label: str) -> str:
    line = f'<path class="limit" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
    return f'{line}<text class="limitname end" x="{_WIDTH - _RIGHT - 4}" y="{y - 4:.1f}">{escape(label)}</text>'


def _gap_shades(gaps: Sequence[tuple[float, float]], x: Callable[[float], float], bottom: float) -> Iterable[str]:
    for start, end in _join_close(gaps, x):
        width = max(1.5, x(end) - x(start))
        title = f"<title>no signal {format_clock(start)} to {format_clock(end)}</title>"
        yield f'<rect class="gap" x="{x(start):.1f}" y="{_TOP}" width="{width:.1f}" height="{bottom - _TOP:.1f}">{title}</rect>'


def _join_close(gaps: Sequence[tuple[float, float]], x: Callable[[float], float]) -> Iterable[tuple[float, float]]:
    """Joins gaps that cannot be told apart, in order of time: less than two units are between them."""
    joined: list[tuple[float, float]] = []
    for start, end in gaps:
        if joined and x(start) - x(joined[-1][1]) < 2.0:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _bar_rows(rows: Sequence[tuple[str, Sequence[Bar]]], x: Callable[[float], float], top: float) -> Iterable[str]:
    for index, (name, bars) in enumerate(rows):
        y = top + _ROW_HEIGHT * index
        yield f'<path class="grid" d="M0 {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text class="rowname" x="0" y="{y + 16:.1f}">{escape(name)}</text>'
        for bar in bars:
            width = max(4.0, x(bar.end) - x(bar.onset))
            place = f'x="{x(bar.onset):.1f}" y="{y + 5:.1f}" width="{width:.1f}" height="{_ROW_HEIGHT - 10}" rx="2"'
            yield f'<rect class="bar {escape(bar.priority)}" {place}><title>{escape(bar.title)}</title></rect>'


def _dots(t: NDArray[np.float64], values: NDArray[np.float64], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    known = np.isfinite(values)
    return _raster(np.array([x(v) for v in t[known]]), np.array([y(v) for v in values[known]]))


def _raster(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Draws dots on whole units, each place once, and joins close dots of a column: the chart of a day stays a small file."""
    cells = np.unique(np.stack((np.rint(x), np.rint(y)), axis=1).astype(np.int64), axis=0)
    path: list[str] = []
    start = 0
    for index in range(1, len(cells) + 1):
        if index < len(cells) and cells[index, 0] == cells[start, 0] and cells[index, 1] <= cells[index - 1, 1] + 2:
            continue
        path.append(f"M{cells[start, 0]} {cells[start, 1]}v{cells[index - 1, 1] - cells[start, 1]}")
        start = index
    return "".join(path)


def _smooth(
    t: NDArray[np.float64], values: NDArray[np.float64], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    """Draws a line through the median of each column of two units, with a break where no rate is known for 15 s."""
    known = np.isfinite(values)
    columns = np.array([int(x(v) / 2) for v in t[known]], np.int64)
    times, rates = t[known], values[known]
    path: list[str] = []
    last_t = -np.inf
    for column in np.unique(columns):
        here = slice(*np.searchsorted(columns, (column, column + 1)))
        command = "L" if times[here][0] - last_t < 15.0 else "M"
        path.append(f"{command}{2 * column + 1} {y(float(np.median(rates[here]))):.1f}")
        last_t = times[here][-1]
    return "".join(path)


def _rr_range(rr_s: NDArray[np.float64]) -> tuple[float, float]:
    if not rr_s.size:
        return 0.4, 1.2
    low, high = np.percentile(rr_s, (0.5, 99.5))
    return max(0.2, float(np.floor(low * 5) / 5)), min(3.0, float(np.floor(high * 5) / 5) + 0.2)


def _square_axes(low: float, high: float, left: float, bottom: float, x_title: str, y_title: str | None) -> Iterable[str]:
    count = round((high - low) / 0.2)
    for index in range(0, count + 1, 1 if count <= 8 else 2):
        value, place = low + 0.2 * index, (bottom - 14) * index / count
        yield f'<path class="grid" d="M{left + place:.1f} 14V{bottom}"/>'
        yield f'<text class="tick mid" x="{left + place:.1f}" y="{bottom + 16}">{value:.1f}</text>'
        if y_title:
            yield f'<path class="grid" d="M{left} {bottom - place:.1f}H{left + bottom - 14}"/>'
            yield f'<text class="tick end" x="{left - 6}" y="{bottom - place + 4:.1f}">{value:.1f}</text>'
    yield f'<text class="tick end" x="{left + bottom - 14}" y="{bottom + 34}">{x_title}</text>'
    if y_title:
        yield f'<text class="tick mid" transform="translate(12 {bottom / 2}) rotate(-90)">{y_title}</text>'

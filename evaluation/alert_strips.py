"""Pictures of high alerts outside marked episodes, so that a person can judge each by eye."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evaluation.alert_scores import OutsideAlert
from reporting.strips import STEPS_PER_MV, UNITS_PER_MM, UNITS_PER_S, draw_trace
from sync.records import Strip

BEFORE_S: Final = 15.0
AFTER_S: Final = 15.0
"""Signal around the onset of an alert, and after it was raised."""
LONGEST_S: Final = 60.0
ROW_S: Final = 10.0
"""Length of a row: 250 mm at 25 mm/s."""
SCALE_MV: Final = 0.001
HEIGHT_MV: Final = 4.0
"""A row shows 2 mV above and below its median."""
STYLE: Final = (
    ".trace{fill:none;stroke:#000;stroke-width:6} .grid{stroke:#f3b7b7;stroke-width:3} .mark{stroke:#00f;stroke-width:8}"
    " text{font:80px sans-serif}"
)


def draw_outside_alerts(
    folder: Path, name: str, mv: NDArray[np.float64], rate_hz: float, alerts: Iterable[OutsideAlert]
) -> None:
    """Writes one SVG for each alert: 25 mm/s, 10 mm/mV, with marks at the onset and at the moment of the alert."""
    folder.mkdir(parents=True, exist_ok=True)
    for alert in alerts:
        at = f"{name.replace('/', '-')}-{alert.raised_s:07.1f}-{alert.kind}"
        (folder / f"{at}.svg").write_text(_draw(name, mv, rate_hz, alert), encoding="utf-8")


def _draw(name: str, mv: NDArray[np.float64], rate_hz: float, alert: OutsideAlert) -> str:
    start_s = max(0.0, max(alert.onset_s, alert.raised_s - LONGEST_S) - BEFORE_S)
    end_s = min(mv.size / rate_hz, alert.raised_s + AFTER_S)
    row_height, width = round(HEIGHT_MV * STEPS_PER_MV), round(ROW_S * UNITS_PER_S)
    title = (
        f"{name}: {alert.kind}, onset {alert.onset_s:.1f} s, raised {alert.raised_s:.1f} s, open {alert.open_s:.1f} s;"
        f" rows of {ROW_S:g} s from {start_s:.1f} s"
    )
    rows = []
    starts = np.arange(start_s, end_s, ROW_S)
    for index, row_s in enumerate(starts.tolist()):
        samples = mv[round(row_s * rate_hz) : round(min(row_s + ROW_S, end_s) * rate_hz)]
        top = 120 + index * row_height
        marks = [at_s for at_s in (alert.onset_s, alert.raised_s) if row_s <= at_s < row_s + ROW_S]
        rows += [_grid(top, row_height, width), *(_line((at_s - row_s) * UNITS_PER_S, top, row_height) for at_s in marks)]
        if samples.size > 1:
            rows.append(f'<svg x="0" y="{top}" overflow="visible">{_trace(samples, rate_hz, row_height)}</svg>')
    height = 120 + starts.size * row_height
    size = f'width="{width / UNITS_PER_MM:g}mm" height="{height / UNITS_PER_MM:g}mm" viewBox="0 0 {width} {height}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    )
    return f'{head}<text x="20" y="90">{escape(title)}</text>{"".join(rows)}</svg>\n'


def _trace(samples: NDArray[np.float64], rate_hz: float, row_height: int) -> str:
    """Returns the trace about its median, in the middle of its row."""
    centred = np.nan_to_num(samples - np.nanmedian(samples)) if np.isfinite(samples).any() else np.zeros(samples.size)
    limited = np.clip(centred, -HEIGHT_MV / 2, HEIGHT_MV / 2)
    strip = Strip(0, rate_hz, SCALE_MV, np.rint(limited / SCALE_MV).astype(np.int32), (), "")
    path = draw_trace(strip, "ECG").partition("<path")[2].rpartition("</svg>")[0]
    return f'<g transform="translate(0 {row_height / 2:g})"><path{path}</g>'


def _grid(top: int, height: int, width: int) -> str:
    step = UNITS_PER_S // 5
    upright = (f"M{x} {top}v{height}" for x in range(0, width + 1, step))
    level = (f"M0 {y}h{width}" for y in range(top, top + height + 1, STEPS_PER_MV // 2))
    return f'<path class="grid" d="{"".join((*upright, *level))}"/>'


def _line(x: float, top: int, height: int) -> str:
    return f'<path class="mark" d="M{x:.0f} {top}v{height}"/>'

"""An alert's ECG strip: its trace as SVG, and as JSON what paper.js draws around it."""

import json
from collections.abc import Callable
from html import escape
from typing import Final

import numpy as np

from sync.records import AlertRecord, Strip

STEPS_PER_MV: Final = 200
"""Vertical units of a trace in 1 mV: 0.05 mm on paper at 10 mm/mV, half the width of a printed grid line."""
UNITS_PER_S: Final = 500
"""Horizontal units of a trace in 1 s: 0.05 mm on paper at 25 mm/s."""
UNITS_PER_MM: Final = 20
LARGEST_MV: Final = 3.0
"""Samples are clipped to this value above and below zero. Few R waves at the body surface are higher."""
MARGIN: Final = 0.1
"""Share of a millivolt above and below a trace."""


def draw_trace(strip: Strip, label: str) -> str:
    """Returns the trace of a strip at 25 mm/s and 10 mm/mV, as SVG; paper.js takes the samples from it and draws the paper."""
    mv = np.clip(strip.samples.astype(np.float64) * strip.scale, -LARGEST_MV, LARGEST_MV)
    y = -np.rint(mv * STEPS_PER_MV).astype(np.int64)
    x = np.rint(np.arange(y.size) * UNITS_PER_S / strip.rate_hz).astype(np.int64)
    steps = np.column_stack((np.diff(x), np.diff(y))).ravel().tolist()
    margin = round(MARGIN * STEPS_PER_MV)
    top, height = int(y.min()) - margin, int(np.ptp(y)) + 2 * margin
    size = f'width="{x[-1] / UNITS_PER_MM:g}mm" height="{height / UNITS_PER_MM:g}mm"'
    path = f'<path class="trace" d="M0 {y[0]}l{" ".join(map(str, steps))}"/>'
    name = f'role="img" aria-label="{escape(label)}"'
    return f'<svg class="plain-strip" viewBox="0 {top} {x[-1]} {height}" {size} {name}>{path}</svg>'


def strip_json(alert: AlertRecord, strip: Strip, file_us: Callable[[int], int]) -> str:
    """Returns the times and beats of a strip, and the alert's onset and end, as JSON that is safe in a `<script>` element.

    `file_us` turns a time of the hub into microseconds from the file's start.
    """
    content = {
        "onset_us": file_us(alert.onset_us),
        "end_us": None if alert.end_us is None else file_us(alert.end_us),
        "strip": {
            "start_us": file_us(strip.start_us),
            "rate_hz": strip.rate_hz,
            "beats_us": [file_us(at_us) for at_us in strip.beats_us],
            "labels": strip.labels,
            "mark_from_us": None if strip.mark_from_us is None else file_us(strip.mark_from_us),
            "mark_to_us": None if strip.mark_to_us is None else file_us(strip.mark_to_us),
        },
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

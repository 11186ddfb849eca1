"""An alert's ECG strip as JSON, for paper.js to draw."""

import json
from collections.abc import Callable
from typing import Final

import numpy as np

from sync.records import AlertRecord, Strip

STEP_MV: Final = 0.005
"""Resolution of the samples in a report: 0.05 mm on paper at 10 mm/mV, half the width of a printed grid line."""
LARGEST_MV: Final = 3.0
"""Samples are clipped to this value above and below zero. Few R waves at the body surface are higher."""


def strip_json(alert: AlertRecord, strip: Strip, file_us: Callable[[int], int]) -> str:
    """Returns the strip with the alert's onset and end as JSON that is safe inside a `<script>` element.

    `file_us` turns a time of the hub into microseconds from the file's start. Samples are first differences in units of
    `step_mv`.
    """
    mv = np.clip(strip.samples.astype(np.float64) * strip.scale, -LARGEST_MV, LARGEST_MV)
    steps = np.rint(mv / STEP_MV).astype(np.int64)
    content = {
        "onset_us": file_us(alert.onset_us),
        "end_us": None if alert.end_us is None else file_us(alert.end_us),
        "strip": {
            "start_us": file_us(strip.start_us),
            "rate_hz": strip.rate_hz,
            "step_mv": STEP_MV,
            "differences": np.diff(steps, prepend=0).tolist(),
            "beats_us": [file_us(at_us) for at_us in strip.beats_us],
            "labels": strip.labels,
        },
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

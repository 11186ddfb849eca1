"""Measures alert latency: from the notification that decides an alert, at the agent, to the alert on the page's WebSocket."""

import json
import tempfile
from pathlib import Path

import numpy as np

from gateway.simulate.demo import DemoOptions, run_demo

DURATION_S = 180.0
"""The simulator's script `latency` has a pause every 8 s. The 95th percentile of its 22 alerts is not the maximum."""


def measure() -> dict[str, float]:
    """Returns latencies in ms over all alerts of three minutes, through three processes, a broker and two databases."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "out.json"
        run_demo(DemoOptions(DURATION_S, 0, None, result, script="latency"))
        latencies = [alert["latency_ms"] for alert in json.loads(result.read_text())["alerts"]]
    p50, p95 = np.percentile(latencies, (50, 95))
    return {"alerts": len(latencies), "p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1), "max_ms": max(latencies)}

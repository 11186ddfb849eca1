"""Measures the CPU time of the agent's analysis for one second of one ECG sensor: `python -m benchmarks.chain_cost`.

Detection, models and rules run on one thread. CPU time is not affected by other work on the machine. The agent may
take at most 1 ms.
"""

import json
import os
import time
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from captures import open_recording
from config.limits import DEFAULT_LIMITS
from evaluation.records import annotated_headers
from evaluation.resampling import resampled
from gateway.models import load_models
from models.analysis import EcgAnalysis
from models.inference.models import Models

RESULT: Final = Path("build") / "chain_cost.json"

RATES_HZ: Final = (130.0, 250.0, 500.0)
CHUNK: Final = 73
"""Samples in one notification of a chest strap."""
WARM_S: Final = 60.0
"""Analysed before the measurement starts: caches fill, and models run for the first time."""
MEASURED_S: Final = 600.0
RECORDS: Final = ("101", "106", "203", "208", "223")
"""Quiet sinus rhythm, bigeminy, AF with runs, ventricular and fusion beats: the most expensive rhythms are among them."""


def released_models() -> Models:
    """Returns the released models, loaded as in the agent."""
    return load_models()


def measure(data: Path, models: Models) -> dict[str, dict[str, float]]:
    """Returns milliseconds of CPU time per second of ECG, by sampling rate: mean and maximum over the records."""
    headers = dict(annotated_headers(data))
    chosen = [headers[name] for name in RECORDS if name in headers] or list(headers.values())[: len(RECORDS)]
    recordings = [open_recording(header) for header in chosen]
    result = {}
    for rate_hz in RATES_HZ:
        costs = []
        for recording in recordings:
            cut = recording.mv[: round((WARM_S + MEASURED_S) * recording.rate_hz)]
            costs.append(
                _cpu_ms_per_s(EcgAnalysis(rate_hz, DEFAULT_LIMITS, models), resampled(cut, recording.rate_hz, rate_hz), rate_hz)
            )
        result[f"{rate_hz:g} Hz"] = {"mean_ms": round(float(np.mean(costs)), 3), "max_ms": round(max(costs), 3)}
    return result


def _cpu_ms_per_s(analysis: EcgAnalysis, mv: np.ndarray[tuple[int], np.dtype[np.float64]], rate_hz: float) -> float:
    warm = round(WARM_S * rate_hz)
    for start in range(0, warm, CHUNK):
        analysis.push(mv[start : min(start + CHUNK, warm)])
    began = time.process_time()
    for start in range(warm, mv.size, CHUNK):
        analysis.push(mv[start : start + CHUNK])
    return 1e3 * (time.process_time() - began) / ((mv.size - warm) / rate_hz)


def main() -> None:
    """Prints the figures and writes `build/chain_cost.json`."""
    data = Path(os.environ.get("PULSEGATE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    models = released_models()
    running = [model.name for model in (models.rr_af, models.ecg_rhythm, models.ecg_beat, models.ecg_quality) if model]
    console = Console()
    console.print(f"with {', '.join(running) or 'rules alone'}")
    result = measure(data, models)
    for rate, cost in result.items():
        console.print(
            f"{rate}: {cost['mean_ms']} ms of CPU time per second of ECG (most expensive record: {cost['max_ms']} ms)"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"models": running, **result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

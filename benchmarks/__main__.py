"""Runs every benchmark and writes `build/bench.json`."""

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import alert_latency, chain_cost, model_cost, replay_speed

RESULT = Path("build") / "bench.json"


def main() -> None:
    """Runs the benchmarks and prints each figure as soon as it is measured."""
    console = Console(soft_wrap=True)
    figures: dict[str, Any] = {}
    console.print("Alert latency from notification to page, over 3 minutes of a simulated patient")
    figures["alert_latency"] = alert_latency.measure()
    console.print(figures["alert_latency"])
    console.print("One inference of each model, fastest run, and its ratio to a matrix product")
    figures["model_cost"] = model_cost.measure()
    console.print(figures["model_cost"])
    recordings = Path(os.environ.get("PULSEGATE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if recordings.is_dir():
        console.print("Replay of 30-minute records, process start included")
        figures["replay_speed"] = replay_speed.measure(recordings)
        console.print(figures["replay_speed"])
        console.print("Detection, models and rules: CPU time per second of ECG, one thread")
        figures["chain_cost"] = chain_cost.measure(recordings, chain_cost.released_models())
        console.print(figures["chain_cost"])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {RESULT}")


if __name__ == "__main__":
    main()

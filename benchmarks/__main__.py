"""Runs every benchmark and writes `build/bench.json`."""

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import alert_latency, at_once, chain_cost, model_cost, notification_cost, replay_speed

RESULT = Path("build") / "bench.json"
SECONDS = 60.0
"""Of each agent in `notification_cost`."""


def measure_notifications() -> dict[str, Any]:
    """Returns what a notification costs the agent, and how many times as much an advertisement costs Theengs."""
    found: dict[str, Any] = {"at_once": at_once.measure(), "in_real_time": notification_cost.measure(SECONDS)}
    theengs = notification_cost.measure_theengs(SECONDS)
    if theengs is not None:
        ours_us = found["at_once"]["cpu_us_per_notification"]
        paced_us = found["in_real_time"]["hr-20"]["cpu_us_per_notification"]
        found["theengs"] = theengs
        found["times_theengs_scale_at_once"] = round(ours_us / theengs["scale"]["cpu_us_at_once"], 2)
        found["times_theengs_scale_at_20_a_second"] = round(paced_us / theengs["scale"]["cpu_us_at_20_a_second"], 2)
    return found


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
    console.print(f"Sensors in real time, {SECONDS:.0f} s each: CPU time, memory, latency; and a Theengs gateway beside them")
    figures["notification_cost"] = measure_notifications()
    console.print(figures["notification_cost"])
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

"""The agent's CPU time for each notification where they come one after the other, on virtual time.

    python -m benchmarks.at_once [--seconds N]

The whole agent, from the notification of a heart rate (no ECG to analyse) to the acknowledgement of its block: 20 sensors, one
notification a second each, a commit every 10 s. Its clinic runs in this process; its CPU time is not counted. The agent with 20
sensors whose payloads are made but not delivered is measured too, and subtracted: the sensors, the virtual radio, the status
file and the other timers are no notification's. MQTT is not in it: one message in 10 s.
"""

import argparse
import asyncio
import gc
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.in_process_clinic import HUB, SUBJECT, InProcessClinic
from benchmarks.made_sensors import MadeRadio
from config.endpoint import Endpoint
from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway.app import Agent
from gateway.clock import VirtualClock
from gateway.models import load_models
from gateway.virtual_time import VirtualTimeLoop
from sync.mqtt import Message

START_S: Final = 1_800_000_000
SENSORS: Final = 20
WARM_UP_S: Final = 35.0
RUNS: Final = 3
"""Of each agent, in turn. The median counts: other work on the machine makes single ones slower."""


class MeasuredClinic(InProcessClinic):
    """A clinic whose work for the agent takes `spent_s` of CPU time."""

    spent_s = 0.0

    def answer(self, message: Message) -> list[Message]:
        before_s = time.process_time()
        answers = super().answer(message)
        self.spent_s += time.process_time() - before_s
        return answers


def measure(seconds: float = 300.0) -> dict[str, float]:
    """Return the µs for each notification: the median, and the lowest and highest of `RUNS`."""
    costs_us: list[float] = []
    for _ in range(RUNS):
        idle_s, _ = _run("idle", seconds)
        busy_s, notifications = _run("hr", seconds)
        costs_us.append((busy_s - idle_s) / notifications * 1e6)
    low_us, median_us, high_us = (round(cost_us, 1) for cost_us in sorted(costs_us))
    return {"cpu_us_per_notification": median_us, "lowest": low_us, "highest": high_us}


def _run(sort: str, seconds: float) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_run_agent(Path(folder), sort, seconds))


async def _run_agent(folder: Path, sort: str, seconds: float) -> tuple[float, int]:
    """Run an agent with 20 sensors; return its CPU time in so many virtual seconds, and the notifications sent meanwhile."""
    data = folder / "agent"
    clinic, radio = MeasuredClinic(folder, data, START_S), MadeRadio()
    radio.names = [f"{sort}-{number}" for number in range(SENSORS)]
    sensors = tuple(SensorSettings(name, advertised_name=name) for name in radio.names)
    endpoint = ClinicSettings(Endpoint("127.0.0.1", 1883), clinic.registration)
    settings = Settings(HUB, SUBJECT, data, "made", endpoint, sensors, DEFAULT_LIMITS, upload="all")
    opened: Any = radio.opened
    clock = VirtualClock(asyncio.get_running_loop(), START_S * 1_000_000)
    agent = Agent(settings, clock, opened, lambda _: clinic.transport(), load_models(data))
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    await asyncio.sleep(WARM_UP_S)
    gc.collect()
    sent, elsewhere_s, before_s = radio.sent, clinic.spent_s, time.process_time()
    await asyncio.sleep(seconds)
    busy_s = time.process_time() - before_s - (clinic.spent_s - elsewhere_s)
    sent = radio.sent - sent
    if abs(sent - SENSORS * seconds) > SENSORS:
        raise RuntimeError(f"{sent} notifications were sent, not {SENSORS * seconds:.0f}")
    stop.set()
    await running
    clinic.close()
    return busy_s, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(measure(arguments.seconds)) + "\n")


if __name__ == "__main__":
    main()

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
from typing import Any, Final, NoReturn

from benchmarks.made_sensors import MadeRadio
from cloud.folder import ClinicFolder
from cloud.ingest import handle_message
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, register_hub
from cloud.registry import Registry
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from config.endpoint import Endpoint
from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway.app import Agent
from gateway.clock import VirtualClock
from gateway.models import load_models
from gateway.startup import DEVICE_PUBLIC_FILE, load_device_key
from gateway.virtual_time import VirtualTimeLoop
from sync.mqtt import Connected, Message, MqttEvent
from sync.wire import ack_topic

HUB: Final = "hub-1"
SUBJECT: Final = "subject-1"
START_S: Final = 1_800_000_000
SENSORS: Final = 20
WARM_UP_S: Final = 35.0
RUNS: Final = 3
"""Of each agent, in turn. The median counts: other work on the machine makes single ones slower."""


class Clinic:
    """The agent's transport, and the clinic's ingest behind it. `spent_s` is its CPU time."""

    def __init__(self, folder: ClinicFolder) -> None:
        self.store = Store.open(folder.blocks)
        self.spent_s = 0.0
        self._registry = Registry(folder.hubs, time.monotonic)
        self._key = SigningKeys.load(folder.path).acknowledgement
        self._events: asyncio.Queue[MqttEvent] = asyncio.Queue()

    async def run(self) -> NoReturn:
        self._events.put_nowait(Connected())
        await asyncio.Event().wait()
        raise AssertionError

    async def publish(self, topic: str, payload: bytes) -> None:
        before_s = time.process_time()
        ack, _, _ = handle_message(self.store, self._registry, self._key, Message(topic, payload), START_S * 1_000_000)
        self.spent_s += time.process_time() - before_s
        assert ack is not None
        self._events.put_nowait(Message(ack_topic(HUB), ack))

    async def receive(self) -> MqttEvent:
        return await self._events.get()


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
    clinic_folder, data = ClinicFolder(folder / "clinic"), folder / "agent"
    data.mkdir()
    load_device_key(data)
    request = RegistrationRequest(HUB, data / DEVICE_PUBLIC_FILE, SUBJECT, START_S, BACKUP_INTERVAL_H)
    register_hub(clinic_folder, request, START_S).save(folder / "registration.toml")
    clinic, radio = Clinic(clinic_folder), MadeRadio()
    radio.names = [f"{sort}-{number}" for number in range(SENSORS)]
    sensors = tuple(SensorSettings(name, advertised_name=name) for name in radio.names)
    endpoint = ClinicSettings(Endpoint("127.0.0.1", 1883), folder / "registration.toml")
    settings = Settings(HUB, SUBJECT, data, "made", endpoint, sensors, DEFAULT_LIMITS, upload="all")
    opened: Any = radio.opened
    clock = VirtualClock(asyncio.get_running_loop(), START_S * 1_000_000)
    agent = Agent(settings, clock, opened, lambda _: clinic, load_models(data))
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
    clinic.store.close()
    return busy_s, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(measure(arguments.seconds)) + "\n")


if __name__ == "__main__":
    main()

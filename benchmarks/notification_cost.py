"""The agent's CPU time for each notification, from its arrival to the clinic's acknowledgement, its memory and its latencies.

    python -m benchmarks.notification_cost [--seconds N]

Runs a clinic in a process of its own and, one after the other in new processes, agents with made-up sensors that notify in real
time: 20 heart-rate sensors (no ECG to analyse), 20 and 50 straps with ECG and heart rate, 20 straps beside ten oximeters. Where
`build/theengs` exists (`make bench` installs it), a Theengs gateway publishes as many advertisements to the same broker.

What is counted is the CPU time of all threads of the agent's process, without that of an agent whose sensors send nothing: from
the call of the notification's handler to the acknowledgement applied, with MQTT. The sensors and the radio make their payloads
in both. Arrivals at 20 a second find cold caches; `benchmarks.at_once` measures the same on virtual time, one after the other.
"""

import argparse
import asyncio
import json
import math
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

THEENGS: Final = Path("build") / "theengs" / "bin" / "python"
START_LIMIT_S: Final = 60.0
WARM_UP_S: Final = 15.0
"""Connections, first commits and the models' first inferences are over."""
KINDS: Final = {
    "idle": ("idle", 20, 0),
    "hr-20": ("hr", 20, 0),
    "ecg-20": ("ecg", 20, 0),
    "ecg-20 and spots": ("ecg", 20, 10),
    "ecg-50": ("ecg", 50, 0),
}
"""Sort and number of the sensors, and of oximeters beside them."""


def measure(seconds: float) -> dict[str, Any]:
    """Return the figures of each kind of agent. What an agent costs whose sensors send nothing is no notification's."""
    figures = {kind: _measure_agent(kind, seconds) for kind in KINDS}
    for figure in figures.values():
        own_s = (figure["share_of_a_core"] - figures["idle"]["share_of_a_core"]) * seconds
        figure["cpu_us_per_notification"] = round(own_s / max(figure["notifications"], 1) * 1e6, 1)
    return figures


def measure_theengs(seconds: float) -> Any:
    """Return the figures of a Theengs gateway; None where it is not installed."""
    if not THEENGS.exists():
        return None
    with tempfile.TemporaryDirectory() as name, _clinic(Path(name)) as broker:
        command = [THEENGS, Path(__file__).with_name("theengs_gateway.py"), broker["host"], str(broker["port"]), str(seconds)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _measure_agent(kind: str, seconds: float) -> Any:
    with tempfile.TemporaryDirectory() as name, _clinic(Path(name)) as broker:
        folder = Path(name)
        _write_settings(folder, kind, broker)
        _run("gateway.cli", "identity", "--config", folder / "agent.toml")
        hub = ("--hub", "hub-1", "--hub-key", folder / "agent" / "device.pub", "--subject", "subject-1")
        _run("cloud.cli", "register", "--data", folder / "clinic", *hub, "--out", folder / "registration.toml")
        agent = ("benchmarks.notification_cost", "--agent", folder, "--seconds")
        _run(*agent, 0)  # the very first start creates the buffer, which takes more memory
        return json.loads(_run(*agent, seconds).splitlines()[-1])


def _run(module: str, *arguments: object) -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr}")
    return done.stdout


@contextmanager
def _clinic(folder: Path) -> Iterator[dict[str, Any]]:
    """Run a clinic; yield the address of its broker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "cloud.cli",
        "dev",
        "--data",
        str(folder / "clinic"),
        "--port",
        "0",
        "--mqtt-port",
        str(port),
    ]
    with (folder / "clinic.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while not (folder / "clinic" / "clinic.json").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "clinic.log").read_text())
                time.sleep(0.1)
            yield {"host": "127.0.0.1", "port": port}
        finally:
            process.terminate()
            process.wait()


def _write_settings(folder: Path, kind: str, broker: dict[str, Any]) -> None:
    name, count, oximeters = KINDS[kind]
    sensors = [f"{name}-{number}" for number in range(count)] + [f"oximeter-{number}" for number in range(oximeters)]
    tables = "".join(f'[[sensor]]\nname = "{sensor}"\nadvertised_name = "{sensor}"\n' for sensor in sensors)
    (folder / "agent.toml").write_text(
        f'hub = "hub-1"\nsubject = "subject-1"\ndata = "agent"\nradio = "bluetooth"\n'
        f'[clinic]\nhost = "{broker["host"]}"\nport = {broker["port"]}\nregistration = "registration.toml"\n{tables}'
    )


async def _run_agent(folder: Path, seconds: float) -> dict[str, Any]:
    """Run the agent in this process; return its figures over `seconds`."""
    from benchmarks.made_sensors import MadeRadio  # noqa: PLC0415  Bumble's absence would be measured as the agent's memory
    from config.settings import load_settings  # noqa: PLC0415
    from gateway.app import Agent, make_mqtt_transport  # noqa: PLC0415
    from gateway.clock import SystemClock  # noqa: PLC0415
    from gateway.models import load_models  # noqa: PLC0415

    settings = load_settings(folder / "agent.toml", {})
    radio: Any = MadeRadio()
    radio.names = [sensor.name for sensor in settings.sensors]
    latencies = Latencies()
    agent = Agent(settings, SystemClock(), radio.opened, make_mqtt_transport, load_models(settings.data))
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    await asyncio.sleep(WARM_UP_S if seconds else 1)
    before = radio.sent
    latencies.watch()
    busy_s = await _cpu_during(seconds)
    notifications = radio.sent - before
    status_file = settings.data / "status.json"
    while not status_file.exists():
        await asyncio.sleep(0.1)
    status = json.loads(status_file.read_text())
    stop.set()
    await running
    return {
        "notifications": notifications,
        "share_of_a_core": round(busy_s / max(seconds, 1), 4),
        "rss_mb": round(_memory_mb("VmRSS"), 1),
        "rss_peak_mb": round(_memory_mb("VmHWM"), 1),
        **latencies.figures(),
        "dropped": status["notifications_dropped"],
        "pending": status["blocks_pending"],
        "loop_stalls": status["loop_stalls"],
    }


class Latencies:
    """How long alerts and spot readings of an agent in this process take from arrival to the end of their transaction."""

    def __init__(self) -> None:
        self._ms: dict[str, list[float]] = {"alert": [], "spot_reading": []}

    def watch(self) -> None:
        """Measure from now on. The arrival times are in the records; a batch is encoded and then stored by one thread."""
        from gateway import recorder  # noqa: PLC0415
        from sync.outbox import Outbox  # noqa: PLC0415
        from sync.records import AlertRecord, VitalRecord  # noqa: PLC0415

        encode, put_many, arrivals = vars(recorder)["_encode_batch"], Outbox.put_many, list[tuple[str, int]]()

        def watched_encode(pending: Any, state: Any) -> Any:
            for _, record in pending:
                if isinstance(record, AlertRecord):
                    arrivals.append(("alert", record.decided_us))
                elif isinstance(record, VitalRecord) and record.origin is not None:
                    arrivals.append(("spot_reading", record.times.arrived_us))
            return encode(pending, state)

        def watched_put(*arguments: Any, **options: Any) -> Any:
            result = put_many(*arguments, **options)
            for kind, arrived_us in arrivals:
                self._ms[kind].append(time.time_ns() / 1e6 - arrived_us / 1e3)
            arrivals.clear()
            return result

        vars(recorder)["_encode_batch"] = watched_encode
        Outbox.put_many = watched_put  # type: ignore[method-assign]

    def figures(self) -> dict[str, float]:
        """Return number, median and 99th percentile in ms of each sort that was stored."""
        return {
            f"{kind}_{name}": figure
            for kind, found in self._ms.items()
            if found
            for name, figure in (
                ("count", len(found)),
                ("to_durable_ms_p50", round(sorted(found)[len(found) // 2], 1)),
                ("to_durable_ms_p99", round(sorted(found)[math.ceil(len(found) * 0.99) - 1], 1)),
            )
        }


async def _cpu_during(seconds: float) -> float:
    before = time.process_time()
    await asyncio.sleep(seconds)
    return time.process_time() - before


def _memory_mb(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agent", type=Path)
    arguments = parser.parse_args()
    if arguments.agent:
        sys.stdout.write(json.dumps(asyncio.run(_run_agent(arguments.agent, arguments.seconds))) + "\n")
        return
    sys.stdout.write(json.dumps(measure(arguments.seconds), indent=2) + "\n")


if __name__ == "__main__":
    main()

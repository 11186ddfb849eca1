"""The agent's CPU time for each notification, from its arrival to the clinic's acknowledgement, and its memory.

    python -m benchmarks.notification_cost [--seconds N]

Runs a clinic in a process of its own and, one after the other in new processes, agents with made-up sensors that notify in real
time: 20 heart-rate sensors (no ECG to analyse), 20 and 50 straps with ECG and heart rate, one of them beside ten cuffs.
"""

import argparse
import asyncio
import json
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
    agent = Agent(settings, SystemClock(), radio.opened, make_mqtt_transport, load_models(settings.data))
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    await asyncio.sleep(WARM_UP_S if seconds else 1)
    before = radio.sent
    busy_s = await _cpu_during(seconds)
    notifications = radio.sent - before
    status = json.loads((settings.data / "status.json").read_text())
    stop.set()
    await running
    return {
        "notifications": notifications,
        "share_of_a_core": round(busy_s / max(seconds, 1), 4),
        "rss_mb": round(_rss_mb(), 1),
        "dropped": status["notifications_dropped"],
        "pending": status["blocks_pending"],
        "loop_stalls": status["loop_stalls"],
    }


async def _cpu_during(seconds: float) -> float:
    before = time.process_time()
    await asyncio.sleep(seconds)
    return time.process_time() - before


def _rss_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
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

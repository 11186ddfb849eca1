"""A process that does the work of `pulsegate run` with 20 ECG sensors and prints its memory use; run by `test_memory.py`.

Its only argument is a folder that contains `hub.key`, `device.key`, `registration.toml` and the `buffer.db` of an earlier
start, because the very first start needs more memory for the migration. It also contains `ecg.int16`, the samples of all
sensors for each second. They come from outside the process, like those of real sensors.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import bleak.backends.bluezdbus.client
import bleak.backends.bluezdbus.scanner
import numpy as np

import gateway.cli
from config.limits import DEFAULT_LIMITS
from drivers.readings import Waveform
from drivers.registry import load_drivers
from gateway.app import make_mqtt_transport
from gateway.buffer_alert import BufferAlert
from gateway.clock import SystemClock
from gateway.models import LoadedModels, load_models
from gateway.pipeline import Pipeline
from gateway.radio import open_radio
from gateway.recorder import COMMIT_INTERVAL_S, Recorder
from gateway.timeline import Arrival
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.registration import Registration
from sync.signing import SigningKey, Use

SENSORS, SECONDS, RATE_HZ, SCALE_MV = 20, 75, 250, 0.005
START_US = 1_800_000_000_000_000
IMPORTED = (bleak, gateway.cli, load_drivers, make_mqtt_transport, open_radio)
"""Modules of the agent that count towards its memory although this program does not use them."""
FORBIDDEN = ("scipy", "wfdb", "torch", "onnx", "pandas", "sqlite_utils", "bumble", "fastapi", "rich", "numpy.ma")


T = TypeVar("T")


class Worker:
    """One thread, like those of the agent for the analysis and for the buffer."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


ACCELERATION = [Waveform(f"acc_{axis}", tuple(range(900, 925)), 25.0, 1.0, last_ns=0) for axis in "xyz"]
"""A second of each axis."""


async def run(folder: Path, models: LoadedModels) -> dict[str, float]:
    """Processes all sensors second by second and writes them at the agent's interval; returns the memory use at the end."""
    outbox = Outbox.open(
        folder / "buffer.db",
        hub="hub-1",
        subject="subject-1",
        keys=HubKeys(HubKey.load_or_create(folder / "hub.key"), SigningKey.load(folder / "device.key", Use.DEVICE)),
        registration=Registration.load(folder / "registration.toml", "hub-1"),
        clock=lambda: START_US // 1_000_000,
    )
    run_on_analysis_thread, recorder = Worker(), Recorder(outbox, Worker(), lambda: None, BufferAlert(SystemClock()))
    pipelines = [Pipeline(f"strap-{number}", DEFAULT_LIMITS, models) for number in range(SENSORS)]
    with (folder / "ecg.int16").open("rb") as samples:
        for second in range(SECONDS):
            arrival = Arrival(START_US + (second + 1) * 1_000_000, (second + 1) * 1_000_000_000)
            for pipeline in pipelines:
                frame = tuple(np.frombuffer(samples.read(2 * RATE_HZ), "<i2").tolist())
                wave = Waveform("ecg", frame, RATE_HZ, SCALE_MV, last_ns=arrival.mono_ns)
                output = await run_on_analysis_thread(pipeline.feed, [wave, *ACCELERATION], arrival)
                await recorder.add(output.records, {f"timeline {pipeline.sensor}": pipeline.state()})
            if (second + 1) % COMMIT_INTERVAL_S == 0:
                await recorder.flush()
    await recorder.flush()
    assert not recorder.counters.failed_writes
    result = memory_mb() | {"alerts": recorder.counters.alerts, "stored": outbox.statistics().stored}
    outbox.close()
    return result


def memory_mb() -> dict[str, float]:
    """The current and the peak resident memory, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}  # type: ignore[index]


def main() -> None:
    folder = Path(sys.argv[1])
    models = load_models(folder)
    result = {"loaded": memory_mb(), **asyncio.run(run(folder, models)), "models": models.status()}
    sys.stdout.write(json.dumps(result | {"forbidden": [name for name in FORBIDDEN if name in sys.modules]}) + "\n")

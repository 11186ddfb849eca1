"""A process that does what `pulsegate run` does with 20 ECG sensors, and prints what memory that took: for `test_memory.py`.

    python twenty_sensors.py FOLDER

The folder holds `hub.key`, `clinic.pub` and `buffer.db` of an earlier start: the first start of all pays for the migration. It
holds `ecg.int16` too, the samples of all sensors for each second: they come from outside, as those of real sensors do.
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
from gateway.app import mqtt_carrier
from gateway.models import LoadedModels, load_models
from gateway.pipeline import Pipeline
from gateway.radio import open_radio
from gateway.recorder import Recorder
from gateway.timeline import Arrival
from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicPublicKey

SENSORS, SECONDS, RATE_HZ, SCALE = 20, 75, 250, 0.005
START_US = 1_800_000_000_000_000
USED = (bleak, load_drivers, mqtt_carrier, open_radio)
FORBIDDEN = ("scipy", "wfdb", "torch", "onnx", "pandas", "sqlite_utils", "bumble", "fastapi", "rich")


T = TypeVar("T")


class Worker:
    """One thread, as the agent has for the analysis and for the buffer."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


async def run(folder: Path, models: LoadedModels) -> dict[str, float]:
    """All sensors, a second at a time, written each second as the agent does; the memory at the end."""
    outbox = Outbox.open(
        folder / "buffer.db",
        hub="hub-1",
        subject="subject-1",
        hub_key=HubKey.load_or_create(folder / "hub.key"),
        clinic=ClinicPublicKey.load(folder / "clinic.pub"),
        clock=lambda: START_US // 1_000_000,
    )
    on_analysis, recorder = Worker(), Recorder(outbox, Worker(), lambda: None)
    pipelines = [Pipeline(f"strap-{number}", DEFAULT_LIMITS, models) for number in range(SENSORS)]
    with (folder / "ecg.int16").open("rb") as samples:
        for second in range(SECONDS):
            arrival = Arrival(START_US + (second + 1) * 1_000_000, (second + 1) * 1_000_000_000)
            for pipeline in pipelines:
                frame = tuple(np.frombuffer(samples.read(2 * RATE_HZ), "<i2").tolist())
                wave = Waveform("ecg", frame, RATE_HZ, SCALE, last_ns=arrival.mono_ns)
                output = await on_analysis(pipeline.feed, [wave], arrival)
                await recorder.add(output.records, {f"timeline {pipeline.sensor}": pipeline.state()})
            await recorder.flush()
    assert not recorder.counters.failed_writes
    found = memory() | {"alerts": recorder.counters.alerts, "stored": outbox.statistics().stored}
    outbox.close()
    return found


def memory() -> dict[str, float]:
    """Megabytes: resident now, and at most ever."""
    status = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}  # type: ignore[index]


def main() -> None:
    folder = Path(sys.argv[1])
    gateway.cli._parser()  # imports what the commands' arguments need
    models = load_models(folder)
    found = {"loaded": memory(), **asyncio.run(run(folder, models)), "models": models.status()}
    sys.stdout.write(json.dumps(found | {"forbidden": [name for name in FORBIDDEN if name in sys.modules]}) + "\n")


if __name__ == "__main__":
    main()

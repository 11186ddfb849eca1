"""Runs the agent for twelve virtual hours with twelve sensors; checks its memory, its tasks and the stalls of its loop.

    python -m benchmarks.twelve_hours FOLDER [--hours H]

One strap streams its ECG in the first twelfth of the time, two send their heart rate all the time, and nine are worn for a
minute in every twelfth. All of it is one process: sensors, Bluetooth stack, agent, ingest and store. Its memory is that of all
of them. The folder keeps the data, the log `twelve_hours.log` and the samples of every virtual minute, so that a stopped run
is continued with the same command: from the last minute, with a new agent on the same data folder.

A stall is CPU time of one callback of the agent in the loop, without the work that a live agent does on its worker threads, and
without that of the clinic, which runs in this process.
The exit status is 0 if no callback of the agent took over 50 ms, no task was left and the memory was flat.
"""

import argparse
import asyncio
import gc
import json
import logging
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

import numpy as np
from bumble.att import Attribute
from bumble.core import UUID, AdvertisingData
from bumble.gatt import Characteristic, Service
from rich.console import Console
from rich.progress import Progress

from benchmarks.in_process_clinic import HUB, SUBJECT, InProcessClinic
from config.endpoint import Endpoint
from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway.app import Agent
from gateway.clock import VirtualClock
from gateway.models import load_models
from gateway.radio import Radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from gateway.simulate.heart import from_script
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script
from gateway.simulate.strap import Strap
from gateway.status import STALL_S
from gateway.virtual_time import VirtualTimeLoop
from sync.mqtt import Message

START_S: Final = 1_800_000_000
START_US: Final = START_S * 1_000_000
PARTS: Final = 12
"""The ECG lasts one part of the time, and every sensor that is worn now and then is worn once in each."""
WORN_S: Final = 60.0
ADDRESSES: Final = tuple(f"C0:DE:00:00:01:{number:02X}" for number in range(12))
ECG, CONTINUOUS, OCCASIONAL = ADDRESSES[0], ADDRESSES[1:3], ADDRESSES[3:]
MAX_SLOPE_MB_PER_H: Final = 0.5
"""Of the resident memory after the ECG has ended. A leak of 100 bytes for each heart rate would be 0.7 MB/h."""
MIN_SLOPE_SPAN_H: Final = 3.0
"""A shorter run shows the allocator, not a leak."""
ROOT: Final = Path(__file__).parents[1]

log = logging.getLogger("twelve_hours")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class MeasuredLoop(VirtualTimeLoop):
    """Virtual time; adds up the CPU time of the work that a live agent does on its worker threads, and of the clinic."""

    worker_s = 0.0

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        with self.elsewhere():
            return super().run_in_executor(executor, func, *args)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Work that a live agent does not do in its loop."""
        started_s = time.thread_time()
        try:
            yield
        finally:
            self.worker_s += time.thread_time() - started_s


@dataclass(slots=True)
class Stalls:
    """The callbacks of the agent that took longest, and those over the limit."""

    longest_ms: float = 0.0
    longest: str = ""
    over_limit: list[str] = field(default_factory=list)

    def add(self, name: str, cpu_s: float) -> None:
        if cpu_s * 1000 > self.longest_ms:
            self.longest_ms, self.longest = cpu_s * 1000, name
        if cpu_s > STALL_S:
            self.over_limit.append(f"{name}: {cpu_s * 1000:.0f} ms")


@contextmanager
def measuring_callbacks(loop: MeasuredLoop, stalls: Stalls) -> Iterator[None]:
    """Measures every callback that the loop runs within the context."""
    run = asyncio.Handle._run

    def measured_run(handle: Any) -> None:
        started_s, worker_s = time.thread_time(), loop.worker_s
        run(handle)
        cpu_s = time.thread_time() - started_s - (loop.worker_s - worker_s)
        if cpu_s > stalls.longest_ms / 1000 or cpu_s > STALL_S:
            name = _own_code(handle)
            if name:
                stalls.add(name, cpu_s)

    asyncio.Handle._run = measured_run  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


def _own_code(handle: Any) -> str:
    """The name of the agent's code that a handle ran; empty for the simulated sensors, the Bluetooth stack and this program."""
    callback = handle._callback
    task = getattr(callback, "__self__", None)
    runs = task.get_coro() if isinstance(task, asyncio.Task) else getattr(callback, "__func__", callback)
    code = getattr(runs, "cr_code", None) or getattr(runs, "__code__", None)
    path = Path(code.co_filename) if code else Path()
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[:1] not in {("gateway",), ("sync",), ("drivers",)}:
        return ""
    return (
        ""
        if {"simulate", "radio"} & set(path.parts) or path.name == "virtual_time.py"
        else str(getattr(runs, "__qualname__", runs))
    )


class MeasuredClinic(InProcessClinic):
    """A clinic whose CPU time is counted apart from the agent's."""

    def answer(self, message: Message) -> list[Message]:
        with _measured_loop().elsewhere():
            return super().answer(message)


@asynccontextmanager
async def heart_rate_sensor(link: VirtualLink, address: str) -> AsyncIterator[None]:
    """A sensor that advertises and sends a heart rate every second to whoever subscribes."""
    device = make_device(link, address, "Pulse")
    rate = Characteristic(UUID.from_16_bits(0x2A37), Characteristic.Properties.NOTIFY, Attribute.Permissions(0), b"")
    device.add_services([Service(UUID.from_16_bits(0x180D), [rate])])
    device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"Pulse")]))
    await device.power_on()
    await device.start_advertising(auto_restart=True)

    async def send() -> NoReturn:
        second = 0
        while True:
            await asyncio.sleep(1)
            second += 1
            await device.notify_subscribers(rate, bytes((0, 60 + second % 20)))

    async with _background(send()):
        yield
    link.remove_device(address)


@asynccontextmanager
async def ecg_strap(link: VirtualLink, folder: Path) -> AsyncIterator[None]:
    """A strap that streams the demo's ECG."""
    loop = asyncio.get_running_loop()
    device = make_device(link, ECG, "Virtual H10", folder / "strap-bonds.json")
    await device.power_on()
    with Journal(folder / "strap.jsonl", "twelve-hours") as journal:
        clock = SensorClock.set_to((START_US + round(loop.time() * 1e6)) * 1000, loop.time())
        playback = Playback(from_script(load_script("demo")), clock, journal)
        async with _background(Strap(device, playback, lambda _event: None).run()):
            yield
    link.remove_device(ECG)


@asynccontextmanager
async def _background(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _wear(link: VirtualLink, address: str, part_s: float, delay_s: float) -> NoReturn:
    """Wears a sensor for a minute in every part of the time, or for half of a short part."""
    worn_s = min(WORN_S, part_s / 2)
    await asyncio.sleep(delay_s)
    while True:
        async with heart_rate_sensor(link, address):
            await asyncio.sleep(worn_s)
        await asyncio.sleep(part_s - worn_s)


@dataclass(slots=True)
class Day:
    """One run in a folder, from virtual minute `first` to the end."""

    folder: Path
    hours: float
    progress: Progress
    first: int = 0
    stalls: Stalls = field(default_factory=Stalls)
    samples: list[dict[str, float]] = field(default_factory=list)
    """Of this run: hour, resident memory in MB, and tasks."""
    left: list[str] = field(default_factory=list)

    async def run(self) -> None:
        clinic = MeasuredClinic(self.folder, self.folder / "agent", START_S)
        link, part_s = VirtualLink(), self.hours * 3600 / PARTS
        before = asyncio.all_tasks()
        with measuring_callbacks(_measured_loop(), self.stalls):
            async with AsyncExitStack() as sensors:
                await sensors.enter_async_context(_background(self._play_ecg(link, part_s)))
                for address in CONTINUOUS:
                    await sensors.enter_async_context(heart_rate_sensor(link, address))
                for number, address in enumerate(OCCASIONAL):
                    delay_s = number * part_s / 2 / len(OCCASIONAL)
                    await sensors.enter_async_context(_background(_wear(link, address, part_s, delay_s)))
                await self._run_agent(link, clinic)
        await asyncio.sleep(1)
        self.left = sorted(task.get_name() for task in asyncio.all_tasks() - before)
        clinic.close()

    async def _play_ecg(self, link: VirtualLink, part_s: float) -> None:
        """Streams the ECG in the first part, or what is left of it."""
        left_s = part_s - self.first * 60
        if left_s > 0:
            async with ecg_strap(link, self.folder):
                await asyncio.sleep(left_s)

    async def _run_agent(self, link: VirtualLink, clinic: MeasuredClinic) -> None:
        names = (f"sensor-{number}" for number in range(len(ADDRESSES)))
        sensors = tuple(SensorSettings(name, address=address) for name, address in zip(names, ADDRESSES, strict=True))
        endpoint = ClinicSettings(Endpoint("127.0.0.1", 1883), clinic.registration)
        settings = Settings(
            HUB, SUBJECT, self.folder / "agent", "virtual:in-process", endpoint, sensors, DEFAULT_LIMITS, upload="all"
        )

        @asynccontextmanager
        async def open_radio(_spec: str, keys: Path) -> AsyncIterator[Radio]:
            async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS, keys) as radio:
                yield radio

        clock = VirtualClock(asyncio.get_running_loop(), START_US + self.first * 60_000_000)
        agent = Agent(settings, clock, open_radio, lambda _: clinic.transport(), load_models(settings.data))
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        try:
            await self._sample_minutes(running)
        finally:
            stop.set()
            await asyncio.wait([running])
        running.result()

    async def _sample_minutes(self, agent: asyncio.Task[None]) -> None:
        minutes = round(self.hours * 60)
        task = self.progress.add_task("virtual minutes", total=minutes, completed=self.first)
        with (self.folder / "minutes.jsonl").open("a") as file:
            for minute in range(self.first + 1, minutes + 1):
                await asyncio.wait([agent], timeout=60)
                if agent.done():
                    agent.result()
                    raise RuntimeError("the agent ended by itself: see its log")
                sample = {"hour": minute / 60, "mb": resident_mb(), "tasks": float(len(asyncio.all_tasks()))}
                self.samples.append(sample)
                file.write(json.dumps({"minute": minute, **sample}) + "\n")
                file.flush()
                self.progress.update(task, completed=minute)
                if minute % 60 == 0:
                    log.info(
                        "hour %d: %.1f MB, %d tasks, longest callback %.1f ms",
                        minute // 60,
                        *list(sample.values())[1:],
                        self.stalls.longest_ms,
                    )

    def slope_mb_per_h(self) -> float | None:
        """The slope of the memory after the ECG; None where this run is too short to show one."""
        after = [(sample["hour"], sample["mb"]) for sample in self.samples if sample["hour"] > 2 * self.hours / PARTS]
        if not after or after[-1][0] - after[0][0] < MIN_SLOPE_SPAN_H:
            return None
        hours, megabytes = np.array(after).T
        return float(np.polyfit(hours, megabytes, 1)[0])

    def result(self) -> dict[str, Any]:
        tasks = [sample["tasks"] for sample in self.samples]
        return {
            "hours": self.hours,
            "resumed_at_hour": self.first / 60,
            "mb_last": self.samples[-1]["mb"] if self.samples else None,
            "slope_mb_per_h": self.slope_mb_per_h(),
            "tasks_max": max(tasks, default=0),
            "tasks_left": self.left,
            "longest_callback_ms": round(self.stalls.longest_ms, 1),
            "longest_callback": self.stalls.longest,
            "stalls": self.stalls.over_limit,
        }


def _measured_loop() -> MeasuredLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MeasuredLoop)
    return loop


def resident_mb() -> float:
    """The resident memory of this process that is not backed by files, after a collection of garbage."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def _last_minute(folder: Path) -> int:
    path = folder / "minutes.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["minute"]) if lines else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.twelve_hours", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder for the data, the log and the progress")
    parser.add_argument("--hours", type=float, default=12.0, help="virtual time (default: %(default)s)")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, filename=folder / "twelve_hours.log", format="%(asctime)s %(name)s: %(message)s")
    for noisy in ("bumble", "asyncio", "gateway.session"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    with Progress(console=Console(stderr=True)) as progress:
        day = Day(folder, arguments.hours, progress, _last_minute(folder))
        with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
            runner.run(day.run())
    result = day.result()
    log.info("%s", result)
    print(json.dumps(result))
    slope = result["slope_mb_per_h"]
    is_flat = slope is None or slope <= MAX_SLOPE_MB_PER_H
    return 0 if is_flat and not result["tasks_left"] and not result["stalls"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Runs the agent with twelve emulated sensors and random faults for three virtual days, and accounts for everything sent.

    python -m benchmarks.soak FOLDER [--hours H] [--faults N] [--seed S]
    python -m benchmarks.soak FOLDER --ecg

An ECG strap is worn for an hour a day, two heart-rate straps all the time; nine spot devices measure every 45 minutes, and
shortly before each of their faults. With `--ecg`, twelve ECG straps stream for 30 virtual minutes instead.

The run is made of parts of at most six virtual hours. After each part, the sensors' journals are compared with the clinic's
store, and the result is appended to `soak.jsonl` in the folder. A stopped run is continued with the same command, from the end
of the last whole part and with the same hub, bonds and clinic. A second process shows nothing new: one core does it all.
The exit status is 0 if everything that was sent is explained, no time is wrong without saying so, few times are doubtful, no
sensor still keeps a result, no task was left, and the memory did not grow: see `find_failures`.
"""

import argparse
import json
import logging
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.sensor_testbed import START_US, STRAP, Plan, Report, SensorTestbed, make_unused_sensors
from benchmarks.twelve_hours import resident_mb
from benchmarks.virtual_hub import PAIRING_DELAY_S
from gateway import virtual_time
from gateway.models import load_models
from gateway.simulate.scenario import Fault, draw_faults
from gateway.simulate.sensor_audit import SensorAudit

FAMILIES: Final[Mapping[str, str]] = {
    "ecg": STRAP,
    "rate-1": "heart-rate",
    "rate-2": "heart-rate",
    "cuff": "cuff",
    "cuff-and": "cuff-and",
    "cuff-medisana": "cuff-medisana",
    "oximeter-1": "oximeter",
    "oximeter-2": "oximeter",
    "scale": "scale",
    "scale-broadcast": "scale-broadcast",
    "thermometer": "thermometer",
    "watch": "watch",
}
ECG_FAMILIES: Final[Mapping[str, str]] = {f"ecg-{number}": STRAP for number in range(1, 13)}
PART_S: Final = 6 * 3600.0
DAY_S: Final = 24 * 3600.0
WORN_S: Final = 3600.0
"""How long the ECG strap is worn each day, from the beginning of the day."""
EXTRA_ECG_FAULTS: Final = 12
"""Faults of the ECG strap while it is worn, beside those that are drawn for all sensors."""
INTERVAL_S: Final = 2700.0
"""Time between two uses of a spot device."""
LEAD_S: Final = (0.05, 8.0)
"""How long before a fault its spot device is used, so that the fault meets it at work."""
FIRST_S: Final = 60.0
"""Nothing fails before."""
QUIET_S: Final = 840.0
"""Nothing fails at the end of a part, so that everything can still be sent: a forgotten bond takes two minutes to renew."""
PROCESS_STARTED_S: Final = round(time.time())
MAX_DOUBTFUL_SHARE: Final = 0.02
"""The most results whose time is wrong and says so: one fault in ten is of a clock, most of these clocks can be read, and the
link must fail at the moment of a result."""
MAX_GROWTH_MB: Final = 24.0
"""The most that the process may grow after its first part with the ECG strap, which needs the most. What a part has in memory
is freed at its end, and what remains is fragmentation."""

log = logging.getLogger("soak")


@dataclass(frozen=True, slots=True)
class Soak:
    """What is run: for how long, how many faults are drawn, and from which seed."""

    seconds: float
    faults: int
    seed: int
    families: Mapping[str, str]

    @property
    def parts(self) -> int:
        return max(1, round(self.seconds / PART_S))

    async def make_plan(self, part: int) -> Plan:
        """Return what happens in a part. The same seed makes the same plan."""
        seconds, seed = self.seconds / self.parts, self.seed * 1000 + part
        rng = random.Random(seed)
        start_s = part * seconds
        quiet_s = min(QUIET_S, seconds / 2)
        sensors = make_unused_sensors(self.families)
        is_worn = start_s % DAY_S == 0
        if not is_worn:
            sensors.pop("ecg", None)
        faulty_s, count = seconds - quiet_s - FIRST_S, self.faults // self.parts
        drawn = [*draw_faults(sensors, seconds=faulty_s, count=count, seed=seed)]
        if is_worn and "ecg" in sensors:
            length_s = min(WORN_S, faulty_s)
            drawn += draw_faults({"ecg": sensors["ecg"]}, seconds=length_s, count=EXTRA_ECG_FAULTS, seed=seed + 1)
        faults = [Fault(fault.at_s + FIRST_S, fault.kind, fault.sensor, fault.amount) for fault in drawn]
        return Plan(
            seconds,
            self.families,
            faults,
            self._uses(seconds, quiet_s, faults, rng),
            (0.0, min(WORN_S, seconds)) if is_worn else (float("inf"), float("inf")),
            START_US + round(start_s * 1e6),
            seed,
        )

    def _uses(
        self, seconds: float, quiet_s: float, faults: Sequence[Fault], rng: random.Random
    ) -> Mapping[str, Sequence[float]]:
        uses: dict[str, Sequence[float]] = {}
        for name, family in self.families.items():
            if family in (STRAP, "heart-rate"):
                continue
            phase_s = rng.uniform(0, min(INTERVAL_S, seconds - quiet_s))
            regular = [phase_s + INTERVAL_S * number for number in range(int((seconds - quiet_s - phase_s) / INTERVAL_S) + 1)]
            before = [fault.at_s - rng.uniform(*LEAD_S) for fault in faults if fault.sensor == name]
            last = [between_restarts(seconds - quiet_s), between_restarts(seconds - quiet_s / 2)]
            uses[name] = sorted((*regular, *before, *last))
        return uses


def between_restarts(at_s: float) -> float:
    """Return a time near `at_s`, midway between those at which the agent may restart because of a forgotten bond."""
    return (at_s // PAIRING_DELAY_S + 0.5) * PAIRING_DELAY_S


def run_part(soak: Soak, part: int, folder: Path, progress: Progress, task: Any) -> dict[str, Any]:
    """Run a part in `folder`/work, which becomes `folder`/state; return its result for the log."""
    work, state = folder / "work", folder / "state"
    shutil.rmtree(work, ignore_errors=True)
    if state.exists():
        shutil.copytree(state, work)
    started_s, started_cpu_s = time.monotonic(), time.process_time()

    async def run() -> tuple[Plan, Report]:
        plan = await soak.make_plan(part)
        models = load_models(work / "agent")
        testbed = SensorTestbed(work, plan, models, lambda: progress.advance(task, 60.0))
        return plan, await testbed.run()

    plan, report = virtual_time.run(run())
    result: dict[str, Any] = {
        "process": f"{os.getpid()} {PROCESS_STARTED_S}",
        "part": part,
        "virtual_s": plan.seconds,
        "real_s": round(time.monotonic() - started_s, 1),
        "cpu_s": round(time.process_time() - started_cpu_s, 1),
        "faults": dict(Counter(fault.kind for fault in plan.faults)),
        "agent_restarts": report.restarts,
        "tasks_left": report.tasks_left,
        "max_tasks": report.max_tasks,
        "records": len(report.records),
        "is_worn": plan.worn[0] < plan.seconds and "ecg" in plan.families,
        "sensors": {name: asdict(audit) for name, audit in report.audits.items()},
        "kept": sum(audit.pending for name, audit in report.audits.items() if plan.families[name] != "scale-broadcast"),
    }
    del plan, report
    result["mb"] = round(resident_mb(), 1)
    shutil.rmtree(state, ignore_errors=True)
    work.rename(state)
    with (folder / "soak.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    return result


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the parts."""
    total, faults = SensorAudit(), Counter[str]()
    for result in results:
        faults.update(result["faults"])
        for audit in result["sensors"].values():
            total.add(SensorAudit(**audit))
    virtual_s, real_s, cpu_s = (sum(result[name] for result in results) for name in ("virtual_s", "real_s", "cpu_s"))
    return {
        "virtual_hours": round(virtual_s / 3600, 2),
        "real_s": round(real_s, 1),
        "virtual_s_per_s": round(virtual_s / real_s, 1),
        "virtual_s_per_cpu_s": round(virtual_s / cpu_s, 1),
        "faults": sum(faults.values()),
        "faults_by_kind": dict(faults),
        **asdict(total),
        "agent_restarts": sum(result["agent_restarts"] for result in results),
        "tasks_left": [task for result in results for task in result["tasks_left"]],
        "max_tasks": max(result["max_tasks"] for result in results),
        "mb_by_part": [result["mb"] for result in results],
        "growth_mb": measure_growth_mb(results),
        "failures": find_failures(results, total),
        "passed": not find_failures(results, total),
    }


def find_failures(results: Sequence[Mapping[str, Any]], total: SensorAudit) -> list[str]:
    """Return what a run did not show, in words: nothing, if it passed.

    A part ends with two uses of every spot device in which nothing fails, so a result that a sensor still keeps is lost to the
    clinic: the hub had no reason not to fetch it.
    """
    return [
        *(["samples, values or results are unexplained, stored twice, backwards or late"] * (not total.passed)),
        *(["more times are doubtful than can be"] * (total.doubtful_times > max(1, total.results * MAX_DOUBTFUL_SHARE))),
        *(["a sensor still keeps a result"] * any(result["kept"] for result in results)),
        *(["a task was left"] * any(result["tasks_left"] for result in results)),
        *(["the process grew"] * (measure_growth_mb(results) > MAX_GROWTH_MB)),
    ]


def measure_growth_mb(results: Sequence[Mapping[str, Any]]) -> float:
    """The most by which a process grew after its first part with the ECG strap, or after its first part if it had none."""
    growth_mb = 0.0
    for process in {result["process"] for result in results}:
        parts = [result for result in results if result["process"] == process]
        first = next((place for place, result in enumerate(parts) if result["is_worn"]), 0)
        growth_mb = max(growth_mb, *(result["mb"] - parts[first]["mb"] for result in parts[first:]))
    return round(growth_mb, 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder for the data, the log and the results")
    parser.add_argument("--hours", type=float, help="virtual time (default: 72, with --ecg 0.5)")
    parser.add_argument("--faults", type=int, help="random faults (default: 1000, with --ecg 60)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults (default: %(default)s)")
    parser.add_argument("--ecg", action="store_true", help="twelve ECG straps instead of twelve different sensors")
    arguments = parser.parse_args(argv)
    hours = arguments.hours or (0.5 if arguments.ecg else 72.0)
    faults = arguments.faults if arguments.faults is not None else (60 if arguments.ecg else 1000)
    soak = Soak(hours * 3600, faults, arguments.seed, ECG_FAMILIES if arguments.ecg else FAMILIES)
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, filename=folder / "soak.log", format="%(asctime)s %(name)s: %(message)s")
    for noisy in ("bumble", "asyncio", "gateway.session"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    journal = folder / "soak.jsonl"
    results = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} s"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("virtual time", total=soak.seconds, completed=sum(each["virtual_s"] for each in results))
        for part in range(len(results), soak.parts):
            results.append(run_part(soak, part, folder, progress, task))
            progress.console.print(_describe(results[-1]))
    summary = summarise(results)
    print(json.dumps(summary))
    return 0 if summary["passed"] else 1


def _describe(result: Mapping[str, Any]) -> str:
    audits = {name: SensorAudit(**audit) for name, audit in result["sensors"].items()}
    failed = ", ".join(name for name, audit in audits.items() if not audit.passed) or "none"
    speed = result["virtual_s"] / result["real_s"]
    return f"part {result['part']}: {speed:.0f} virtual s/s, {sum(result['faults'].values())} faults, failed: {failed}"


if __name__ == "__main__":
    sys.exit(main())

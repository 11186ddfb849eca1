"""The whole agent, emulated sensors and a clinic in one process on virtual time, with the journal of what each sensor sent."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from bumble.device import Device

from benchmarks.in_process_clinic import InProcessClinic
from benchmarks.virtual_hub import VirtualHub, make_settings
from drivers.readings import group_of
from gateway.models import LoadedModels
from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate.audit import SentFrame
from gateway.simulate.families import CONSENT_CODE, FAMILIES, World
from gateway.simulate.heart import RepeatingEcg, from_script
from gateway.simulate.journal import checksum
from gateway.simulate.peripherals.broadcast_scale import BroadcastScale
from gateway.simulate.peripherals.oximeter import Oximeter
from gateway.simulate.peripherals.peripheral import BondedSubscriptions, Peripheral, ignore_event, now_s, sleep_until
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.spot import SpotPeripheral
from gateway.simulate.peripherals.watch import Watch
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.scenario import Fault, Stage, play_scenario
from gateway.simulate.script import load_script
from gateway.simulate.sensor_audit import SensorAudit, SensorJournal, SentReading, SentResult, audit_sensor
from gateway.simulate.strap import NAME, Strap
from sync.records import Record

STRAP: Final = "strap"
"""The family of the ECG strap, beside those of `FAMILIES`."""
VALUES: Final = {"heart_rate": "2A37", "spo2": "2A5F"}
"""The characteristics of the streams of values that are compared, by kind."""
RESULTS: Final = ("2A35", "2A9D", "2A1C", "2A5E")
"""The characteristics of results: blood pressure, weight, temperature, oximetry."""
WATCH_WORN_S: Final = 120.0
WEIGHING_S: Final = 22.0
"""How long a broadcast weighing is advertised."""
RADIO_ABSENCE_S: Final = 10.0
"""How long after an unplugged adapter or a start of the agent a broadcast weighing may not be heard."""
START_US: Final = 1_800_000_000_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens in one run. Times are in virtual seconds from its start.

    Attributes:
        families: the family of each sensor by its name.
        uses: when each sensor that measures on demand, or is worn now and then, is used.
        worn: from when to when the ECG straps are worn.
        quiet_s: how long nothing happens at the end.
    """

    seconds: float
    families: Mapping[str, str]
    faults: Sequence[Fault] = ()
    uses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    worn: tuple[float, float] = (0.0, float("inf"))
    start_us: int = START_US
    seed: int = 1


@dataclass(slots=True)
class TrueTimes:
    """A strap's journal in memory: the true times of what was sent."""

    start_us: int
    frames: list[SentFrame] = field(default_factory=list)
    playback: Playback | None = None

    def write_start(self, script_start_ns: int) -> None:
        """Note nothing: the times of the frames are enough."""

    def write_frame(self, last_ns: int, microvolts: Any) -> None:
        assert self.playback is not None
        loop_s = self.playback.clock.loop_s(last_ns - self.playback.clock_error.ns)
        self.frames.append(SentFrame(self.start_us + round(loop_s * 1e6), microvolts.size, checksum(microvolts)))


@dataclass(slots=True)
class Report:
    """What came of a run: the audit of each sensor, the tasks that were left, the most tasks, and the restarts of the agent.

    `journals` are what the sensors sent, and `records` what the clinic holds.
    """

    audits: dict[str, SensorAudit]
    tasks_left: list[str]
    max_tasks: int
    restarts: int
    # Not in `repr`: asyncio makes a text of what a main task returns.
    journals: dict[str, SensorJournal] = field(repr=False)
    records: list[Record] = field(repr=False)


@dataclass(slots=True)
class SensorTestbed:
    """One run of a plan in `folder`. A later run in the same folder continues with the same hub, bonds and clinic."""

    folder: Path
    plan: Plan
    models: LoadedModels = field(default_factory=LoadedModels)
    on_minute: Callable[[], None] = lambda: None
    link: VirtualLink = field(default_factory=VirtualLink)
    sensors: dict[str, Peripheral] = field(default_factory=dict)
    _true_times: dict[str, TrueTimes] = field(default_factory=dict)
    _measured_us: dict[str, dict[int, int]] = field(default_factory=dict)
    """When each result was measured, by sensor and group."""

    async def run(self) -> Report:
        """Run the plan to its end, stop everything, and audit it."""
        data, before = self.folder / "agent", asyncio.all_tasks()
        clinic = InProcessClinic(self.folder, data, self.plan.start_us // 1_000_000)
        hub = VirtualHub(self.link, clinic, data, self._settings(), self.plan.start_us, self.models)
        async with AsyncExitStack() as stack:
            for name in self.plan.families:
                await stack.enter_async_context(self._run_sensor(name))
            async with running(hub.run()):
                max_tasks = await self._play(hub)
        await asyncio.sleep(1)  # what the link still delivers
        left = sorted(task.get_name() for task in asyncio.all_tasks() - before)
        records = clinic.new_records()
        clinic.close()
        journals = {name: self._journal(name, hub) for name in self.plan.families}
        audits = {name: _audit(name, journal, records) for name, journal in journals.items()}
        return Report(audits, left, max_tasks, hub.restarts, journals, records)

    def _settings(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        consent = self.folder / "consent.txt"
        consent.touch(mode=0o600)
        consent.write_text(str(CONSENT_CODE), encoding="utf-8")
        return make_settings({name: self.address(name) for name in self.plan.families}, self.plan.families, consent)

    def address(self, name: str) -> str:
        return f"C0:DE:0B:00:01:{list(self.plan.families).index(name):02X}"

    async def _play(self, hub: VirtualHub) -> int:
        """Let everything happen that the plan says; return the largest number of tasks."""
        stage, most = Stage(self.link, self.sensors, hub.unplug_adapter), 0
        async with asyncio.TaskGroup() as tasks:
            happening = [tasks.create_task(play_scenario(self.plan.faults, stage))]
            happening += [tasks.create_task(self._use(name, times)) for name, times in self.plan.uses.items()]
            happening += [
                tasks.create_task(self._wear_strap(each)) for each in self.sensors.values() if isinstance(each, Strap)
            ]
            while now_s() < self.plan.seconds:
                await asyncio.sleep(min(60.0, self.plan.seconds - now_s()))
                most = max(most, len(asyncio.all_tasks()))
                self.on_minute()
            for task in happening:
                task.cancel()
        return most

    @asynccontextmanager
    async def _run_sensor(self, name: str) -> AsyncIterator[None]:
        bonds, family = self.folder / "sensors", self.plan.families[name]
        bonds.mkdir(exist_ok=True)
        subscriptions = BondedSubscriptions(bonds / f"{name}.subscriptions.json")
        shown = NAME if family == STRAP else FAMILIES[family].name
        device = make_device(self.link, self.address(name), shown, bonds / f"{name}.json")
        await device.power_on()
        sensor = self.make_sensor(name, device, subscriptions)
        if isinstance(sensor, Watch | Strap):
            sensor.sleep()
        self.sensors[name] = sensor
        async with running(sensor.run()):
            yield
        self.link.remove_device(self.address(name))

    def make_sensor(self, name: str, device: Device, subscriptions: BondedSubscriptions) -> Peripheral:
        if self.plan.families[name] != STRAP:
            return FAMILIES[self.plan.families[name]].make(device, self._world(name, subscriptions))
        times = self._true_times[name] = TrueTimes(self.plan.start_us)
        clock = SensorClock.set_to(self.plan.start_us * 1000, 0.0)
        times.playback = Playback(demo_ecg(), clock, times)  # type: ignore[arg-type]
        return Strap(device, times.playback, ignore_event, subscriptions)

    def _world(self, name: str, subscriptions: BondedSubscriptions) -> World:
        start = datetime.fromtimestamp(self.plan.start_us / 1e6)  # noqa: DTZ006  sensors count local time
        rng = random.Random(f"{self.plan.seed} {name}")
        return World(follow_loop(start), self.plan.start_us * 1000, 0.0, rng, ignore_event, subscriptions)

    async def _wear_strap(self, strap: Strap) -> None:
        from_s, to_s = self.plan.worn
        await sleep_until(from_s)
        strap.put_on()
        if to_s < self.plan.seconds:
            await sleep_until(to_s)
            strap.take_off()

    async def _use(self, name: str, times: Sequence[float]) -> None:
        """Use a sensor at these times, or later where the use before has not ended."""
        sensor, family = self.sensors[name], FAMILIES[self.plan.families[name]]
        world = self._world(name, BondedSubscriptions())
        for at_s in sorted(times):
            await sleep_until(max(at_s, now_s()))
            await family.live(sensor, world)
            if isinstance(sensor, Watch):
                sensor.wake(WATCH_WORN_S)
                await asyncio.sleep(WATCH_WORN_S)
                await sensor.hang_up()
            self._note_results(name)

    def _note_results(self, name: str) -> None:
        """Note the time of the results that are new."""
        sensor, measured_us = self.sensors[name], self._measured_us.setdefault(name, {})
        for payload, at_s in _results_of(sensor):
            measured_us.setdefault(_group(sensor, payload), self.plan.start_us + round(at_s * 1e6))

    def _journal(self, name: str, hub: VirtualHub) -> SensorJournal:
        sensor = self.sensors[name]
        journal = SensorJournal(self._true_times[name].frames if name in self._true_times else [])
        for kind, uuid in VALUES.items() if not isinstance(sensor, Strap) else ():  # whose journal has its frames only
            sent = [value for value in sensor.sent.values if value.characteristic == uuid]
            if sent:
                start_us = self.plan.start_us
                journal.values[kind] = [SentReading(start_us + round(each.sent_s * 1e6), each.payload) for each in sent]
        sent_groups = {_group(sensor, payload) for uuid in RESULTS for payload in sensor.sent.sent(uuid)}
        confirmed = {_group(sensor, payload) for uuid in RESULTS for payload in sensor.sent.confirmed(uuid)}
        kept = {_group(sensor, payload) for payload in _kept_by(sensor)}
        for group, measured_us in self._measured_us.get(name, {}).items():
            if isinstance(sensor, BroadcastScale):
                is_heard = self._is_heard(name, (measured_us - self.plan.start_us) / 1e6, hub)
                journal.results.append(SentResult(group, measured_us, is_heard, is_heard, not is_heard))
            else:
                result = SentResult(group, measured_us, group in sent_groups, group in confirmed, group in kept)
                journal.results.append(result)
        return journal

    def _is_heard(self, name: str, ended_s: float, hub: VirtualHub) -> bool:
        """Whether nothing kept the hub from hearing a weighing."""
        away = [(each.at_s, each.at_s + each.value) for each in self.plan.faults if (each.kind, each.sensor) == ("away", name)]
        absent = [(from_s, to_s + RADIO_ABSENCE_S) for from_s, to_s in [(0.0, 0.0), *hub.absences]]
        return not any(from_s < ended_s and to_s > ended_s - WEIGHING_S for from_s, to_s in (*away, *absent))


def _audit(name: str, journal: SensorJournal, records: Sequence[Record]) -> SensorAudit:
    uuids = {kind: f"0000{uuid}-0000-1000-8000-00805f9b34fb" for kind, uuid in VALUES.items()}
    return audit_sensor(journal, [record for record in records if getattr(record, "sensor", None) == name], uuids)


def _results_of(sensor: Peripheral) -> list[tuple[bytes, float]]:
    """The payloads of a sensor's results, and when they were measured; now, if it does not tell."""
    match sensor:
        case SpotPeripheral():
            return [(payload, result.measured_s) for result in sensor.memory for _, payload in result.values]
        case Oximeter():
            return [(payload, now_s()) for payload in (*sensor.records.values(), *sensor.sent.sent("2A5E"))]
        case BroadcastScale():
            return [(payload, now_s()) for payload in sensor.frames[-1:]]
        case _:
            return []


def _kept_by(sensor: Peripheral) -> list[bytes]:
    """The payloads that a sensor keeps and sends again, because no hub has confirmed them."""
    match sensor:
        case SpotPeripheral():
            return [payload for result in sensor.unconfirmed() for _, payload in result.values]
        case Oximeter():
            return list(sensor.records.values())
        case _:
            return []


def _group(sensor: Peripheral, payload: bytes) -> int:
    """The group that a result's readings have: of date and values where a status or an impedance may change."""
    match sensor:
        case BroadcastScale():
            return group_of(payload[2:9] + payload[11:13])
        case Oximeter():
            return group_of(payload[1:12])
        case _:
            return group_of(payload)


def make_unused_sensors(families: Mapping[str, str]) -> dict[str, Peripheral]:
    """Return sensors that are never switched on, to draw faults for. Call it in an event loop."""
    testbed = SensorTestbed(Path(), Plan(0.0, families))
    for name in families:
        device = make_device(testbed.link, testbed.address(name), name)
        testbed.sensors[name] = testbed.make_sensor(name, device, BondedSubscriptions())
    return testbed.sensors


@cache
def demo_ecg() -> RepeatingEcg:
    return from_script(load_script("demo"))


@asynccontextmanager
async def running(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run a coroutine beside the body; raise what it fails with."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()

"""The agent: one TaskGroup with a session and a pipeline for each sensor, the recorder, the uplink and the status report.

session ─events→ decode, timeline (worker) ─records→ recorder ─blocks→ outbox (worker) ─wake→ uplink
                 analysis, alerts (worker) ─────────────┘
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar

from config.files import replacing
from config.process import leaf_errors
from config.settings import SensorSettings, Settings
from drivers.registry import Registry, load_drivers
from drivers.spec import DeviceInformation
from gateway.clock import Clock
from gateway.models import STATE_NAME, LoadedModels, technical_alert
from gateway.pipeline import Pipeline
from gateway.radio import Radio, RadioError
from gateway.recorder import Recorder
from gateway.session import Event, Interruption, Notification, Session, State
from gateway.streams import Output
from gateway.timeline import Arrival
from gateway.uninterrupted import uninterrupted
from sync.errors import Permanent, Transient
from sync.keys import HubKey
from sync.mqtt import Mqtt
from sync.outbox import Outbox
from sync.records import StatusRecord, Times
from sync.seal import ClinicPublicKey
from sync.transport import Call, Transport
from sync.uplink import Uplink
from sync.wire import UPLINK_LANES, ack_topic

log = logging.getLogger(__name__)

STATUS_S: Final = 1.0
"""How often the status file is written, and a reader calls the agent dead that missed three in a row."""
STALE_STATUSES: Final = 3
STALL_S: Final = 0.05
"""A loop that answers later than this delays the stamp of a notification by a noticeable part of an RR interval."""
DRAIN_S: Final = 10.0
"""At a clean stop: time for the clinic to acknowledge the last blocks. What it has not is sent at the next start."""
DRAIN_LOOK_S: Final = 0.1
RADIO_RETRY_S: Final = 2.0
"""A dongle that was pulled, or a Bluetooth service that restarts, is back within seconds."""
BATCH: Final = 64
"""Events of one sensor handed to the worker together when it is behind."""

T = TypeVar("T")
OpenRadio = Callable[[str, Path], AbstractAsyncContextManager[Radio]]


class Carrier(Transport, Protocol):
    """What carries messages to the clinic for as long as `run` runs: `sync.mqtt.Mqtt`."""

    async def run(self) -> NoReturn: ...


MakeCarrier = Callable[[Settings], Carrier]


@dataclass(slots=True)
class SensorTrack:
    """What the agent keeps for one sensor beyond its session: the pipeline outlives every link."""

    settings: SensorSettings
    pipeline: Pipeline
    device: DeviceInformation = field(default_factory=DeviceInformation)
    state: State = "stopped"


@dataclass(frozen=True, slots=True)
class _Storage:
    """The buffer and those that fill and empty it; `call` runs a function on its thread."""

    outbox: Outbox
    recorder: Recorder
    uplink: Uplink
    call: Call

    async def drained(self) -> None:
        """Returns when the clinic has acknowledged everything that leaves the hub."""
        while True:
            pending = (await self.call(self.outbox.statistics)).pending
            if not any(pending[lane] for lane in UPLINK_LANES):
                return
            await asyncio.sleep(DRAIN_LOOK_S)


@dataclass(slots=True)
class Agent:
    """The whole agent; the radio, the way to the clinic and the clock are given, so that all of it runs on virtual time."""

    settings: Settings
    clock: Clock
    open_radio: OpenRadio
    make_carrier: MakeCarrier
    models: LoadedModels
    registry: Registry = field(default_factory=load_drivers)
    stalls: int = 0
    dropped: int = 0
    _tracks: dict[str, SensorTrack] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then ends cleanly: sensors stopped, what they sent durable, what can be sent acknowledged.

        Raises:
            sync.errors.Permanent: the buffer, a key or a setting does not allow a start. Nothing was changed.
        """
        with _worker("storage") as on_storage, _worker("analysis") as on_analysis:
            outbox = await on_storage(self._open_outbox)
            try:
                carrier = self.make_carrier(self.settings)
                uplink = Uplink(outbox, carrier, hub=self.settings.hub, call=on_storage)
                recorder = Recorder(outbox, on_storage, uplink.wake)
                store = _Storage(outbox, recorder, uplink, on_storage)
                await self._restore(store)
                await self._run_tasks(stop, carrier, store, on_analysis)
            finally:
                await on_storage(outbox.close)

    def _open_outbox(self) -> Outbox:
        data = self.settings.data
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Permanent(f"cannot create the data folder {data} ({error.strerror}): set `data` to one of yours") from error
        return Outbox.open(
            data / "buffer.db",
            hub=self.settings.hub,
            subject=self.settings.subject,
            hub_key=HubKey.load_or_create(data / "hub.key"),
            clinic=ClinicPublicKey.load(self.settings.clinic.public_key),
            clock=lambda: self.clock.wall_us() // 1_000_000,
        )

    async def _restore(self, store: "_Storage") -> None:
        """Takes up every sensor where the last run left it; the time in between is an open gap from now on."""
        for sensor in self.settings.sensors:
            stored = await store.call(store.outbox.state, _state_name(sensor.name))
            pipeline = Pipeline(sensor.name, self.settings.limits, self.models, json.loads(stored) if stored else None)
            self._tracks[sensor.name] = SensorTrack(sensor, pipeline)
            await self._record(self._tracks[sensor.name], pipeline.taken_up(self._now()), store.recorder)
        await self._tell_of_models(store)
        await store.recorder.flush()

    async def _tell_of_models(self, store: "_Storage") -> None:
        """An alert for the clinic where the models were refused, and its end at the first start at which they run again."""
        stored = await store.call(store.outbox.state, STATE_NAME)
        alerts, state = technical_alert(self.models, json.loads(stored) if stored else None, self.clock.wall_us())
        if alerts:
            await store.recorder.add(alerts, {STATE_NAME: state})

    async def _run_tasks(self, stop: asyncio.Event, carrier: Carrier, store: "_Storage", on_analysis: Call) -> None:
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(carrier.run(), name="carrier"),
                group.create_task(store.recorder.run(), name="recorder"),
                group.create_task(store.uplink.run(), name="uplink"),
                group.create_task(self._report(store), name="status"),
                group.create_task(self._watch_loop(), name="stalls"),
            ]
            sensors = group.create_task(self._serve_sensors(store.recorder, on_analysis), name="sensors")
            await stop.wait()
            store.recorder.stop_waiting()
            sensors.cancel()
            await asyncio.wait([sensors])
            for track in self._tracks.values():
                await self._record(track, await on_analysis(track.pipeline.finish, self._now()), store.recorder)
            await store.recorder.flush()
            with contextlib.suppress(TimeoutError, Transient):
                async with asyncio.timeout(DRAIN_S):
                    await store.drained()
            for task in background:
                task.cancel()
            await asyncio.wait(background)
        await self._write_status(store)

    async def _serve_sensors(self, recorder: Recorder, on_analysis: Call) -> None:
        """Opens the radio, and again whenever it is lost, and serves every sensor with it."""
        complaint = ""
        while True:
            try:
                async with self.open_radio(self.settings.radio, self.settings.data / "bonds.json") as radio:
                    await self._serve_with(radio, recorder, on_analysis)
                complaint = ""
            except* RadioError as group:
                said = str(leaf_errors(group)[0])
                if said != complaint:
                    log.warning("radio: %s", said)
                complaint = said
            await asyncio.sleep(RADIO_RETRY_S)

    async def _serve_with(self, radio: Radio, recorder: Recorder, on_analysis: Call) -> None:
        """Serves every sensor until the radio is lost."""
        async with asyncio.TaskGroup() as group:
            served = [group.create_task(self._serve(track, radio, recorder, on_analysis)) for track in self._tracks.values()]
            await radio.lost.wait()
            log.warning("radio: %s was lost", radio.name)
            for task in served:
                task.cancel()

    async def _serve(self, track: SensorTrack, radio: Radio, recorder: Recorder, on_analysis: Call) -> None:
        states: asyncio.Queue[State] = asyncio.Queue(64)

        def changed(_name: str, state: State) -> None:
            track.state = state
            try:
                states.put_nowait(state)
            except asyncio.QueueFull:
                self.dropped += 1

        session = Session(track.settings, radio, self.registry, self.clock, changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(session.run(), name=f"session {track.settings.name}")
                group.create_task(self._record_states(track, states, recorder))
                group.create_task(self._consume(track, session, recorder, on_analysis))
        finally:
            # What the session put last, the interruption among it, is handled even though all are cancelled.
            await self._handle(track, _waiting(session.events), recorder, on_analysis)
            self.dropped += session.statistics.dropped

    async def _record_states(self, track: SensorTrack, states: asyncio.Queue[State], recorder: Recorder) -> None:
        while True:
            state, now = await states.get(), self._now()
            record = StatusRecord(track.settings.name, "link", Times(now.wall_us, now.wall_us, now.mono_ns), state)
            await uninterrupted(recorder.add((record,), {}))

    async def _consume(self, track: SensorTrack, session: Session, recorder: Recorder, on_analysis: Call) -> None:
        while True:
            first = await session.events.get()
            await self._handle(track, [first, *_waiting(session.events, BATCH - 1)], recorder, on_analysis)

    async def _handle(self, track: SensorTrack, events: list[Event], recorder: Recorder, on_analysis: Call) -> None:
        if events:
            await uninterrupted(self._process_and_record(track, events, recorder, on_analysis))

    async def _process_and_record(self, track: SensorTrack, events: list[Event], recorder: Recorder, on_analysis: Call) -> None:
        was_first = not track.pipeline.has_samples
        await self._record(track, await on_analysis(self._process, track, events), recorder)
        if was_first and track.pipeline.has_samples:
            # From here on a crash leaves a gap record, since the state says where the stream stood.
            await recorder.flush()

    async def _record(self, track: SensorTrack, output: Output, recorder: Recorder) -> None:
        """The records and, in the same transaction, the state that a restart continues from."""
        await recorder.add(output.records, {_state_name(track.settings.name): track.pipeline.state()})

    def _process(self, track: SensorTrack, events: list[Event]) -> Output:
        """On the analysis worker: bytes to records and beats."""
        outputs = [self._process_one(track, event) for event in events]
        return Output(
            tuple(record for output in outputs for record in output.records),
            tuple(beat for output in outputs for beat in output.beats),
        )

    def _process_one(self, track: SensorTrack, event: Event) -> Output:
        match event:
            case Notification(characteristic, payload, arrival):
                readings = self.registry.decode(characteristic, payload, track.device)
                track.device = track.device.updated(readings)
                return track.pipeline.feed(readings, arrival)
            case Interruption(reason, arrival):
                return track.pipeline.interrupted(reason, arrival)

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + STALL_S
            await asyncio.sleep(STALL_S)
            if loop.time() - due > STALL_S:
                self.stalls += 1

    async def _report(self, store: "_Storage") -> None:
        while True:
            await self._write_status(store)
            await asyncio.sleep(STATUS_S)

    async def _write_status(self, store: "_Storage") -> None:
        """Tries to: a full disk or a locked buffer must not end the agent, and an old file says enough."""
        with contextlib.suppress(OSError, Transient):
            status = await self._status(store)
            await store.call(_replace, self.settings.data / "status.json", json.dumps(status, indent=1))

    async def _status(self, store: "_Storage") -> dict[str, object]:
        """Counters and states; never a health value."""
        buffered = await store.call(store.outbox.statistics)
        counters, sent = store.recorder.counters, store.uplink.statistics
        return {
            "at_us": self.clock.wall_us(),
            "hub": self.settings.hub,
            "sensors": {name: track.state for name, track in self._tracks.items()},
            "uplink_problem": sent.problem,
            "models": self.models.status(),
            "samples_received": counters.samples_received,
            "samples_lost": counters.samples_lost,
            "gaps": counters.gaps,
            "quarantined": counters.quarantined,
            "alerts": counters.alerts,
            "failed_writes": counters.failed_writes,
            "blocks_stored": buffered.stored,
            "blocks_sent": sent.blocks_sent,
            "blocks_acked": buffered.acknowledged,
            "blocks_pending": sum(buffered.pending.values()),
            "notifications_dropped": self.dropped,
            "loop_stalls": self.stalls,
        }

    def _now(self) -> Arrival:
        return Arrival(self.clock.wall_us(), self.clock.mono_ns())


def _state_name(sensor: str) -> str:
    return f"timeline {sensor}"


def _waiting(events: asyncio.Queue[Event], limit: int = 1 << 16) -> list[Event]:
    found: list[Event] = []
    while len(found) < limit and not events.empty():
        found.append(events.get_nowait())
    return found


def _replace(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one."""
    with replacing(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _worker(name: str) -> Iterator[Call]:
    """One thread, and the way to run a function on it. On virtual time the loop runs it inline."""
    with ThreadPoolExecutor(1, thread_name_prefix=name) as executor:

        async def call(function: Callable[..., T], *arguments: Any) -> T:
            return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*arguments))

        yield call


def mqtt_carrier(settings: Settings) -> Carrier:
    """The way to the clinic's broker."""
    clinic = settings.clinic
    return Mqtt(clinic.host, clinic.port, client_id=settings.hub, subscriptions=[ack_topic(settings.hub)])


def status_of(data: Path) -> Mapping[str, Any]:
    """What the agent last said of itself.

    Raises:
        OSError: it never ran with this data folder.
        ValueError: the file is no status.
    """
    status = json.loads((data / "status.json").read_text(encoding="utf-8"))
    if not isinstance(status, dict) or not isinstance(status.get("at_us"), int):
        raise ValueError("no status")  # noqa: TRY004 - a damaged file, not a wrong call
    return status

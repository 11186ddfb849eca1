"""The agent: one TaskGroup that runs the sensors, the recorder, the uplink and the status reporter.

session ─events→ decode, timeline (worker) ─records→ recorder ─blocks→ outbox (worker) ─wake→ uplink
                 analysis, alerts (worker) ─────────────┘
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, TypeVar

from config.files import locked
from config.process import leaf_errors
from config.settings import Settings
from drivers.registry import Registry, load_drivers
from gateway.aging import watch_ages
from gateway.audit_events import AgentAudit
from gateway.audit_log import AuditLog
from gateway.buffer_alert import BUFFER_STATE_KEY, BufferAlert
from gateway.clinic_commands import ClinicCommands, CommandState, load_command_state
from gateway.clock import Clock
from gateway.consent import HubConsent
from gateway.damage_alert import DAMAGE_STATE_KEY, update_damage_alert
from gateway.enrolment.site_clock import Clocks, SiteClock
from gateway.heartbeat import StatusCollector
from gateway.hub_key import HUB_KEY_FILE
from gateway.key_rotation import follow_keys
from gateway.left_behind import end_left_behind_alerts
from gateway.models import ALERT_STATE_KEY, LoadedModels, update_refusal_alert
from gateway.pairing_alert import pairing_key
from gateway.pairings import Pairings
from gateway.persons import deliver_answers
from gateway.pipeline import Pipeline
from gateway.radio import Radio, is_radio_present
from gateway.radio_failover import RadioFailover, RadioSource
from gateway.recorder import Recorder
from gateway.renewal import Renew, keep_renewed
from gateway.sealed_files import seal_files
from gateway.sensor_memory import SensorMemory
from gateway.sensor_runner import SensorRunner, memory_key, state_key
from gateway.startup import LOCK_FILE, load_command_key, load_consent, load_device_key, load_registration, tls_password
from gateway.status import StatusReporter
from gateway.storage import Storage
from gateway.upload import WaveformUpload
from sync.consent import ToldConsent
from sync.errors import DamagedBufferError, PermanentError, TransientError
from sync.heartbeat import Heartbeat
from sync.keys import HubKey, HubKeys
from sync.mqtt import MqttClient
from sync.outbox import Outbox
from sync.registration import Registration
from sync.transport import Transport, WorkerCall
from sync.uplink import Uplink, UplinkCallbacks
from sync.wire import ack_topic, command_topic, receipt_topic

log = logging.getLogger(__name__)

UPLOAD_TIMEOUT_S: Final = 10.0
"""How long a clean stop waits until the clinic acknowledges the last blocks. The rest is sent after the next start."""

DAMAGE_INTERVAL_S: Final = 600.0
"""A buffer that is damaged twice within this time lies on a failing disk. It is longer than a salvage of 1 GB takes."""

T = TypeVar("T")
OpenRadio = Callable[[str, Path], AbstractAsyncContextManager[Radio]]


class ClinicTransport(Transport, Protocol):
    """Carries messages to and from the clinic while `run` is running; for example `sync.mqtt.MqttClient`."""

    async def run(self) -> NoReturn: ...


MakeTransport = Callable[[Settings], ClinicTransport]


@dataclass(slots=True)
class Agent:
    """The life cycle of the agent. Radio, transport and clock are injected, so the whole agent can run on virtual time."""

    settings: Settings
    clock: Clock
    open_radio: OpenRadio
    make_transport: MakeTransport
    models: LoadedModels
    registry: Registry = field(default_factory=load_drivers)
    renew: Renew | None = None
    """Renews the hub's certificate, where the clinic's broker is reached by TLS."""
    hub_key: HubKey | None = None
    """The hub key, where it does not lie in a plain file; the other key files are then sealed with it."""

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then stops cleanly. If the buffer turns out to be damaged, starts again and salvages it.

        Raises:
            as `_run`. A buffer that is damaged again within `DAMAGE_INTERVAL_S` ends the agent: the disk fails.
        """
        damaged_ns: int | None = None
        while True:
            try:
                await self._run(stop, is_damaged=damaged_ns is not None)
                damaged_ns = None
            except (DamagedBufferError, ExceptionGroup) as error:
                now_ns, errors = self.clock.mono_ns(), leaf_errors(ExceptionGroup("", [error]))
                is_again = damaged_ns is not None and now_ns - damaged_ns < DAMAGE_INTERVAL_S * 1e9
                if is_again or not all(isinstance(leaf, DamagedBufferError) for leaf in errors):
                    raise
                log.error("%s", errors[0])
                damaged_ns = now_ns
            else:
                if stop.is_set():
                    return
                log.info("starting again")

    async def _run(self, stop: asyncio.Event, *, is_damaged: bool) -> None:
        """Runs until `stop` is set, the clinic commands a restart or the consent changes, then stops cleanly.

        At a clean stop the sensors are disconnected, their readings are durable, and the uploaded blocks are acknowledged as
        far as `UPLOAD_TIMEOUT_S` allows.

        Raises:
            sync.errors.PermanentError: another agent, the buffer, a key or a setting prevents the start. Nothing was changed.
        """
        with (
            self._locked_data_folder(),
            _worker_thread("storage") as run_on_storage_thread,
            _worker_thread("analysis") as run_on_analysis_thread,
        ):
            registration = load_registration(self.settings)
            keys = await run_on_storage_thread(self._load_keys)
            audit = AgentAudit(await run_on_storage_thread(self._open_audit_log, registration), registration)
            outbox = await run_on_storage_thread(self._open_outbox, keys, registration, is_damaged)
            try:
                state = await run_on_storage_thread(load_command_state, outbox)
                await run_on_storage_thread(self._end_left_behind_alerts, outbox)
                halt = asyncio.Event()
                consent = HubConsent(self.settings.data, self.settings.hub, self.settings.subject, outbox, audit, halt.set)
                await run_on_storage_thread(consent.load)
                key = await run_on_storage_thread(load_command_key, self.settings.data, self.hub_key)
                commands = ClinicCommands(self.settings, registration, key, self.clock, audit, state, halt.set)
                transport = self.make_transport(self.settings)
                callbacks = UplinkCallbacks(
                    on_live=lambda seconds: storage.recorder.watch_live(seconds),  # noqa: PLW0108 - it is made below
                    on_connected=lambda: heartbeat.on_connected(),  # noqa: PLW0108 - likewise
                    on_audit=audit.note_site,
                    on_command=commands.receive,
                    on_consent=consent.receive,
                )
                hub, call = self.settings.hub, run_on_storage_thread
                uplink = Uplink(
                    outbox, transport, hub=hub, keys=keys, registration=registration, call=call, callbacks=callbacks
                )
                storage = await self._make_storage(outbox, uplink, run_on_storage_thread)
                sensors = await self._resume_sensors(storage, run_on_analysis_thread, state) if consent.is_given else []
                commands.closers = sensors
                collector = self._make_collector(outbox, sensors, partial(audit.read_heads, keys.device), consent.told)
                heartbeat = Heartbeat(transport, keys.device, collector.collect, run_on_storage_thread)
                await self._note_start(storage, sensors, audit, is_collecting=consent.is_given)
                also = {"commands": commands.run(storage), "consent": consent.watch(storage.call)}
                await self._run_tasks(_Ends(stop, halt), transport, heartbeat, storage, sensors, audit, also)
                await run_on_storage_thread(audit.note_stop)
            finally:
                await run_on_storage_thread(outbox.close)

    async def _make_storage(self, outbox: Outbox, uplink: Uplink, call: WorkerCall) -> Storage:
        saved = _parse_state(await call(outbox.load_state, BUFFER_STATE_KEY))
        upload = WaveformUpload(self.settings.upload)
        recorder = Recorder(outbox, call, uplink.wake, BufferAlert(self.clock, saved), upload=upload)
        return Storage(outbox, recorder, uplink, call)

    async def _note_start(
        self, storage: Storage, sensors: Sequence[SensorRunner], audit: AgentAudit, *, is_collecting: bool
    ) -> None:
        """Raise or end the hub's own alerts, and log the start."""
        if is_collecting:
            await self._update_refusal_alert(storage)
            await self._update_damage_alert(storage)
        await storage.recorder.flush()
        names = ", ".join(sensor.settings.name for sensor in sensors)
        release = self.models.release or "refused"
        log.info("started: hub %s, sensors %s, model release %s", self.settings.hub, names, release)
        await storage.call(audit.note_start, self.settings, self.models)

    @contextmanager
    def _locked_data_folder(self) -> Iterator[None]:
        """Keeps other agents out of the data folder: the broker would disconnect one whenever the other connects."""
        data = self.settings.data
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise PermanentError(
                f"cannot create the data folder {data} ({error.strerror}): set `data` to a folder that you can write to"
            ) from error
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(data / LOCK_FILE))
            except BlockingIOError as error:
                raise PermanentError(
                    f"the data folder {data} is in use by another agent: stop that one, or set `data` to another folder"
                ) from error
            except OSError as error:
                raise PermanentError(
                    f"cannot lock the data folder {data} ({error.strerror}): set `data` to a folder that you can write to"
                ) from error
            yield

    def _make_collector(
        self,
        outbox: Outbox,
        sensors: list[SensorRunner],
        read_audit: Callable[[], bytes | None],
        told: Callable[[], ToldConsent],
    ) -> StatusCollector:
        settings = self.settings
        identity = settings.clinic.broker.identity
        return StatusCollector(
            settings.data, identity, self.clock, settings.hub, outbox, sensors, self.models, read_audit, told
        )

    def _load_keys(self) -> HubKeys:
        data = self.settings.data
        hub_key = self.hub_key or HubKey.load_or_create(data / HUB_KEY_FILE)
        if self.hub_key is not None:
            seal_files(self.settings, self.hub_key)  # those that a killed move, or a version before, left in plain
        return HubKeys(hub_key, load_device_key(data, self.hub_key))

    def _open_audit_log(self, registration: Registration) -> AuditLog:
        return AuditLog(self.settings.data, self.settings.hub, registration.site, self.clock.wall_us, self.hub_key)

    def _open_outbox(self, keys: HubKeys, registration: Registration, is_damaged: bool) -> Outbox:
        return Outbox.open(
            self.settings.data / "buffer.db",
            hub=self.settings.hub,
            subject=self.settings.subject,
            keys=keys,
            registration=registration,
            clock=lambda: self.clock.wall_us() // 1_000_000,
            is_damaged=is_damaged,
        )

    def _end_left_behind_alerts(self, outbox: Outbox) -> None:
        names = [sensor.name for sensor in self.settings.sensors]
        end_left_behind_alerts(outbox, self.settings.subject, names, self.clock.wall_us())

    async def _resume_sensors(
        self, storage: Storage, run_on_analysis_thread: WorkerCall, commanded: CommandState
    ) -> list[SensorRunner]:
        """Resumes every sensor where the last run ended; the time since then is an open gap."""
        sensors: list[SensorRunner] = []
        pairings = Pairings.load(self.settings.data)
        limits = commanded.limits_or(self.settings.limits)
        contexts = commanded.contexts_or(self.settings.contexts)
        for sensor in self.settings.sensors:
            stored = await storage.call(storage.outbox.load_state, state_key(sensor.name))
            slots = () if sensor.user is None else (sensor.user,)
            pipeline = Pipeline(sensor.name, limits, self.models, _parse_state(stored), slots=slots, contexts=contexts)
            remembered = _parse_state(await storage.call(storage.outbox.load_state, memory_key(sensor.name)))
            memory = SensorMemory.restore(remembered)
            consent = load_consent(sensor)
            arguments = (sensor, pipeline, self.registry, self.clock, storage.recorder, run_on_analysis_thread)
            pairing_state = _parse_state(await storage.call(storage.outbox.load_state, pairing_key(sensor.name)))
            runner = SensorRunner(*arguments, memory, consent, pairings, pairing_state)
            sensors.append(runner)
            await runner.resume()
        return sensors

    async def _update_refusal_alert(self, storage: Storage) -> None:
        """Alerts the clinic if the models were refused, and ends that alert at the first start at which they run again."""
        stored = await storage.call(storage.outbox.load_state, ALERT_STATE_KEY)
        alerts, state = update_refusal_alert(self.models, _parse_state(stored), self.clock.wall_us())
        if alerts:
            await storage.recorder.add(alerts, {ALERT_STATE_KEY: state})

    async def _update_damage_alert(self, storage: Storage) -> None:
        """Alerts the clinic if the buffer was damaged and salvaged, and ends that alert at the next start."""
        stored = await storage.call(storage.outbox.load_state, DAMAGE_STATE_KEY)
        alerts, state = update_damage_alert(_parse_state(stored), self.clock.wall_us())
        if state is not None:
            await storage.recorder.add(alerts, {DAMAGE_STATE_KEY: state})

    def _radio_sources(self) -> list[RadioSource]:
        """The radios of the settings, in order of preference."""
        bonds = self.settings.data / "bonds.json"
        radios = self.settings.radios
        return [RadioSource(name, partial(self.open_radio, name, bonds), partial(is_radio_present, name)) for name in radios]

    async def _run_tasks(
        self,
        ends: "_Ends",
        transport: ClinicTransport,
        heartbeat: Heartbeat,
        storage: Storage,
        sensors: list[SensorRunner],
        audit: AgentAudit,
        also: Mapping[str, Coroutine[Any, Any, NoReturn]],
    ) -> None:
        settings = self.settings
        reporter = StatusReporter(settings.data, self.clock, settings.hub, storage, sensors, self.models)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(transport.run(), name="transport"),
                group.create_task(storage.recorder.run(), name="recorder"),
                group.create_task(storage.uplink.run(), name="uplink"),
                group.create_task(heartbeat.run(), name="heartbeat"),
                group.create_task(storage.keep_tidy(), name="tidy"),
                group.create_task(reporter.run(), name="status"),
                group.create_task(watch_ages(sensors), name="ages"),
                group.create_task(deliver_answers(settings.data, sensors, storage.call), name="answers"),
                group.create_task(reporter.watch_loop(), name="stalls"),
                group.create_task(audit.watch_clock(self.clock, storage.call), name="clock"),
                *(group.create_task(one, name=name) for name, one in also.items()),
                group.create_task(audit.watch_endpoints(storage.call), name="endpoints"),
                group.create_task(follow_keys(settings, storage, audit), name="keys"),
            ]
            identity = settings.clinic.broker.identity
            if identity is not None and self.renew is not None:
                clock = SiteClock(identity, Clocks.of_system())
                background.append(group.create_task(keep_renewed(identity, clock, self.renew), name="renewal"))
            collect = RadioFailover(self._radio_sources(), sensors).run if sensors else asyncio.Event().wait
            running = group.create_task(collect(), name="sensors")
            try:
                await ends.wait()
                log.info("stopping: the sensors are disconnected and the last readings stored and sent")
            finally:
                # Also when another task fails: a sensor whose records wait for space could otherwise never be cancelled.
                storage.recorder.stop_blocking()
            running.cancel()
            await asyncio.wait([running])
            await self._finish(storage, sensors)
            for task in background:
                task.cancel()
            await asyncio.wait(background)
        await reporter.write()
        log.info("stopped")

    @staticmethod
    async def _finish(storage: Storage, sensors: Sequence[SensorRunner]) -> None:
        """End the analyses, store what they say, and wait a little until the clinic has it."""
        for sensor in sensors:
            await sensor.finish()
        await storage.recorder.flush()
        with contextlib.suppress(TimeoutError, TransientError):
            async with asyncio.timeout(UPLOAD_TIMEOUT_S):
                await storage.wait_acknowledged()


@dataclass(frozen=True, slots=True)
class _Ends:
    """What ends the agent's tasks: a stop of the agent, or a command or a consent that makes them start again."""

    stop: asyncio.Event
    restart: asyncio.Event

    async def wait(self) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (self.stop, self.restart)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()


def _parse_state(stored: bytes | None) -> Any:
    return json.loads(stored) if stored else None


@contextmanager
def _worker_thread(name: str) -> Iterator[WorkerCall]:
    """Starts one thread and yields a coroutine function that runs a function on it. On virtual time the loop runs it inline."""
    with ThreadPoolExecutor(1, thread_name_prefix=name) as executor:

        async def call(function: Callable[..., T], *arguments: Any) -> T:
            return await asyncio.get_running_loop().run_in_executor(executor, lambda: function(*arguments))

        yield call


def make_mqtt_transport(settings: Settings, hub_key: HubKey | None = None) -> ClinicTransport:
    """The transport to the clinic's MQTT broker. Its certificate is valid by the site's time, where this hub knows it.

    `hub_key` opens the private key for TLS, where key files are sealed.
    """
    topics = [make_topic(settings.hub) for make_topic in (ack_topic, receipt_topic, command_topic)]
    broker = settings.clinic.broker
    if broker.identity is None:
        return MqttClient(broker, client_id=settings.hub, subscriptions=topics)
    clock = SiteClock(broker.identity, Clocks.of_system())
    now_s, password = clock.verification_s, tls_password(hub_key)
    return MqttClient(broker, client_id=settings.hub, subscriptions=topics, now_s=now_s, password=password)

"""Runs the sensors: each one's session, the processing of its events, and the recording of the results."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeGuard

from config.settings import SensorSettings
from drivers.conversation import Consent
from drivers.kinds import is_continuous
from drivers.readings import Reading, Vital, Waveform
from drivers.registry import Registry
from gateway.broadcast_session import BroadcastSession
from gateway.cancellation import finish_despite_cancel
from gateway.clock import Clock
from gateway.link_states import LinkState
from gateway.pairing_alert import pairing_key, update_pairing_alert
from gateway.pairings import Pairings
from gateway.pipeline import Pipeline
from gateway.radio import Radio
from gateway.recorder import Recorder
from gateway.sensor_events import (
    QUEUE_LIMIT,
    QUEUE_RESERVE,
    Answer,
    EventQueue,
    Interruption,
    LinkStateChange,
    Notification,
    Overflow,
    SensorEvent,
    TimePassed,
    is_spot_reading,
)
from gateway.sensor_memory import SensorMemory
from gateway.session import SensorSession
from gateway.timeline import WALL_STEP_US, Arrival
from gateway.waveform_analysis import Output, SavedState, join_outputs
from sync.records import AlertRecord, QuarantinedRecord, Record, StatusRecord, Times
from sync.transport import WorkerCall

log = logging.getLogger(__name__)

STATE_KEY_PREFIX: Final = "timeline "
"""The name of a sensor follows it; see `state_key`."""
MEMORY_KEY_PREFIX: Final = "memory "
"""The name of a sensor follows it; see `memory_key`."""
OVERFLOW_REASON: Final = "the hub was overloaded"
"""The reason of a gap after notifications were dropped. If the sensor's clock shows no missing sample, the next frame closes
the gap as empty."""
CLOCK_STEP_KIND: Final = "clock_step_s"
"""The kind of the status record that a step of the hub's wall clock leaves: its value is the new time minus the old one."""
RESTART_REASON: Final = "the analysis failed and was restarted"
Store = Callable[[Sequence[Record], Mapping[str, object]], Awaitable[None]]
"""Accepts records and the state that belongs to them, to be stored in one transaction."""
BATCH_EVENTS: Final = 64
"""The most events of one sensor that are processed in one call on the analysis thread when it is behind."""


@dataclass(slots=True)
class SensorRunner:
    """Runs one sensor. Its pipeline outlives every link; each opened radio gets a new session.

    A pipeline that raises is replaced by a new one that resumes from the state before, and the payload is set aside: a defect
    costs one frame of one sensor, not the agent.
    """

    settings: SensorSettings
    pipeline: Pipeline
    registry: Registry
    clock: Clock
    recorder: Recorder
    run_on_analysis_thread: WorkerCall
    memory: SensorMemory = field(default_factory=SensorMemory)
    consent: Consent | None = None
    pairings: Pairings = field(default_factory=Pairings)
    pairing_state: Mapping[str, Any] | None = None
    """The alert that the sensor has forgotten its pairing, as stored."""
    state: LinkState = "stopped"
    events: EventQueue = field(default_factory=EventQueue)
    _wall_minus_mono_us: int | None = None
    analysis_restarts: int = 0
    _logged_failures: set[str] = field(default_factory=set)
    _has_warned_of_users: bool = False
    _saved: SavedState = field(init=False)
    """The pipeline's state after the last event: stored with its records, and resumed from after a failure. Events that wait
    change nothing in it but when values last came, so it is taken after all of them."""

    _waiting: list[Notification] = field(default_factory=list)
    """Events that are processed when the recorder writes, or before a later event."""
    _is_running: bool = False
    _busy: int = 0
    """How many use the pipeline or wait for it: events that come meanwhile are queued."""
    _processing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the pipeline is used and the records are handed to the recorder."""

    def __post_init__(self) -> None:
        self._saved = self.pipeline.state()
        self.events.take = self._take
        self.recorder.before_write.append(self._process_waiting)

    async def resume(self) -> None:
        """Resumes where the last run ended and records the gap since then."""
        output = self.pipeline.resume(Arrival.now(self.clock))
        self._saved = self.pipeline.state()
        await self._record(output)
        await self._update_pairing_alert()

    async def run(self, radio: Radio) -> None:
        """Keeps the sensor connected over this radio and processes its events until cancelled."""
        session = self._make_session(radio)
        self._is_running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(session.run(), name=f"session {self.settings.name}")
                group.create_task(self._process_events())
        finally:
            self._is_running = False
            # The session's last events, including the interruption, must be processed even though all tasks are cancelled.
            await self._process_batch(self.events.drain(QUEUE_LIMIT + QUEUE_RESERVE + 1))

    def _make_session(self, radio: Radio) -> SensorSession | BroadcastSession:
        if self.settings.is_broadcast:
            arguments = (self.settings, radio, self.registry, self.clock, self._on_state, self.events)
            return BroadcastSession(*arguments, self.pairings)
        return SensorSession(
            self.settings,
            radio,
            self.registry,
            self.clock,
            self._on_state,
            self.events,
            self.memory,
            self.consent,
            self.pairings,
            self._update_pairing_alert,
        )

    async def _update_pairing_alert(self) -> None:
        """Alert that the sensor has forgotten its pairing, or end that alert."""
        name = self.settings.name
        is_forgotten = self.pairings.is_forgotten(self.settings)
        alerts, self.pairing_state = update_pairing_alert(
            name, self.pairing_state, self.clock.wall_us(), is_forgotten=is_forgotten
        )
        if alerts:
            await self.recorder.add(alerts, {pairing_key(name): self.pairing_state})

    def answer(self, id_: str, *, is_patient: bool) -> None:
        """Queues the patient's answer about a held result. A full queue drops it."""
        self.events.put(Answer(id_, is_patient, Arrival.now(self.clock)))

    async def finish(self) -> None:
        """Ends the analysis when the agent stops and records its last results."""
        await self._record(await self.run_on_analysis_thread(self._finish_pipeline, Arrival.now(self.clock)))

    def _on_state(self, _name: str, state: LinkState) -> None:
        self.state = state

    async def _process_events(self) -> None:
        while True:
            first = await self.events.get()
            await self._process_batch([first, *self.events.drain(BATCH_EVENTS - 1)])

    async def _process_batch(self, events: list[SensorEvent]) -> None:
        """Process events; what an indicated one yields is durable before the next is processed."""
        start = 0
        for end, event in enumerate(events, 1):
            if end == len(events) or is_spot_reading(event):
                with self._claimed():
                    await finish_despite_cancel(self._process_and_record(events[start:end]))
                start = end

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Process the events that were kept, and queue those that come until the end."""
        self._process_waiting()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def close_alert(self, id_: str, reason: str, command: int, store: Store) -> bool:
        """End an open alert as the clinic commands; false if this sensor has no open alert of this id.

        `store` gets the alert's record and the state that a restart resumes from, before anything else changes that state.
        """
        with self._claimed():
            return await finish_despite_cancel(self._close_alert(id_, reason, command, store))

    async def _close_alert(self, id_: str, reason: str, command: int, store: Store) -> bool:
        async with self._processing:
            now_us = self.clock.wall_us()
            ended: AlertRecord | None = await self.run_on_analysis_thread(
                self.pipeline.close_alert, id_, now_us, reason, command
            )
            if ended is None:
                return False
            self._saved = self.pipeline.state()
            await store([ended], {state_key(self.settings.name): self._saved})
            return True

    async def note_time(self) -> None:
        """End the episodes of which no newer value has come for too long. Events that wait come first, and do the same."""
        if self.events.empty() and self.pipeline.waits:
            with self._claimed():
                await finish_despite_cancel(self._process_and_record([TimePassed(Arrival.now(self.clock))]))

    def _take(self, event: SensorEvent) -> bool:
        """Keep an event that needs neither the analysis thread nor the disk until the recorder writes; else return False.

        Together, such events cost half as much as each alone. The first of a stream, and one that can raise an alert, are
        processed at once.
        """
        if self._busy or not self._is_running or not self.recorder.has_space or not _is_streamed(event):
            return False
        can_wait = self.pipeline.can_wait(event.readings)
        if not can_wait and any(map(_is_heavy, event.readings)):
            return False
        self._waiting.append(event)
        if not can_wait or len(self._waiting) >= QUEUE_LIMIT:
            self._process_waiting()
        return True

    def _process_waiting(self) -> None:
        """Process the events that were kept, unless later ones are being processed: these came first."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        known_streams = self.pipeline.streams
        records = tuple(chain.from_iterable([self._process_one(event).records for event in waiting]))
        self._saved = self.pipeline.state()
        self.recorder.add_nowait(records, {state_key(self.settings.name): self._saved})
        if self.pipeline.streams - known_streams:
            self.recorder.flush_soon()

    async def _process_and_record(self, events: list[SensorEvent]) -> None:
        async with self._processing:
            await self._process_all(events)

    async def _process_all(self, events: list[SensorEvent]) -> None:
        known_streams = self.pipeline.streams
        output = await self.run_on_analysis_thread(self._process, events)
        memories = [event.memory for event in events if isinstance(event, Notification) and event.memory is not None]
        await self._record(output, memories[-1] if memories else None)
        has_new_stream = bool(self.pipeline.streams - known_streams)
        has_indicated = any(is_spot_reading(event) for event in events)
        # Store the first sample or value at once: after a crash, the gap record begins at the last one in the stored state.
        # Store an indicated reading at once: its sensor may delete it now.
        if has_new_stream or has_indicated:
            await self.recorder.flush()
        self._warn_of_users()

    def _warn_of_users(self) -> None:
        """Log once that results are dropped because nobody has said which of the sensor's users is the patient."""
        if self.settings.user is None and self.pipeline.spots.counters.of_others and not self._has_warned_of_users:
            self._has_warned_of_users = True
            log.warning(
                "%s: it numbers its users, so its results are dropped: set `user` of this sensor to the patient's number",
                self.settings.name,
            )

    async def _record(self, output: Output, memory: Mapping[str, Any] | None = None) -> None:
        """Records the output and, in the same transaction, the state that a restart resumes from and what drivers remember."""
        remembered = {} if memory is None else {memory_key(self.settings.name): memory}
        await self.recorder.add(output.records, {state_key(self.settings.name): self._saved, **remembered})

    def _process(self, events: list[SensorEvent]) -> Output:
        """Converts events to records and beats; called on the analysis thread."""
        outputs: list[Output] = []
        for event in events:
            outputs.append(self._process_one(event))
            self._saved = self.pipeline.state()
        return join_outputs(outputs)

    def _process_one(self, event: SensorEvent) -> Output:
        clock_step = self._check_clock(event.arrival)
        try:
            output = self._feed_pipeline(event)
        except Exception as error:  # noqa: BLE001  whatever one sensor's analysis raises, the other sensors go on
            output = self._restart_pipeline(event, error)
        return join_outputs([Output(clock_step), output]) if clock_step else output

    def _feed_pipeline(self, event: SensorEvent) -> Output:
        match event:
            case Notification(readings=readings, arrival=arrival):
                output = self.pipeline.feed(readings, arrival)
                if self.settings.is_broadcast:  # no link shows that the sensor's clock restarted between two results
                    self.pipeline.spots.on_disconnected()
                return output
            case Interruption(reason, arrival):
                return self.pipeline.on_interruption(reason, arrival)
            case LinkStateChange(state, arrival):
                return Output((self._status("link", state, arrival),))
            case TimePassed(arrival):
                return self.pipeline.advance_to(arrival)
            case Answer(id_, is_patient, arrival):
                return self.pipeline.answer(id_, arrival, is_patient=is_patient)
            case Overflow(notifications, arrival, state):
                dropped = self._status("notifications_dropped", notifications, arrival)
                link = (self._status("link", state, arrival),) if state else ()
                gaps = self.pipeline.on_interruption(OVERFLOW_REASON, arrival).records
                return Output((*gaps, dropped, *link))

    def _check_clock(self, arrival: Arrival) -> tuple[StatusRecord, ...]:
        """Returns a record of the seconds by which the wall clock was set since the last event, if it was."""
        difference_us = arrival.wall_us - arrival.mono_ns // 1000
        step_us = 0 if self._wall_minus_mono_us is None else difference_us - self._wall_minus_mono_us
        self._wall_minus_mono_us = difference_us
        return () if abs(step_us) <= WALL_STEP_US else (self._status(CLOCK_STEP_KIND, step_us / 1e6, arrival),)

    def _status(self, kind: str, value: str | int | float, arrival: Arrival) -> StatusRecord:
        return StatusRecord(self.settings.name, kind, Times(arrival.wall_us, arrival.wall_us, arrival.mono_ns), value)

    def _finish_pipeline(self, now: Arrival) -> Output:
        try:
            output = self.pipeline.finish(now)
            self._saved = self.pipeline.state()
        except Exception as error:  # noqa: BLE001  the other sensors' last results must still be stored
            self._log_failure(error)
            return Output()
        return output

    def _restart_pipeline(self, event: SensorEvent, error: Exception) -> Output:
        """Replaces a pipeline that raised; returns the payload that it could not process, and the start of a gap."""
        failure = self._log_failure(error)
        self.analysis_restarts += 1
        self.pipeline = self.pipeline.restarted(self._saved)
        records = self.pipeline.resume_analysis(event.arrival, RESTART_REASON).records
        match event:
            case Notification(characteristic, payload, _, arrival):
                times = Times(arrival.wall_us, arrival.wall_us, arrival.mono_ns)
                reason = f"its analysis failed: {failure}"
                return Output((QuarantinedRecord(self.settings.name, characteristic, times, payload, reason), *records))
            case _:
                return Output(records)

    def _log_failure(self, error: Exception) -> str:
        """Logs each failure once and returns its type and place. The message of an error could hold a health value."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        failure = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
        if failure not in self._logged_failures:
            self._logged_failures.add(failure)
            log.error("%s: the analysis failed and goes on without this frame; report %s", self.settings.name, failure)
        return failure


def _is_streamed(event: SensorEvent) -> TypeGuard[Notification]:
    """Whether an event holds what was notified, and nothing to be stored with it at once."""
    return isinstance(event, Notification) and event.memory is None and not event.is_indicated


def _is_heavy(reading: Reading) -> bool:
    """Whether a reading is analysed, or must be stored at once."""
    if isinstance(reading, Vital):
        return reading.origin is not None or not is_continuous(reading.kind)
    return isinstance(reading, Waveform)


def memory_key(sensor: str) -> str:
    """The key in the buffer's state under which the hub remembers a sensor's identity and what its drivers remember."""
    return f"{MEMORY_KEY_PREFIX}{sensor}"


def state_key(sensor: str) -> str:
    """The key in the buffer's state under which a sensor's pipeline state is stored."""
    return f"{STATE_KEY_PREFIX}{sensor}"

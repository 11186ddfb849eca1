"""Runs the sensors: each one's session, the processing of its events, and the recording of the results."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from config.process import leaf_errors
from config.settings import SensorSettings
from drivers.registry import Registry
from drivers.spec import DeviceInformation
from gateway.cancellation import finish_despite_cancel
from gateway.clock import Clock
from gateway.pipeline import Pipeline
from gateway.radio import Radio, RadioError
from gateway.recorder import Recorder
from gateway.session import Interruption, LinkState, Notification, SensorEvent, SensorSession
from gateway.timeline import Arrival
from gateway.waveform_analysis import Output, SavedState, join_outputs
from sync.records import QuarantinedRecord, StatusRecord, Times
from sync.transport import WorkerCall

log = logging.getLogger(__name__)

RADIO_RETRY_S: Final = 2.0
"""Pause before the radio is reopened: an unplugged dongle or a restarting Bluetooth service is back within seconds."""
RESTART_REASON: Final = "the analysis failed and was restarted"
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
    state: LinkState = "stopped"
    dropped: int = 0
    analysis_restarts: int = 0
    _device: DeviceInformation = field(default_factory=DeviceInformation)
    _logged_failures: set[str] = field(default_factory=set)
    _saved: SavedState = field(init=False)
    """The pipeline's state after the last event: stored with its records, and resumed from after a failure."""

    def __post_init__(self) -> None:
        self._saved = self.pipeline.state()

    async def resume(self) -> None:
        """Resumes where the last run ended and records the gap since then."""
        output = self.pipeline.resume(self._now())
        self._saved = self.pipeline.state()
        await self._record(output)

    async def run(self, radio: Radio) -> None:
        """Keeps the sensor connected over this radio and processes its events until cancelled."""
        states: asyncio.Queue[LinkState] = asyncio.Queue(64)

        def on_state(_name: str, state: LinkState) -> None:
            self.state = state
            try:
                states.put_nowait(state)
            except asyncio.QueueFull:
                self.dropped += 1

        session = SensorSession(self.settings, radio, self.registry, self.clock, on_state)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(session.run(), name=f"session {self.settings.name}")
                group.create_task(self._record_states(states))
                group.create_task(self._process_events(session))
        finally:
            # The session's last events, including the interruption, must be processed even though all tasks are cancelled.
            await self._process_batch(_drain(session.events))
            self.dropped += session.statistics.dropped

    async def finish(self) -> None:
        """Ends the analysis when the agent stops and records its last results."""
        await self._record(await self.run_on_analysis_thread(self._finish_pipeline, self._now()))

    async def _record_states(self, states: asyncio.Queue[LinkState]) -> None:
        while True:
            state, now = await states.get(), self._now()
            record = StatusRecord(self.settings.name, "link", Times(now.wall_us, now.wall_us, now.mono_ns), state)
            await finish_despite_cancel(self.recorder.add((record,), {}))

    async def _process_events(self, session: SensorSession) -> None:
        while True:
            first = await session.events.get()
            await self._process_batch([first, *_drain(session.events, BATCH_EVENTS - 1)])

    async def _process_batch(self, events: list[SensorEvent]) -> None:
        if events:
            await finish_despite_cancel(self._process_and_record(events))

    async def _process_and_record(self, events: list[SensorEvent]) -> None:
        had_samples = self.pipeline.has_samples
        await self._record(await self.run_on_analysis_thread(self._process, events))
        if not had_samples and self.pipeline.has_samples:
            # Store the first sample at once: after a crash, the gap record begins at the last sample in the stored state.
            await self.recorder.flush()

    async def _record(self, output: Output) -> None:
        """Records the output and, in the same transaction, the state that a restart resumes from."""
        await self.recorder.add(output.records, {state_key(self.settings.name): self._saved})

    def _process(self, events: list[SensorEvent]) -> Output:
        """Converts events to records and beats; called on the analysis thread."""
        return join_outputs([self._process_one(event) for event in events])

    def _process_one(self, event: SensorEvent) -> Output:
        try:
            output = self._feed_pipeline(event)
        except Exception as error:  # noqa: BLE001  whatever one sensor's analysis raises, the other sensors go on
            output = self._restart_pipeline(event, error)
        self._saved = self.pipeline.state()
        return output

    def _feed_pipeline(self, event: SensorEvent) -> Output:
        match event:
            case Notification(characteristic, payload, arrival):
                readings = self.registry.decode(characteristic, payload, self._device)
                self._device = self._device.updated(readings)
                return self.pipeline.feed(readings, arrival)
            case Interruption(reason, arrival):
                return self.pipeline.on_interruption(reason, arrival)

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
        records = self.pipeline.resume(event.arrival, RESTART_REASON).records
        match event:
            case Notification(characteristic, payload, arrival):
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

    def _now(self) -> Arrival:
        return Arrival(self.clock.wall_us(), self.clock.mono_ns())


async def run_sensors(
    open_radio: Callable[[], AbstractAsyncContextManager[Radio]], sensors: Sequence[SensorRunner]
) -> NoReturn:
    """Opens the radio and runs every sensor over it; reopens the radio whenever it is lost."""
    last_logged = ""
    while True:
        try:
            async with open_radio() as radio:
                await _run_until_lost(radio, sensors)
            last_logged = ""
        except* RadioError as group:
            message = str(leaf_errors(group)[0])
            if message != last_logged:
                log.warning("radio: %s", message)
            last_logged = message
        await asyncio.sleep(RADIO_RETRY_S)


async def _run_until_lost(radio: Radio, sensors: Sequence[SensorRunner]) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sensor.run(radio)) for sensor in sensors]
        await radio.lost.wait()
        log.warning("radio: %s was lost", radio.name)
        for task in tasks:
            task.cancel()


def state_key(sensor: str) -> str:
    """The key in the buffer's state under which a sensor's pipeline state is stored."""
    return f"timeline {sensor}"


def _drain(events: asyncio.Queue[SensorEvent], limit: int = 1 << 16) -> list[SensorEvent]:
    """Takes the events that are already queued, at most `limit`, without waiting."""
    drained: list[SensorEvent] = []
    while len(drained) < limit and not events.empty():
        drained.append(events.get_nowait())
    return drained

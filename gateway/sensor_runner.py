"""Runs the sensors: each one's session, the processing of its events, and the recording of the results."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
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
from gateway.waveform_analysis import Output, join_outputs
from sync.records import StatusRecord, Times
from sync.transport import WorkerCall

log = logging.getLogger(__name__)

RADIO_RETRY_S: Final = 2.0
"""Pause before the radio is reopened: an unplugged dongle or a restarting Bluetooth service is back within seconds."""
BATCH_EVENTS: Final = 64
"""The most events of one sensor that are processed in one call on the analysis thread when it is behind."""


@dataclass(slots=True)
class SensorRunner:
    """Runs one sensor. Its pipeline outlives every link; each opened radio gets a new session."""

    settings: SensorSettings
    pipeline: Pipeline
    registry: Registry
    clock: Clock
    recorder: Recorder
    run_on_analysis_thread: WorkerCall
    state: LinkState = "stopped"
    dropped: int = 0
    _device: DeviceInformation = field(default_factory=DeviceInformation)

    async def resume(self) -> None:
        """Resumes where the last run ended and records the gap since then."""
        await self._record(self.pipeline.resume(self._now()))

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
        await self._record(await self.run_on_analysis_thread(self.pipeline.finish, self._now()))

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
        await self.recorder.add(output.records, {state_key(self.settings.name): self.pipeline.state()})

    def _process(self, events: list[SensorEvent]) -> Output:
        """Converts events to records and beats; called on the analysis thread."""
        return join_outputs([self._process_one(event) for event in events])

    def _process_one(self, event: SensorEvent) -> Output:
        match event:
            case Notification(characteristic, payload, arrival):
                readings = self.registry.decode(characteristic, payload, self._device)
                self._device = self._device.updated(readings)
                return self.pipeline.feed(readings, arrival)
            case Interruption(reason, arrival):
                return self.pipeline.on_interruption(reason, arrival)

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

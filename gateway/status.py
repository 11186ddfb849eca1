"""The status file: the agent writes it once a second, and `pulsegate status` reads it.

This module must not import numpy, because `pulsegate status` is expected to start quickly.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from config.files import replacing
from gateway.clock import Clock
from sync.errors import TransientError

if TYPE_CHECKING:  # these modules import numpy
    from gateway.models import LoadedModels
    from gateway.sensor_runner import SensorRunner
    from gateway.storage import Storage

STATUS_FILE: Final = "status.json"
"""The name of the status file in the data folder."""
STATUS_INTERVAL_S: Final = 1.0
"""How often the status file is written."""
STALE_AFTER_S: Final = 3 * STATUS_INTERVAL_S
"""A status file older than three intervals means that the agent is not running."""
STALL_S: Final = 0.05
"""A loop that responds later than this delays a notification's timestamp by a noticeable part of an RR interval."""


@dataclass(slots=True)
class StatusReporter:
    """Writes the agent's counters and states to the status file, and counts the stalls of the event loop."""

    folder: Path
    clock: Clock
    hub: str
    storage: "Storage"
    sensors: Sequence["SensorRunner"]
    models: "LoadedModels"
    loop_stalls: int = 0

    async def run(self) -> NoReturn:
        """Writes the status file at every interval until cancelled."""
        while True:
            await self.write()
            await asyncio.sleep(STATUS_INTERVAL_S)

    async def watch_loop(self) -> NoReturn:
        """Counts the stalls of the event loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + STALL_S
            await asyncio.sleep(STALL_S)
            if loop.time() - due_s > STALL_S:
                self.loop_stalls += 1

    async def write(self) -> None:
        """Writes the status file if possible: a full disk or a locked buffer leaves it stale and does not stop the agent."""
        with contextlib.suppress(OSError, TransientError):
            await self.storage.call(self._write_file)

    def _write_file(self) -> None:
        _replace_file(self.folder / STATUS_FILE, json.dumps(self._collect(), indent=1))

    def _collect(self) -> dict[str, object]:
        """Returns counters and states of one moment, but no health values.

        Called on the storage thread: meanwhile the buffer does not change, so what was stored, sent and acknowledged agrees.
        """
        outbox = self.storage.outbox
        buffered = outbox.statistics()
        counters, uplink = self.storage.recorder.counters, self.storage.uplink.statistics
        return {
            "at_us": self.clock.wall_us(),
            "hub": self.hub,
            "sensors": {sensor.settings.name: sensor.state for sensor in self.sensors},
            "uplink_problem": uplink.problem,
            "identity_is_copied": uplink.is_copied,
            "update_by_s": uplink.update_by_s,
            "buffer_is_nearly_full": outbox.is_nearly_full,
            "aside_reason": uplink.aside_reason,
            "refused_reason": uplink.refused_reason,
            "ignored_reason": uplink.ignored_reason,
            "models": self.models.status(),
            "samples_received": counters.samples_received,
            "samples_lost": counters.samples_lost,
            "gaps": counters.gaps,
            "quarantined": counters.quarantined,
            "alerts": counters.alerts,
            "values_left_out": counters.values_left_out,
            "failed_writes": counters.failed_writes,
            "blocks_stored": buffered.stored,
            "blocks_sent": uplink.blocks_sent,
            "blocks_acked": buffered.acknowledged,
            "blocks_pending": sum(buffered.pending.values()),
            "blocks_without_receipt": buffered.unopened,
            "blocks_aside": buffered.aside,
            "blocks_refused": buffered.refused,
            "blocks_dropped": buffered.dropped,
            "messages_ignored": uplink.ignored_messages,
            "pauses": uplink.pauses,
            "notifications_dropped": sum(sensor.events.dropped for sensor in self.sensors),
            "results_repeated": sum(sensor.pipeline.spots.counters.repeats for sensor in self.sensors),
            "results_of_others": sum(sensor.pipeline.spots.counters.of_others for sensor in self.sensors),
            "results_unconfirmed": sum(len(sensor.pipeline.spots.held) for sensor in self.sensors),
            "results_given_up": sum(sensor.pipeline.spots.counters.given_up for sensor in self.sensors),
            "analysis_restarts": sum(sensor.analysis_restarts for sensor in self.sensors),
            "loop_stalls": self.loop_stalls,
        }


def read_status(folder: Path) -> Mapping[str, Any]:
    """Returns the last status that an agent with this data folder wrote.

    Raises:
        OSError: the file cannot be read; it does not exist if the agent has never run.
        ValueError: the file is not a status file.
    """
    status = json.loads((folder / STATUS_FILE).read_text(encoding="utf-8"))
    if not isinstance(status, dict) or not isinstance(status.get("at_us"), int):
        raise ValueError(f"{folder / STATUS_FILE} is not a status file")  # noqa: TRY004 - a damaged file, not a wrong call
    return status


def _replace_file(path: Path, text: str) -> None:
    """Writes the file atomically: readers see the old text or the new one, never a part of it."""
    with replacing(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")

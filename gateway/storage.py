"""The agent's buffer together with the recorder that fills it and the uplink that empties it."""

import asyncio
from dataclasses import dataclass
from typing import Final

from gateway.recorder import Recorder
from sync.outbox import Outbox
from sync.transport import WorkerCall
from sync.uplink import Uplink
from sync.wire import UPLINK_LANES

POLL_INTERVAL_S: Final = 0.1
"""Interval at which the number of pending blocks is checked."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The outbox, its recorder and its uplink; `call` runs a function on the storage thread."""

    outbox: Outbox
    recorder: Recorder
    uplink: Uplink
    call: WorkerCall

    async def wait_acknowledged(self) -> None:
        """Returns when the clinic has acknowledged every block in the lanes that are uploaded."""
        while True:
            pending = (await self.call(self.outbox.statistics)).pending
            if not any(pending[lane] for lane in UPLINK_LANES):
                return
            await asyncio.sleep(POLL_INTERVAL_S)

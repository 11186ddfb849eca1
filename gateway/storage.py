"""The agent's buffer together with the recorder that fills it and the uplink that empties it."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, NoReturn

from gateway.recorder import Recorder
from sync.errors import TransientError
from sync.outbox import Outbox
from sync.transport import WorkerCall
from sync.uplink import Uplink
from sync.wire import UPLINK_LANES

POLL_INTERVAL_S: Final = 0.1
"""Interval at which the number of pending blocks is checked."""
TIDY_INTERVAL_S: Final = 5.0
"""Interval at which the buffer deletes some of what it need not keep: longer than such a step takes on an SD card, and short
enough to read a full buffer within a day."""

log: Final = logging.getLogger(__name__)


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

    async def keep_tidy(self) -> NoReturn:
        """Deletes what the buffer need not keep any longer, a little at a time, until cancelled."""
        while True:
            await asyncio.sleep(TIDY_INTERVAL_S)
            try:
                await self.call(self.outbox.tidy)
            except TransientError as error:
                log.warning("cannot delete old blocks, will try again: %s", error)

"""The counters in the status file are of one moment."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.clock import SystemClock
from gateway.recorder import RecorderCounters
from gateway.status import StatusReporter, read_status
from sync.outbox import OutboxStatistics
from sync.uplink import UplinkStatistics


def test_blocks_sent_while_the_status_is_collected_are_not_counted_beside_older_numbers(tmp_path: Path) -> None:
    """The storage thread answers; before the event loop continues, a block is stored, sent and acknowledged."""
    uplink, blocks = UplinkStatistics(), [5]

    def statistics() -> OutboxStatistics:
        return OutboxStatistics(stored=blocks[0], pending={}, acknowledged=blocks[0], bytes=0, oldest_s={})

    async def call(function: Any, *arguments: Any) -> Any:
        result = function(*arguments)
        blocks[0] += 1
        uplink.blocks_sent = blocks[0]
        return result

    storage: Any = SimpleNamespace(
        call=call,
        outbox=SimpleNamespace(statistics=statistics, is_nearly_full=False),
        recorder=SimpleNamespace(counters=RecorderCounters()),
        uplink=SimpleNamespace(statistics=uplink),
    )
    uplink.blocks_sent = 5
    models: Any = SimpleNamespace(status=dict)
    asyncio.run(StatusReporter(tmp_path, SystemClock(), "hub-1", storage, (), models).write())
    status = read_status(tmp_path)
    assert (status["blocks_stored"], status["blocks_sent"], status["blocks_acked"]) == (5, 5, 5)

"""The hub's durable buffer: `outbox` has its interface; the other modules each do a part of it."""

from sync.outbox.keys import read_keys
from sync.outbox.outbox import (
    NEWEST,
    Applied,
    BufferLimits,
    Outbox,
    OutboxBlock,
    OutboxStatistics,
    StoredState,
)
from sync.outbox.repair import SALVAGE_STATE
from sync.outbox.state import read_states

__all__ = [
    "NEWEST",
    "SALVAGE_STATE",
    "Applied",
    "BufferLimits",
    "Outbox",
    "OutboxBlock",
    "OutboxStatistics",
    "StoredState",
    "read_keys",
    "read_states",
]

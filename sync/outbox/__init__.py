"""The hub's durable buffer: `outbox` has its interface; the other modules each do a part of it."""

from sync.outbox.acks import Applied
from sync.outbox.keys import read_keys
from sync.outbox.outbox import NEWEST, Outbox
from sync.outbox.repair import SALVAGE_STATE
from sync.outbox.room import BufferLimits
from sync.outbox.state import StoredState, read_states
from sync.outbox.stored_blocks import OutboxBlock
from sync.outbox.views import OutboxStatistics

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

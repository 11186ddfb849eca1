"""The hub's durable buffer: `outbox` has its interface; the other modules each do a part of it."""

from sync.outbox.outbox import (
    NEWEST,
    Applied,
    BufferLimits,
    Outbox,
    OutboxBlock,
    OutboxStatistics,
    StoredState,
)

__all__ = ["NEWEST", "Applied", "BufferLimits", "Outbox", "OutboxBlock", "OutboxStatistics", "StoredState"]

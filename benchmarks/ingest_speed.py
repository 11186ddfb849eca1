"""Blocks a second that the clinic's ingest commits and acknowledges, on SQLite or PostgreSQL."""

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from cloud.ingest import handle_message
from cloud.store import Store
from sync.mqtt import Message
from sync.seal import BlockHeader, DataKey, seal_block
from sync.wire import Envelope, WrappedKey, encode_envelope, up_topic

BLOCK_BYTES = 1000
"""A second of a strap's ECG and vital signs, sealed."""


def make_messages(n: int, blocks_each: int, hub: str = "hub-1") -> list[Message]:
    """Return messages of one hub's lane."""
    key = DataKey.generate()
    wrapped = (WrappedKey(key.id, bytes(1177)),)
    messages = []
    for first in range(1, n * blocks_each, blocks_each):
        headers = [BlockHeader(hub, "subject-1", 1, "wave", seq, key.id) for seq in range(first, first + blocks_each)]
        blocks = tuple(seal_block(header, bytes(BLOCK_BYTES), key) for header in headers)
        messages.append(Message(up_topic(hub, "wave"), encode_envelope(Envelope(hub, blocks, wrapped if first == 1 else ()))))
    return messages


def measure(location: Any, n: int, blocks_each: int) -> float:
    """Return blocks per second; the database must be new."""
    messages = make_messages(n, blocks_each)
    with closing(Store.open(location)) as store:
        start = time.perf_counter()
        for message in messages:
            handle_message(store, message, time.time_ns() // 1000)
        return n * blocks_each / (time.perf_counter() - start)


if __name__ == "__main__":
    from cloud.database_url import PostgresUrl

    place = sys.argv[1]
    where = PostgresUrl.parse(place) if "://" in place else Path(place)
    print(round(measure(where, int(sys.argv[2]), int(sys.argv[3]))))

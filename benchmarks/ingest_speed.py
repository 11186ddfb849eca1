"""Blocks a second that the clinic's ingest verifies, commits and acknowledges, on SQLite or PostgreSQL."""

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from cloud.ingest import handle_message
from cloud.registry import Assignment, RegisteredHub
from cloud.store import Store
from sync.chain import block_digest, extend_chain, start_chain
from sync.data_keys import DataKey, WrappedKey, sign_statement
from sync.message_rows import Head
from sync.messages import Envelope, encode_envelope
from sync.mqtt import Message
from sync.seal import BlockHeader, seal_block
from sync.signing import SigningKey, Use, VerifyingKey
from sync.wire import EPOCH_RANDOM_BITS, up_topic

BLOCK_BYTES = 1000
"""A second of a strap's ECG and vital signs, sealed."""
HUB, SUBJECT = "hub-1", "subject-1"
EPOCH = int(time.time()) << EPOCH_RANDOM_BITS


class OneHub:
    """A registry of one hub."""

    def __init__(self, device: VerifyingKey) -> None:
        self._hub = RegisteredHub(HUB, device, (Assignment(SUBJECT, 0),))

    def device_key(self, hub: str) -> VerifyingKey | None:
        return self._hub.device if hub == HUB else None

    def may_seal(self, hub: str, subject: str, epoch: int) -> bool:
        return hub == HUB and subject == SUBJECT and epoch > 0

    def assignments(self, _hub: str) -> tuple[Assignment, ...]:
        return self._hub.assignments


def make_messages(n: int, blocks_each: int, device: SigningKey) -> list[Message]:
    """Return messages of one hub's lane. The first has the data key; each has the lane's head at its time."""
    key = DataKey.generate()
    statement = sign_statement(key, hub=HUB, subject=SUBJECT, day=1, device=device)
    wrapped = WrappedKey(key.id, bytes(8), bytes(1168))
    chain, messages = start_chain(HUB, "wave", EPOCH), []
    for first in range(1, n * blocks_each + 1, blocks_each):
        blocks = []
        for seq in range(first, first + blocks_each):
            blocks.append(seal_block(BlockHeader(HUB, SUBJECT, EPOCH, "wave", seq, key.id), bytes(BLOCK_BYTES), key))
            chain = extend_chain(chain, block_digest(blocks[-1]))
        heads = (Head("wave", first + blocks_each - 1, chain, 0),)
        keys, wraps = ((statement,), (wrapped,)) if first == 1 else ((), ())
        envelope = Envelope(HUB, EPOCH, None, heads, None, tuple(blocks), keys, wraps)
        messages.append(Message(up_topic(HUB, "wave"), encode_envelope(envelope, device)))
    return messages


def measure(location: Any, n: int, blocks_each: int) -> float:
    """Return blocks per second; the database must be new."""
    device, key = SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.ACKNOWLEDGEMENT)
    messages, registry = make_messages(n, blocks_each, device), OneHub(device.public)
    with closing(Store.open(location)) as store:
        start = time.perf_counter()
        for message in messages:
            payload, _, n_new = handle_message(store, registry, key, message, time.time_ns() // 1000)
            assert payload is not None
            assert n_new == blocks_each
        return n * blocks_each / (time.perf_counter() - start)


if __name__ == "__main__":
    from cloud.database_url import PostgresUrl

    place = sys.argv[1]
    where = PostgresUrl.parse(place) if "://" in place else Path(place)
    print(round(measure(where, int(sys.argv[2]), int(sys.argv[3]))))

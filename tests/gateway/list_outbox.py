"""An outbox in memory, and a worker that is not a thread, for tests of what records."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from sync.record_codec import decode_records
from sync.records import Record
from sync.wire import Lane

T = TypeVar("T")


class ListOutbox:
    """Keeps the blocks and the newest states that were stored with them."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Lane, bytes]] = []
        self.states: dict[str, bytes] = {}
        self.is_nearly_full = False

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> list[object]:
        self.blocks.extend(blocks)
        self.states.update(state or {})
        return []

    def records(self) -> list[Record]:
        return [record for _, plaintext in self.blocks for record in decode_records(plaintext)]


async def call_inline(function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments)

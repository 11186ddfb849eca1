"""A hub's outbox, a clinic's store, and a link between them in one process that can lose messages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloud.store import Store
from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair, open_block, parse_header, unwrap_at_clinic
from tests.databases import Databases
from tests.link import Link

HUB = "hub-1"


@dataclass
class Testbed:
    """The outbox of a hub, and the store and keys of a clinic."""

    outbox: Outbox
    store: Store
    keys: ClinicKeyPair
    folder: Path
    sealed_at_s: list[int] = field(default_factory=lambda: [1_790_000_000])

    def opened_plaintexts(self) -> list[bytes]:
        """Return the plaintexts of all stored blocks, in the order of commit."""
        plaintexts = []
        for row in self.store.blocks_after(None, 100_000):
            header = parse_header(row.block)
            wrapped = self.store.wrapped_key(row.hub, row.key)
            assert wrapped is not None
            key = unwrap_at_clinic(wrapped, key_id=row.key, hub=header.hub, subject=header.subject, clinic=self.keys)
            plaintexts.append(open_block(row.block, key)[1])
        return plaintexts

    def is_drained(self) -> bool:
        return not any(self.outbox.statistics().pending.values())


@pytest.fixture
def testbed(tmp_path: Path, databases: Databases) -> Iterator[Testbed]:
    keys = ClinicKeyPair.generate()
    sealed_at_s = [1_790_000_000]
    outbox = Outbox.open(
        tmp_path / "outbox.db",
        hub=HUB,
        subject="subject-1",
        hub_key=HubKey(bytes(32)),
        clinic=keys.public,
        clock=lambda: sealed_at_s[0],
    )
    store = Store.open(databases.location("blocks"))
    yield Testbed(outbox, store, keys, tmp_path, sealed_at_s)
    outbox.close()
    store.close()


@pytest.fixture
def make_link() -> Callable[[], Link]:
    return Link

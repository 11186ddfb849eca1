"""A clinic's store with a registry; a registered hub that sends to it by hand, and one with an outbox of its own."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloud.store import Store
from sync.data_keys import unwrap_key
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.seal import open_block
from sync.signing import SigningKey, Use
from sync.uplink import Uplink, UplinkCallbacks
from tests.cloud_ingest.ingest_testbed import ACK_KEY, HUB, START_S, SUBJECT, Receiver, SendingHub
from tests.databases import Databases
from tests.link import Link


@pytest.fixture
def clinic(databases: Databases) -> Iterator[Receiver]:
    with closing(Store.open(databases.location("blocks"))) as store:
        yield Receiver(store)


@pytest.fixture
def hub(clinic: Receiver) -> SendingHub:
    return SendingHub().register(clinic.registry)


@pytest.fixture
def make_link() -> Callable[[], Link]:
    return Link


@dataclass
class Testbed:
    """The outbox of a registered hub, and the clinic that it sends to."""

    outbox: Outbox
    clinic: Receiver
    keys: HubKeys
    recipient: RecipientKeyPair
    registration: Registration

    def uplink(self, transport: Any, call: Any) -> Uplink:
        registration = self.registration
        return Uplink(
            self.outbox,
            transport,
            hub=HUB,
            keys=self.keys,
            registration=registration,
            call=call,
            callbacks=UplinkCallbacks(),
        )

    def opened_plaintexts(self) -> list[bytes]:
        """Return the plaintexts of all stored blocks."""
        store, plaintexts = self.clinic.store, []
        for row in store.blocks_after(None, 100_000):
            statement, (wrapped,) = store.key_statement(row.hub, row.key), store.wrapped_keys(row.hub, row.key)
            assert statement is not None
            key = unwrap_key(wrapped, statement, hub=row.hub, recipient=self.recipient)
            plaintexts.append(open_block(row.block, key)[1])
        return plaintexts

    def is_drained(self) -> bool:
        return not any(self.outbox.statistics().pending.values())


@pytest.fixture
def testbed(tmp_path: Path, clinic: Receiver, hub: SendingHub) -> Iterator[Testbed]:
    recipient, receipt = RecipientKeyPair.generate(), SigningKey.generate(Use.RECEIPT)
    registration = Registration(HUB, "main", ACK_KEY.public, receipt.public, 24, START_S - 1, {SUBJECT: recipient.public})
    keys = HubKeys(HubKey(bytes(32)), hub.device)
    path = tmp_path / "outbox.db"
    outbox = Outbox.open(path, hub=HUB, subject=SUBJECT, keys=keys, registration=registration, clock=lambda: START_S)
    with closing(outbox):
        yield Testbed(outbox, clinic, keys, recipient, registration)

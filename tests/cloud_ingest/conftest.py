"""A clinic's store with a registry, and a registered hub that sends to it."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from cloud.store import Store
from tests.cloud_ingest.ingest_testbed import Receiver, SendingHub
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

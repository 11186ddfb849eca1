"""On PostgreSQL each month of epochs has a partition, made before its blocks arrive; implausible epochs have one together."""

from contextlib import closing
from datetime import UTC, datetime

from sqlalchemy import text

from cloud.store import Store
from cloud.store.partitions import RETRY_US, create_partitions
from sync.wire import EPOCH_RANDOM_BITS, MAX_COUNT
from tests.clinic_testbed import Clinic
from tests.cloud.synthetic import heart_rate
from tests.databases import Databases

DATABASES = ("postgresql",)
YEAR = 2041
"""No other test has blocks of this year. The partitions outlive the test."""


def epoch(month: int, day: int = 15) -> int:
    return int(datetime(YEAR, month, day, tzinfo=UTC).timestamp()) << EPOCH_RANDOM_BITS


def at_us(month: int, day: int = 15) -> int:
    return (epoch(month, day) >> EPOCH_RANDOM_BITS) * 1_000_000


def partitions(store: Store) -> dict[str, list[int]]:
    """The epochs in each partition of the test's year and in the default one."""
    with store.transaction() as connection:
        rows = connection.execute(text("SELECT tableoid::regclass::text AS name, epoch FROM blocks ORDER BY epoch")).all()
        names = connection.scalars(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'blocks'::regclass ORDER BY 1")
        ).all()
    of_year = [name for name in names if name.startswith(f"blocks_{YEAR}") or name == "blocks_default"]
    return {name: [row.epoch for row in rows if row.name == name] for name in of_year}


def send(store: Store, clinic: Clinic, epochs: list[int], received_us: int) -> None:
    for index, each in enumerate(epochs):
        hub = clinic.add_hub(f"hub-{index}-{received_us}", epoch=each)
        hub.send(store, "vital", heart_rate(received_us, 60.0), received_us=received_us)


def test_blocks_go_into_the_partition_of_their_month(databases: Databases, clinic: Clinic) -> None:
    databases.lose("blocks")
    with closing(Store.open(databases.location("blocks"))) as store:
        early, implausible = epoch(12), MAX_COUNT
        send(store, clinic, [epoch(3), epoch(4), early, 1, implausible], at_us(3))
        assert partitions(store) == {
            "blocks_2041_03": [epoch(3)],
            "blocks_2041_04": [epoch(4)],
            "blocks_default": [1, early, implausible],
        }
        send(store, clinic, [epoch(12, 31), epoch(4, 1)], at_us(12, 31))
        assert partitions(store) == {
            "blocks_2041_03": [epoch(3)],
            "blocks_2041_04": [epoch(4, 1), epoch(4)],
            "blocks_2041_12": [early, epoch(12, 31)],
            "blocks_default": [1, implausible],
        }
        assert len(store.blocks_after(None, 99)) == store.count_blocks() == 7


def test_a_repeated_block_of_any_partition_is_stored_once(store: Store, clinic: Clinic) -> None:
    for each in (epoch(6), 1, MAX_COUNT):
        hub = clinic.add_hub(f"hub-{each}", epoch=each)
        message = hub.message(hub.seal_records("vital", heart_rate(at_us(6), 60.0)))
        assert [hub.receive(store, message, at_us(6))[1] for _ in range(2)] == [1, 0]


def test_blocks_in_use_delay_a_partition_and_no_block(store: Store, clinic: Clinic) -> None:
    """The block goes into the default partition and is moved a minute later."""
    hub = clinic.add_hub("hub-1", epoch=epoch(10))
    with store.transaction() as reading:
        reading.execute(text("SELECT count(*) FROM blocks"))
        hub.send(store, "vital", heart_rate(at_us(10), 60.0), received_us=at_us(10))
        assert partitions(store)["blocks_default"] == [epoch(10)]
    hub.send(store, "vital", heart_rate(at_us(10), 60.0), received_us=at_us(10) + RETRY_US - 1)
    assert "blocks_2041_10" not in partitions(store)
    hub.send(store, "vital", heart_rate(at_us(10), 60.0), received_us=at_us(10) + RETRY_US)
    assert partitions(store)["blocks_2041_10"] == [epoch(10)] * 3


def test_a_partition_that_exists_is_used(store: Store) -> None:
    for _ in range(2):
        with store.transaction() as connection:
            assert create_partitions(connection, at_us(8)) == at_us(9, 1)

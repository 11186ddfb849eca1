"""The partitions of the blocks on PostgreSQL: one for each month of epochs, and a default one for implausible epochs.

SQLite has one table. The month of now and the next have a partition before blocks of that month arrive.
"""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, text

from cloud.databases import POSTGRESQL
from sync.wire import EPOCH_RANDOM_BITS

_MONTHS_PER_YEAR: Final = 12
_MONTHS_AHEAD: Final = 1
"""A hub's clock may be ahead of the clinic's; an epoch one month ahead is still plausible."""
RETRY_US: Final = 60 * 1_000_000
"""When to try again after other transactions held the blocks. Until then new blocks go into the default partition."""
_LOCK_TIMEOUT_MS: Final = 500
"""Everything else that uses the blocks waits meanwhile. A commit takes tens of ms."""
_US_PER_S: Final = 1_000_000


def create_default_partition(connection: Connection) -> None:
    """Create the partition for all epochs that have no other."""
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql("CREATE TABLE blocks_default PARTITION OF blocks DEFAULT")


def create_partitions(connection: Connection, now_us: int) -> int:
    """Create the partitions of this month and the next, if they do not exist; returns until when they suffice (µs since 1970).

    Blocks of such a month that came before are moved from the default partition. It locks all blocks.
    """
    now = datetime.fromtimestamp(now_us // _US_PER_S, UTC)
    this_month = now.year * _MONTHS_PER_YEAR + now.month - 1
    if connection.dialect.name == POSTGRESQL:
        for month in range(this_month, this_month + _MONTHS_AHEAD + 1):
            _create_partition(connection, month)
    return int(_start_of(this_month + 1).timestamp()) * _US_PER_S


def _create_partition(connection: Connection, month: int) -> None:
    name = f"blocks_{_start_of(month):%Y_%m}"
    if _exists(connection, name):
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql("LOCK TABLE blocks IN ACCESS EXCLUSIVE MODE")
    if _exists(connection, name):  # another ingest has created it meanwhile
        return
    first, end = (int(_start_of(start).timestamp()) << EPOCH_RANDOM_BITS for start in (month, month + 1))
    for statement in (
        f"CREATE TABLE {name} (LIKE blocks INCLUDING ALL)",
        f"WITH moved AS (DELETE FROM blocks_default WHERE epoch >= {first} AND epoch < {end} RETURNING *)"  # noqa: S608
        f" INSERT INTO {name} SELECT * FROM moved",
        f"ALTER TABLE blocks ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({end})",
    ):
        connection.exec_driver_sql(statement)


def _exists(connection: Connection, name: str) -> bool:
    return connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar_one() is not None


def _start_of(month: int) -> datetime:
    return datetime(month // _MONTHS_PER_YEAR, month % _MONTHS_PER_YEAR + 1, 1, tzinfo=UTC)

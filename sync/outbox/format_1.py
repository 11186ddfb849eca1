"""Seals the pending blocks of format 1 again, after the migration to schema 3 has set them aside in `blocks_1` and `keys_1`."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from sync.data_keys import DataKey
from sync.errors import PermanentError
from sync.format_1.blocks import open_block, parse_header
from sync.format_1.records import decode_records
from sync.keys import HubKey
from sync.outbox.database import OutboxDatabase
from sync.outbox.keys import local_purpose
from sync.record_codec import encode_records
from sync.records import RecordError
from sync.wire import LANES, Lane

log: Final = logging.getLogger(__name__)

_STEP_BLOCKS: Final = 64
"""Blocks that one transaction seals again: at most 4 MB, so that a full disk needs little more room than the blocks have."""
Put = Callable[[list[tuple[Lane, bytes]], str], object]
"""Seals and stores blocks of a subject, within a transaction."""


def reseal_blocks(database: OutboxDatabase, hub_key: HubKey, put: Put) -> None:
    """Seal the blocks of format 1 again, oldest first in each lane. An interrupted call is continued by the next one.

    Raises:
        RegistrationError: the registration has no recipient for the subject of a block. The block is kept.
    """
    if database.row("SELECT 1 FROM sqlite_schema WHERE name = 'blocks_1'") is None:
        return
    for lane in LANES:
        while database.run(partial(_reseal_some, database, hub_key, put, lane)):
            pass
    database.run(lambda: _finish(database))


def report_unreadable(database: OutboxDatabase) -> None:
    """Log how many blocks of format 1 could not be opened. They stay in the table `unreadable_1`."""
    count = database.rows("SELECT count(*) FROM unreadable_1")[0][0]
    if count:
        log.error("%d blocks of format 1 cannot be opened; %s keeps them in its table unreadable_1", count, database.path)


def _reseal_some(database: OutboxDatabase, hub_key: HubKey, put: Put, lane: Lane) -> bool:
    """Seal the oldest blocks of a lane again. Returns whether there were any."""
    query = "SELECT lane, epoch, seq, key, sealed FROM blocks_1 WHERE lane = ? ORDER BY epoch, seq LIMIT ?"
    rows = database.rows(query, lane, _STEP_BLOCKS)
    for row in rows:
        id_, key, sealed = row[:3], row[3], row[4]
        try:
            subject, plaintext = _open(database, hub_key, key, sealed)
        except (PermanentError, RecordError) as error:
            log.warning("cannot open block %s of format 1: %s", id_, error)
            database.execute("INSERT INTO unreadable_1 VALUES (?, ?, ?, ?, ?)", *row)
        else:
            put([(lane, plaintext)], subject)
        database.execute("DELETE FROM blocks_1 WHERE lane = ? AND epoch = ? AND seq = ?", *id_)
    return bool(rows)


def _open(database: OutboxDatabase, hub_key: HubKey, key: bytes, sealed: bytes) -> tuple[str, bytes]:
    """The subject of a block, and its plaintext in format 2."""
    row = database.row("SELECT subject, local FROM keys_1 WHERE id = ?", key)
    if row is None:
        raise PermanentError("the buffer has no key for it")
    secret = hub_key.open(row[1], local_purpose(key))
    subject = parse_header(sealed).subject
    if subject != row[0]:
        raise PermanentError("its header names another subject than its key")
    return subject, encode_records(decode_records(open_block(sealed, DataKey(key, secret))))


def _finish(database: OutboxDatabase) -> None:
    with database.destroying():
        database.execute("DROP TABLE keys_1")
    database.execute("DROP TABLE blocks_1")

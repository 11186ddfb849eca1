"""Checks an open buffer for damage. The check at the start is bounded; `sync.outbox.scrub` reads all blocks afterwards."""

import contextlib
from typing import Final

from sync.errors import DamagedBufferError
from sync.keys import HubKey
from sync.outbox.block_tables import SEQ_BITS
from sync.outbox.database import OutboxDatabase
from sync.outbox.epochs import CLOCK_LEAP_S
from sync.outbox.keys import local_purpose
from sync.outbox.state import state_purpose
from sync.seal import SealError
from sync.wire import EPOCH_RANDOM_BITS, LANES

FULL_CHECK_BYTES: Final = 64 * 1024 * 1024
"""A larger buffer is not read wholly at the start. An SD card reads this in 2 to 3 s; 460 MB took 3.3 s from memory."""
_WAL_VERSIONS: Final = b"\2\2"
"""The bytes of the file's header that say that it has a WAL; with other ones SQLite does not write."""
_COLUMNS: Final = {
    "buffer": "hub, hub_key_check, epoch, previous, generation, store, fence, commits",
    "keys": "number, id, subject, day, commitment, signature, local, held",
    "wraps": "key, recipient, wrapped, held",
    "recipients": "subject, public",
    "sequences": "id, lane, epoch, last, chain, mark, open_from, pending, unopened, released, aside, refused, dropped, bytes,"
    " open_bytes",
    "dropped": "sequence, first, last, chain",
    "state": "subject, name, sealed",
}
_BLOCK_COLUMNS: Final = "id, state, since, key, digest, chain, sealed"


def check_integrity(database: OutboxDatabase, hub_key: HubKey) -> None:
    """Check what a start can read within seconds: all of a small buffer; of a large one, all but the blocks.

    Raises:
        DamagedBufferError: something is damaged.
    """
    found = _find_damage(database, hub_key)
    if found is not None:
        raise DamagedBufferError(f"the buffer {database.path} is damaged ({found}): what is readable is kept in a new buffer")


def _find_damage(database: OutboxDatabase, hub_key: HubKey) -> str | None:
    with database.path.open("rb") as file:
        if file.read(20)[18:] != _WAL_VERSIONS:
            return "its header"
    columns = _COLUMNS | {f"blocks_{lane}": _BLOCK_COLUMNS for lane in LANES}
    for table, names in columns.items():  # raises an error if the schema is damaged
        database.rows(f"SELECT {names} FROM {table} LIMIT 0")
    checks = [f"integrity_check({table})" for table in _COLUMNS]
    if database.path.stat().st_size <= FULL_CHECK_BYTES:
        checks.append("quick_check(1)")
    for check in checks:
        result = str(database.rows(f"PRAGMA {check}")[0][0])
        if result != "ok":
            return result
    if database.rows("SELECT count(*) FROM buffer") != [(1,)]:
        return "its table `buffer` does not have one row"
    epoch = database.rows("SELECT epoch FROM buffer")[0][0]
    newest = database.rows("SELECT max(epoch) FROM sequences")[0][0] or epoch
    if not 0 <= epoch - newest <= CLOCK_LEAP_S << EPOCH_RANDOM_BITS:
        return "its epoch"
    return _find_damaged_value(database, hub_key)


def _find_damaged_value(database: OutboxDatabase, hub_key: HubKey) -> str | None:
    """What SQLite cannot know: whether sealed values can be opened, and sequences end with their last block."""
    for id_, local in database.rows("SELECT id, local FROM keys WHERE length(local) > 0"):
        if not _can_open(hub_key, local, local_purpose(id_)):
            return "a data key"
    for subject, name, sealed in database.rows("SELECT subject, name, sealed FROM state"):
        if not _can_open(hub_key, sealed, state_purpose(subject, name)):
            return f"the state {name}"
    for id_, lane, last, chain in database.rows("SELECT id, lane, last, chain FROM sequences WHERE bytes > 0"):
        if lane not in LANES:
            return "a lane"
        query = f"SELECT id, chain FROM blocks_{lane} WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1"
        for row_id, value in database.rows(query, id_ << SEQ_BITS, (id_ + 1 << SEQ_BITS) - 1):
            seq = row_id - (id_ << SEQ_BITS)
            if seq > last or (seq == last and value != chain):
                return f"the end of a sequence in lane {lane}"
    return None


def _can_open(hub_key: HubKey, sealed: bytes, purpose: bytes) -> bool:
    with contextlib.suppress(SealError):
        hub_key.open(sealed, purpose)
        return True
    return False

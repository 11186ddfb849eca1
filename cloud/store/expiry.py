"""Deletes from the store what is past its retention, a little in each transaction. `cloud.retention` says what that is.

Blocks go by whole sequences: an epoch lasts a day at most, so that all its blocks expire together.
"""

from typing import Final, NamedTuple

from sqlalchemy import Connection, SelectBase, and_, func, or_, select, tuple_

from cloud.store import tables
from cloud.store.commit_counts import count_commit
from cloud.store.erasure import note_erased_sequences
from cloud.store.stored_blocks import StoreCounts
from cloud.store.tables import CONFLICT
from sync.wire import EPOCH_RANDOM_BITS

PAGE_ROWS: Final = 500
"""Rows that one transaction deletes: tens of ms, so that no ingest waits longer."""
_DAY_S: Final = 86_400


class ExpiredSequence(NamedTuple):
    """A sequence whose blocks have all expired, with their subject and number."""

    hub: str
    epoch: int
    lane: str
    subject: str
    n: int


def list_expired(connection: Connection, before_s: int) -> list[ExpiredSequence]:
    """Return the sequences that began a day before a time and came before it, and whose subject may be deleted.

    A subject may not be deleted while a hold or the treatment lasts: that is, while it has data of a day since then.
    """
    blocks = tables.blocks.c
    last_epoch = (before_s - _DAY_S) << EPOCH_RANDOM_BITS
    query = (
        select(blocks.hub, blocks.epoch, blocks.lane, func.max(blocks.subject), func.count())
        .where(blocks.epoch < last_epoch, blocks.subject.not_in(_kept_subjects(before_s)))
        .group_by(blocks.hub, blocks.epoch, blocks.lane)
        .having(func.max(blocks.received_us) < before_s * 1_000_000)
        .order_by(blocks.hub, blocks.epoch, blocks.lane)
    )
    return [ExpiredSequence(*row) for row in connection.execute(query)]


def delete_page(connection: Connection, expired: ExpiredSequence) -> int:
    """Delete some blocks of a sequence, and note that it is not missing; returns how many."""
    blocks, work = tables.blocks, tables.work
    sequence = (expired.hub, expired.epoch, expired.lane)
    of_blocks = tuple_(blocks.c.hub, blocks.c.epoch, blocks.c.lane) == sequence
    seqs = list(connection.scalars(select(blocks.c.seq).where(of_blocks).order_by(blocks.c.seq).limit(PAGE_ROWS)))
    if not seqs or connection.execute(select(tables.holds.c.subject).where(tables.holds.c.subject == expired.subject)).first():
        return 0
    connection.execute(work.delete().where(tuple_(work.c.hub, work.c.epoch, work.c.lane) == sequence, work.c.seq <= seqs[-1]))
    n = connection.execute(blocks.delete().where(of_blocks, blocks.c.seq <= seqs[-1])).rowcount
    note_erased_sequences(connection, [(expired.hub, expired.lane, expired.epoch)])
    count_commit(connection, StoreCounts(stored=-n))
    return n


def delete_expired_rest(connection: Connection, before_s: int) -> int:
    """Delete some keys that open no block any more, rejected blocks and commands from before a time; returns how many rows."""
    held = select(tables.holds.c.subject)
    quarantine, commands = tables.quarantine.c, tables.commands.c
    is_old = and_(
        quarantine.received_us < before_s * 1_000_000, or_(quarantine.subject.is_(None), ~quarantine.subject.in_(held))
    )
    rows = connection.execute(select(quarantine.id, quarantine.reason).where(is_old).limit(PAGE_ROWS)).all()
    connection.execute(tables.quarantine.delete().where(quarantine.id.in_([row.id for row in rows])))
    n_conflicts = sum(row.reason == CONFLICT for row in rows)
    n = len(rows) + _delete_keys(connection, before_s)
    is_past = and_(commands.issued_s < before_s, or_(commands.subject.is_(None), ~commands.subject.in_(held)))
    n += connection.execute(tables.commands.delete().where(is_past)).rowcount
    if n:
        count_commit(connection, StoreCounts(quarantined=-len(rows), conflicts=-n_conflicts))
    return n


def has_blocks(connection: Connection, subject: str) -> bool:
    """Return whether any block of a subject is stored."""
    return (
        connection.execute(select(tables.blocks.c.seq).where(tables.blocks.c.subject == subject).limit(1)).first() is not None
    )


def _kept_subjects(before_s: int) -> SelectBase:
    """The subjects under a hold, and those of whom a hub sealed something since a time: each has a statement for each day."""
    statements = tables.statements.c
    lasting = select(statements.subject).where(statements.day >= before_s // _DAY_S - 1)
    return select(tables.holds.c.subject).union(lasting)


def _delete_keys(connection: Connection, before_s: int) -> int:
    """Delete some statements of days before a time, and their wrapped keys, that open no stored block."""
    statements, blocks = tables.statements.c, tables.blocks.c
    first = (statements.day - 1) * (_DAY_S << EPOCH_RANDOM_BITS)  # epochs of the day, whichever way a clock was set within one
    is_used = select(blocks.seq).where(
        blocks.hub == statements.hub,
        blocks.epoch.between(first, first + 3 * (_DAY_S << EPOCH_RANDOM_BITS)),
        blocks.key == statements.id,
    )
    unused = (
        select(statements.hub, statements.id)
        .where(
            statements.day < before_s // _DAY_S - 1,
            ~statements.subject.in_(_kept_subjects(before_s)),
            ~is_used.exists(),
        )
        .limit(PAGE_ROWS)
    )
    ids = [tuple(row) for row in connection.execute(unused)]
    for table in (tables.wrapped_keys, tables.statements):
        connection.execute(table.delete().where(tuple_(table.c.hub, table.c.id).in_(ids)))
    return len(ids)

"""Erases a subject from the store: its blocks, keys and work go, and none of its blocks is stored again."""

from collections.abc import Iterable

from sqlalchemy import Connection, SelectBase, Table, select, tuple_

from cloud.audit_actors import ORIGIN
from cloud.site_name import SITE
from cloud.store import tables
from cloud.store.audit import append_to_log
from cloud.store.commit_counts import count_commit
from cloud.store.stored_blocks import StoreCounts, StoredBlockId
from cloud.store.tables import CONFLICT, insert
from sync.audit import Action, Actor, AuditEvent, Category, Purpose, Role, object_id


def erase_subject(connection: Connection, subject: str, at_us: int) -> int:
    """Delete everything of a subject and note that it was erased; returns the number of its blocks."""
    count_commit(connection, StoreCounts())  # waits for commits under way; later ones find the tombstone
    tombstone = insert(connection, tables.erased).values(subject=subject, at_us=at_us)
    connection.execute(tombstone.on_conflict_do_nothing())
    blocks, quarantine, statements = tables.blocks, tables.quarantine, tables.statements
    for table in (blocks, quarantine):
        rows = select(table.c.hub, table.c.lane, table.c.epoch).where(table.c.subject == subject, table.c.lane.is_not(None))
        note_erased_sequences(connection, [tuple(row) for row in connection.execute(rows.distinct())])
    ids = StoredBlockId._fields
    _delete(connection, tables.work, ids, select(*(blocks.c[name] for name in ids)).where(blocks.c.subject == subject))
    of_blocks = select(blocks.c.hub, blocks.c.key).where(blocks.c.subject == subject)
    of_statements = select(statements.c.hub, statements.c.id).where(statements.c.subject == subject)
    _delete(connection, tables.keys_1, ("hub", "id"), of_blocks)
    of_subject = of_statements.union(of_blocks)  # a key of format 1 has no statement
    _delete(connection, tables.wrapped_keys, ("hub", "id"), of_subject)
    n_keys = _delete(connection, tables.rejected_keys, ("hub", "id"), of_subject)
    is_conflict = quarantine.c.reason == CONFLICT
    n_conflicts = connection.execute(quarantine.delete().where(quarantine.c.subject == subject, is_conflict)).rowcount
    n_others, n_blocks = (connection.execute(t.delete().where(t.c.subject == subject)).rowcount for t in (quarantine, blocks))
    for table in (statements, tables.watchers, tables.commands, tables.consents):
        connection.execute(table.delete().where(table.c.subject == subject))
    connection.execute(tables.hub_states.update().where(tables.hub_states.c.subject == subject).values(subject=None))
    count_commit(connection, StoreCounts(-n_blocks, -n_conflicts - n_others, -n_conflicts, -n_keys))
    return n_blocks


def list_erased(connection: Connection) -> frozenset[str]:
    """Return the subjects whose blocks were erased and are refused."""
    return frozenset(connection.scalars(select(tables.erased.c.subject)))


def list_erasures(connection: Connection) -> dict[str, tuple[int, dict[str, int]]]:
    """Return when each subject was erased, and when each hub said that it has destroyed the subject's keys."""
    found = {row.subject: (row.at_us, dict[str, int]()) for row in connection.execute(select(tables.erased))}
    for row in connection.execute(select(tables.erased_hubs).order_by(tables.erased_hubs.c.hub)):
        if row.subject in found:
            found[row.subject][1][row.hub] = row.at_us
    return found


def note_confirmed(connection: Connection, hub: str, subjects: Iterable[str], at_us: int) -> None:
    """Note and log, once, that a hub has destroyed the keys of subjects that were erased here."""
    table, erased = tables.erased_hubs, tables.erased.c.subject
    known = sorted(connection.scalars(select(erased).where(erased.in_(list(subjects)))))
    for subject in known:
        statement = insert(connection, table).values(subject=subject, hub=hub, at_us=at_us).on_conflict_do_nothing()
        if connection.execute(statement).rowcount:
            objects = (object_id("hub", hub),)
            actor = Actor(hub, Role.HUB, SITE)
            event = AuditEvent(actor, Action.CONFIRM_ERASURE, Category.KEYS, subject, objects, Purpose.SUBJECT_REQUEST)
            append_to_log(connection, ORIGIN, [event], at_us)


def note_erased_sequences(connection: Connection, sequences: Iterable[tuple[str, str, int]]) -> None:
    """Note (hub, lane, epoch) whose blocks were erased or refused: they are not missing."""
    for hub, lane, epoch in sorted(set(sequences)):
        statement = insert(connection, tables.erased_sequences).values(hub=hub, lane=lane, epoch=epoch)
        connection.execute(statement.on_conflict_do_nothing())


def _delete(connection: Connection, table: Table, names: tuple[str, ...], rows: SelectBase) -> int:
    columns = tuple_(*(table.c[name] for name in names))
    return connection.execute(table.delete().where(columns.in_(rows))).rowcount

"""The site's audit log in the store: one chain for all processes of the clinic.

Whoever appends first locks the one row of `audit_log`, so that no two processes add a row at the same place; the row's number
is a primary key besides. `sync.audit` has the form of a row; decision 21 says why there is one chain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple

from sqlalchemy import Connection, select, update

from cloud.store import tables
from sync.audit import (
    ROWS,
    AuditEvent,
    ChainError,
    Origin,
    Position,
    append_events,
    follow_rows,
    hash_row,
    log_start,
    object_id,
    read_row,
)
from sync.audit_check import StoredLog
from sync.audit_heads import (
    CutNote,
    SignedHead,
    check_head,
    cut_from_bytes,
    cut_to_bytes,
    head_from_bytes,
    head_to_bytes,
    sign_cut,
    sign_head,
)
from sync.signing import SignatureError, SigningKey

SIGN_LIMIT_ROWS: Final = 2000
"""Rows that one call signs: others wait for the lock meanwhile, less than a second."""
PAGE_ROWS: Final = 1000
"""Rows read at once: at most 2 MB."""


class LogState(NamedTuple):
    """The end of the log, its last signed head and the note of its last cut."""

    end: Position
    signed: SignedHead | None
    cut: CutNote | None


def lock_log(connection: Connection, origin: Origin) -> Position:
    """Let no other process append until the transaction ends; returns the end of the log."""
    log, start = tables.audit_log, log_start(origin)
    first = tables.insert(connection, log).values(id=1, number=start.number, head=start.head)
    locked = first.on_conflict_do_update(index_elements=["id"], set_={"id": 1}).returning(log.c.number, log.c.head)
    return Position(*connection.execute(locked).one())


def append_to_log(connection: Connection, origin: Origin, events: Sequence[AuditEvent], at_us: int) -> None:
    """Append events, in the caller's transaction. Other processes wait until it ends."""
    after = lock_log(connection, origin)
    added = list(append_events(origin, after, events, at_us))
    if not added:
        return
    values = [
        {"number": row.number, "at_us": row.at_us, "subject": row.event.subject, "row": encoded} for row, encoded in added
    ]
    statement = tables.audit_rows.insert().returning(tables.audit_rows.c.number)
    connection.execute(statement, values).all()  # RETURNING: one statement for all rows
    last, encoded = added[-1]
    connection.execute(update(tables.audit_log).values(number=last.number, head=hash_row(encoded)))


def read_state(connection: Connection, origin: Origin) -> LogState:
    """Return the state of the log.

    Raises:
        WireError: a head or note in the database is damaged.
    """
    log = tables.audit_log.c
    row = connection.execute(select(log.number, log.head, log.signed, log.cut)).one_or_none()
    if row is None:
        return LogState(log_start(origin), None, None)
    return LogState(Position(row.number, row.head), head_from_bytes(row.signed), cut_from_bytes(row.cut))


def read_rows(
    connection: Connection, after: int = 0, *, subject: str | None = None, since_us: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield the rows (number, encoded row) behind a number in their order, a page at a time.

    Raises:
        ChainError: time or subject of a row are not those of the encoded row, by which rows are found.
    """
    rows = tables.audit_rows.c
    query = select(rows.number, rows.at_us, rows.subject, rows.row).order_by(rows.number).limit(PAGE_ROWS)
    if subject is not None:
        query = query.where(rows.subject == subject)
    if since_us is not None:
        query = query.where(rows.at_us >= since_us)
    while page := connection.execute(query.where(rows.number > after)).all():
        for number, *columns, row in page:
            decoded = read_row(number, row)
            if columns != [decoded.at_us, decoded.event.subject]:
                raise ChainError(number, f"row {number} was changed: its time or subject in the table is not that of the row")
            yield number, row
        after = page[-1].number


def read_log(connection: Connection, origin: Origin) -> StoredLog:
    """Return the whole log for a check; its rows are read while they are followed."""
    state = read_state(connection, origin)
    hubs = tables.audit_hubs.c
    held = {
        f"hub {row.hub}": head
        for row in connection.execute(select(hubs.hub, hubs.seen).order_by(hubs.hub))
        if (head := head_from_bytes(row.seen)) is not None
    }
    return StoredLog(origin, read_rows(connection), state.cut, state.signed, held)


def sign_end(connection: Connection, origin: Origin, key: SigningKey) -> SignedHead | None:
    """Sign the end of the log if rows came since the last signed head; returns the head, None if there is no row.

    It signs only what continues what it signed before: a rewritten log gets no new signature. After `SIGN_LIMIT_ROWS` new rows
    it signs the place there, and the next call goes on.

    Raises:
        ChainError: the rows since the last signed head do not follow it, or that head is not by this key.
    """
    end = lock_log(connection, origin)
    _, signed, cut = read_state(connection, origin)
    if signed is not None:
        try:
            check_head(key.public, origin, signed)
        except SignatureError as error:
            raise ChainError(signed.number, "the last signed head in the database is not by this site's audit key") from error
    if end.number == 0 or (signed is not None and signed.position == end):
        return signed
    place = signed.position if signed else cut.position if cut else log_start(origin)
    new = islice(read_rows(connection, place.number), SIGN_LIMIT_ROWS)
    limit = min(end.number, place.number + SIGN_LIMIT_ROWS)
    for _, after in follow_rows(origin, place, new):
        place = after
    if place.number != limit or (limit == end.number and place != end):
        raise ChainError(place.number, f"the log ends at row {place.number}, but its last row should be {end.number}")
    head = sign_head(key, origin, place)
    connection.execute(update(tables.audit_log).values(signed=head_to_bytes(head)))
    return head


def cut_log(connection: Connection, origin: Origin, key: SigningKey, event: AuditEvent, before_us: int, at_us: int) -> int:
    """Delete the oldest rows that were written before a time, and sign a note of it; returns how many.

    `event` is appended first: with the number of the last deleted row as its object, it says who cut. Only rows that a signed
    head covers are cut.
    """
    lock_log(connection, origin)
    _, signed, cut = read_state(connection, origin)
    first = cut.number if cut else 0
    last = first
    place = cut.position if cut else log_start(origin)
    for row, after in follow_rows(origin, place, read_rows(connection, first)):
        if row.at_us >= before_us or signed is None or row.number > signed.number:
            break
        last, place = row.number, after
    if last == first:
        return 0
    append_to_log(connection, origin, [replace(event, objects=(object_id(ROWS, last),))], at_us)
    note = sign_cut(key, origin, place, at_us)
    connection.execute(tables.audit_rows.delete().where(tables.audit_rows.c.number <= last))
    connection.execute(update(tables.audit_log).values(cut=cut_to_bytes(note)))
    return last - first

"""The statements by which the store commits the data keys of a group of messages, within its transaction."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from cloud.row_sets import RowInsert, RowQuery
from cloud.store import tables
from cloud.store.tables import insert
from sync.cbor import encode_cbor
from sync.data_keys import KeyStatement, WrappedKey

_STATEMENTS, _WRAPS = tables.statements.c, tables.wrapped_keys.c
_INSERT_STATEMENTS: Final = RowInsert(
    tables.statements, ("hub", *KeyStatement._fields), lambda new: new.on_conflict_do_nothing().returning(_STATEMENTS.id)
)
_INSERT_WRAPS: Final = RowInsert(
    tables.wrapped_keys, ("hub", *WrappedKey._fields), lambda new: new.on_conflict_do_nothing().returning(_WRAPS.id)
)
_STORED_STATEMENTS: Final = RowQuery(
    (_STATEMENTS.hub, _STATEMENTS.id),
    lambda are_wanted: select(
        _STATEMENTS.hub, _STATEMENTS.id, _STATEMENTS.commitment, _STATEMENTS.subject, _STATEMENTS.day
    ).where(are_wanted),
)
_STORED_WRAPS: Final = RowQuery(
    (_WRAPS.hub, _WRAPS.id),
    lambda are_wanted: select(_WRAPS.hub, _WRAPS.id, _WRAPS.recipient, _WRAPS.wrapped).where(are_wanted),
)


class StoredKeys(NamedTuple):
    """What became of (hub, statement) or (hub, wrapped key). `held` are those that the store holds now.

    `aside` were kept aside, because others have their place; `new_aside` of these now and not before. `n_new` were stored now.
    """

    n_new: int
    held: frozenset[tuple[str, Any]]
    aside: frozenset[tuple[str, Any]]
    new_aside: frozenset[tuple[str, Any]]


_NONE: Final = StoredKeys(0, frozenset(), frozenset(), frozenset())


def insert_statements(connection: Connection, arrived: Iterable[tuple[str, KeyStatement]], received_us: int) -> StoredKeys:
    """Store each hub's statements of new data keys. Another signature of the same statement changes nothing."""
    rows = sorted(set(arrived))
    if not rows:
        return _NONE
    n_new = len(_INSERT_STATEMENTS.execute(connection, [(hub, *statement) for hub, statement in rows]))
    stored = {tuple(row) for row in _STORED_STATEMENTS.execute(connection, {(hub, statement.id) for hub, statement in rows})}
    held = frozenset((hub, statement) for hub, statement in rows if (hub, *statement[:-1]) in stored)
    others = {(hub, statement): encode_cbor(list(statement)) for hub, statement in rows if (hub, statement) not in held}
    return StoredKeys(n_new, held, frozenset(others), _keep_aside(connection, others, received_us))


def insert_wrapped_keys(connection: Connection, arrived: Iterable[tuple[str, WrappedKey]], received_us: int) -> StoredKeys:
    """Store each hub's new wrapped keys whose data key has a statement."""
    rows = sorted(set(arrived))
    if not rows:
        return _NONE
    ids = {(hub, wrap.id) for hub, wrap in rows}
    known = {(row.hub, row.id) for row in _STORED_STATEMENTS.execute(connection, ids)}
    rows = [(hub, wrap) for hub, wrap in rows if (hub, wrap.id) in known]
    n_new = len(_INSERT_WRAPS.execute(connection, [(hub, *wrap) for hub, wrap in rows]))
    stored = {tuple(row) for row in _STORED_WRAPS.execute(connection, ids)}
    held = frozenset((hub, wrap) for hub, wrap in rows if (hub, *wrap) in stored)
    others = {(hub, wrap): wrap.wrapped for hub, wrap in rows if (hub, wrap) not in held}
    return StoredKeys(n_new, held, frozenset(others), _keep_aside(connection, others, received_us))


def _keep_aside(
    connection: Connection, keys: Mapping[tuple[str, Any], bytes], received_us: int
) -> frozenset[tuple[str, KeyStatement | WrappedKey]]:
    """Keep the encodings of conflicting keys; returns those that are new."""
    new = []
    for (hub, key), data in keys.items():
        values = {"hub": hub, "id": key.id, "digest": hashlib.sha256(data).digest(), "bytes": data, "received_us": received_us}
        if connection.execute(insert(connection, tables.rejected_keys).values(values).on_conflict_do_nothing()).rowcount:
            new.append((hub, key))
    return frozenset(new)

"""Applies the revisions of a database: each in a transaction of its own on PostgreSQL, all in one on SQLite."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from cloud.database_errors import is_lock_conflict, translating_errors
from cloud.databases import POSTGRESQL, DatabaseLocation, lock_schema, open_postgresql, open_sqlite, try_lock_schema
from cloud.schemas import Revision, Schema
from config.files import make_private
from sync.errors import TransientError

LOCK_TIMEOUT_S: Final = 1.0
"""How long a statement waits for a lock. All that use the table wait behind it; a hub sends again after 2 s."""
_ATTEMPTS: Final = 60
_PAUSE_S: Final = 0.5
"""Between two attempts to get a lock: what waited gets its turn. All attempts take 90 s at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """One revision of a database."""

    database: str
    number: int
    is_contract: bool
    summary: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The revisions that were applied, and those that are left because they, or one before them, contract."""

    applied: tuple[Step, ...]
    left: tuple[Step, ...]


def migrate(location: DatabaseLocation, schema: Schema, *, may_contract: bool) -> Outcome:
    """Migrate a database, or create it. One before the first revision is created anew, if it may contract.

    Raises:
        TransientError: another process migrates it, or its tables are in use without a pause.
        PermanentError: it is damaged, was made by a newer version, or cannot be used.
        OSError: the file cannot be created, or belongs to another user.
        ClinicError: other users may read the password file of PostgreSQL.
    """
    with (
        translating_errors(f"the {schema.name} {location}"),
        _opened(location) as engine,
        _locked(engine, schema) as connection,
    ):
        with _transaction(connection):
            schema.create_or_stamp(connection)
            found = schema.read(connection)
        assert found is not None
        if found.oldest_program > schema.newest:
            schema.check(found, location)
        config = _configure(schema, connection)
        pending = _list_pending(config, schema, found)
        chosen = pending if may_contract else list(takewhile(lambda step: not step.is_contract, pending))
        if chosen and found.number < schema.first:
            with _transaction(connection):
                schema.create(connection)
        elif chosen:
            _upgrade(config, connection, f"{chosen[-1].number:04}", f"the {schema.name} {location}")
        return Outcome(tuple(chosen), tuple(pending[len(chosen) :]))


def _configure(schema: Schema, connection: Connection) -> Config:
    config = Config(attributes={"connection": connection, "schema": schema})
    for option, path in (("script_location", Path(__file__).parent), ("version_locations", schema.folder)):
        config.set_main_option(option, str(path).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def _list_pending(config: Config, schema: Schema, found: Revision) -> list[Step]:
    if found.number < schema.first:
        return [Step(schema.name, schema.newest, is_contract=True, summary="Empty it: the opener fills it again.")]
    revisions = reversed(list(ScriptDirectory.from_config(config).walk_revisions()))
    steps = [Step(schema.name, int(one.revision), one.module.kind == "contract", one.doc) for one in revisions]
    return [step for step in steps if step.number > found.number]


def _upgrade(config: Config, connection: Connection, target: str, database: str) -> None:
    for _ in range(_ATTEMPTS):
        try:
            command.upgrade(config, target)
        except DBAPIError as error:
            if not is_lock_conflict(error):
                raise
            connection.rollback()
            time.sleep(_PAUSE_S)
        else:
            return
    raise TransientError(f"cannot migrate {database}: its tables are in use without a pause; run the command again later")


@contextmanager
def _opened(location: DatabaseLocation) -> Iterator[Engine]:
    if isinstance(location, Path):
        make_private(location)
        engine = open_sqlite(location, LOCK_TIMEOUT_S)
        event.listen(engine, "connect", _overwrite_deleted)
    else:
        engine = open_postgresql(location, LOCK_TIMEOUT_S)
    try:
        yield engine
    finally:
        engine.dispose()


def _overwrite_deleted(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA secure_delete = ON")


@contextmanager
def _locked(engine: Engine, schema: Schema) -> Iterator[Connection]:
    """Yield a connection while no other process migrates: in a transaction on SQLite, outside one on PostgreSQL."""
    with engine.connect() as connection:
        if engine.dialect.name != POSTGRESQL:
            with connection.begin():
                lock_schema(connection)
                yield connection
            return
        with connection.begin():
            is_locked = try_lock_schema(connection)
        if not is_locked:
            raise TransientError(f"another process migrates the {schema.name}: wait until it ends")
        yield connection  # the lock ends with the session, when the engine is disposed of


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Begin and commit a transaction, unless one of the caller runs."""
    if connection.in_transaction():
        yield
        return
    with connection.begin():
        yield

"""Which revision of its tables a database has, and which programs can use it.

Revisions are numbered. A database holds two numbers: the last one applied, and that of the oldest program that can use it. An
*expand* revision only adds, so programs that do not know it go on. A *contract* revision removes what no running program uses:
programs that do not know it are refused from then on. `cloud.migrations` applies them; this module needs no alembic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Connection, Engine, MetaData, PrimaryKeyConstraint, String, Table, inspect, select

from cloud.databases import DatabaseLocation, lock_schema
from sync.errors import PermanentError

_REVISION_CHARACTERS: Final = 32
"""Width of alembic's own column."""


class OlderSchemaError(PermanentError):
    """A database must be migrated before this program can use it."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The numbers of a database: the last revision applied, and the newest one known to the oldest program that can use it."""

    number: int
    oldest_program: int
    is_stamped: bool
    """False if a program made it that had one number for both."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The revisions of a kind of database that this program knows."""

    name: str
    """In messages."""
    folder: Path
    """The files of the revisions."""
    revisions: Table
    """One row: `Revision.number`."""
    oldest_program: Column[Any]
    """One row: `Revision.oldest_program`."""
    create: Callable[[Connection], None]
    """Creates new tables, with both rows."""
    first: int
    """A database before this revision is created anew."""
    newest: int
    contracts: frozenset[int]

    @property
    def needed(self) -> int:
        """The last expand revision. This program runs before and after the contract revisions that follow it."""
        return max(number for number in range(self.first, self.newest + 1) if number not in self.contracts)

    @property
    def last_contract(self) -> int:
        """The oldest program that can use a new database."""
        return max(self.contracts, default=self.first)

    def read(self, connection: Connection) -> Revision | None:
        """Return the numbers of the database; None if it has no tables."""
        names = inspect(connection).get_table_names()
        if self.oldest_program.table.name not in names:
            return None
        oldest = int(connection.execute(select(self.oldest_program)).scalar_one())
        if self.revisions.name not in names:
            return Revision(oldest, oldest, is_stamped=False)
        return Revision(int(connection.execute(select(self.revisions)).scalar_one()), oldest, is_stamped=True)

    def create_or_check(self, engine: Engine, location: DatabaseLocation) -> None:
        """Create a new database, or check that this program can use it. The first time it notes the revision of an old one.

        Raises:
            OlderSchemaError: it must be migrated first.
            PermanentError: a newer program is needed.
        """
        with engine.connect() as connection:
            found = self.read(connection)
        if found is not None:
            self.check(found, location)
        if found is None or not found.is_stamped:
            with engine.begin() as connection:
                lock_schema(connection)
                self.create_or_stamp(connection)

    def create_or_stamp(self, connection: Connection) -> None:
        """Create a new database, or note the revision of an old one, if it is not noted yet."""
        found = self.read(connection)
        if found is None:
            self.create(connection)
        elif not found.is_stamped:
            self.stamp(connection, found.number)

    def check(self, found: Revision, location: DatabaseLocation) -> None:
        """Check that this program can use a database with these numbers.

        Raises:
            OlderSchemaError, PermanentError: as `create_or_check`.
        """
        if found.oldest_program > self.newest:
            raise PermanentError(
                f"the {self.name} {location} was made by a newer pulsegate "
                f"(schema {found.oldest_program}, this one knows {self.newest}): update pulsegate"
            )
        if found.number < self.needed:
            is_contract = found.number < self.first or not self.contracts.isdisjoint(range(found.number + 1, self.needed))
            command = "pulsegate-cloud migrate" + (" --contract" if is_contract else "")
            before = "stop every older pulsegate-cloud, back it up" if is_contract else "back it up"
            raise OlderSchemaError(
                f"the {self.name} {location} was made by an older pulsegate "
                f"(schema {found.number}, this one needs {self.needed}): {before}, and run `{command}`"
            )

    def stamp(self, connection: Connection, number: int) -> None:
        """Note the last revision applied in a database that has no such note."""
        self.revisions.create(connection, checkfirst=True)
        connection.execute(self.revisions.insert().values(version_num=f"{number:04}"))


def make_revision_table(name: str, metadata: MetaData) -> Table:
    """Return the table in which alembic notes the last revision. A database of PostgreSQL may hold two of them."""
    number = Column("version_num", String(_REVISION_CHARACTERS), nullable=False)
    return Table(name, metadata, number, PrimaryKeyConstraint("version_num", name=f"{name}_pkc"))

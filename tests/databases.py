"""The databases of one clinic on SQLite or PostgreSQL, which a test may lose, copy and restore while nothing is connected."""

import shutil
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import inspect

from cloud import projections_database, tables
from cloud.databases import DatabaseLocation
from cloud.store import tables as store_tables
from tests.postgresql import Server

ON_BOTH: Final = ("sqlite", "postgresql")
"""For `DATABASES` of a test module: its tests run on each of these."""
METADATA: Final = {"blocks": store_tables.metadata, "projections": tables.metadata}


class Databases(Protocol):
    """The store ("blocks") and the projections ("projections")."""

    def location(self, name: str) -> DatabaseLocation: ...

    def lose(self, name: str) -> None: ...

    def back_up(self, name: str) -> None: ...

    def restore(self, name: str) -> None: ...


class SqliteDatabases:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def location(self, name: str) -> Path:
        return self._folder / f"{name}.db"

    def lose(self, name: str) -> None:
        for path in self._folder.glob(f"{name}.db*"):
            path.unlink()

    def back_up(self, name: str) -> None:
        shutil.copy2(self.location(name), self._folder / f"backup-of-{name}")

    def restore(self, name: str) -> None:
        self.lose(name)
        shutil.copy2(self._folder / f"backup-of-{name}", self.location(name))


class PostgresDatabases:
    """Databases of a server. They outlive the test: to empty their tables takes a hundredth of creating a database."""

    def __init__(self, server: Server) -> None:
        self._server = server
        for name in METADATA:
            server.create_if_missing(name)
            self._empty(name)

    def location(self, name: str) -> DatabaseLocation:
        return self._server.url(name)

    def lose(self, name: str) -> None:
        self._server.create(name)

    def back_up(self, name: str) -> None:
        self._server.create(f"backup_of_{name}", name)

    def restore(self, name: str) -> None:
        self._server.create(name, f"backup_of_{name}")

    def _empty(self, name: str) -> None:
        """Leave what a new database has, if it has tables."""
        with self._server.engine(name).begin() as connection:
            if not inspect(connection).has_table("state" if name == "blocks" else "source"):
                return
            for table in METADATA[name].sorted_tables:
                if table not in {store_tables.schema, store_tables.revisions, tables.revisions}:
                    connection.execute(table.delete())
            if name == "blocks":
                store_tables.insert_state(connection)
            else:
                projections_database.insert_source(connection)

"""Copies of a SQLite database whose process was killed, and putting them back: a backup, and a restore from it."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

_SUFFIXES: Final = ("", "-wal", "-shm")
"""The files of a database, as a kill leaves them. Without its log the database would be an older one, or damaged."""


def copy_databases(databases: list[Path], folder: Path) -> None:
    """Copy all files of databases that no process has open into a new folder."""
    folder.mkdir(parents=True)
    for file in _list_files(databases):
        shutil.copy2(file, folder)


def put_back_databases(databases: list[Path], folder: Path) -> None:
    """Replace databases that no process has open by their copies in a folder."""
    for file in _list_files(databases):
        file.unlink()
    for database in databases:
        for file in _list_files([folder / database.name]):
            shutil.copy2(file, database.parent)


def query_copy(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a copy: to open a database that was killed changes its files."""
    with tempfile.TemporaryDirectory() as folder:
        copy_databases([database], copy := Path(folder) / "copy")
        with closing(sqlite3.connect(copy / database.name)) as connection:
            return connection.execute(query).fetchall()


def _list_files(databases: list[Path]) -> list[Path]:
    files = [database.with_name(database.name + suffix) for database in databases for suffix in _SUFFIXES]
    return [file for file in files if file.exists()]

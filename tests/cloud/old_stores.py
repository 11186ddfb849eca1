"""Stores of former versions."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection

VECTORS: Final = Path(__file__).parent / "vectors"


def create_tables(connection: Connection, schema: str) -> None:
    """Create the empty tables of a former schema on PostgreSQL; `schema` names its file."""
    for statement in (VECTORS / schema).read_text(encoding="utf-8").splitlines():
        connection.exec_driver_sql(statement)

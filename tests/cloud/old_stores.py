"""Stores of former versions."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection

VECTORS: Final = Path(__file__).parent / "vectors"


def create_tables_of_schema_2(connection: Connection) -> None:
    """Create the empty tables of schema 2 on PostgreSQL."""
    for statement in (VECTORS / "schema_2_postgresql.sql").read_text(encoding="utf-8").splitlines():
        connection.exec_driver_sql(statement)

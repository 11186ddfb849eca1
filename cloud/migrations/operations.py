"""What revisions need beside alembic's own operations."""

from collections.abc import Sequence

from alembic import op

from cloud.databases import POSTGRESQL


def add_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Add an index to a table that is in use, as the only operation of a revision. On PostgreSQL no writer waits for it.

    It runs outside a transaction there, so an index that an earlier attempt left unfinished is dropped first. A partitioned
    table (`blocks`) takes no such index.
    """
    connection = op.get_bind()
    if connection.dialect.name != POSTGRESQL:
        op.create_index(name, table, columns)
        return
    with op.get_context().autocommit_block():
        op.get_bind().connection.commit()  # pg8000 began a transaction when alembic asked it for the isolation level
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True)

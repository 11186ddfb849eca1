"""What alembic runs to migrate one database: the runner hands over the connection and the schema."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script
from sqlalchemy import update

from cloud.schemas import Schema

schema: Schema = context.config.attributes["schema"]


def note_contract(ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    """Refuse older programs from now on, in the transaction of a contract revision."""
    revision = step.up_revision
    if isinstance(revision, Script) and revision.module.kind == "contract":
        assert ctx.connection is not None
        ctx.connection.execute(update(schema.oldest_program.table).values({schema.oldest_program: int(revision.revision)}))


context.configure(
    connection=context.config.attributes["connection"],
    version_table=schema.revisions.name,
    transaction_per_migration=True,
    on_version_apply=note_contract,
)
with context.begin_transaction():
    context.run_migrations()

"""Revisions of a version that does not exist yet."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

from cloud.schemas import Schema

_REVISION: Final = '''"""A change of the next version."""

from alembic import op
from sqlalchemy import BigInteger, Column

from cloud.migrations.operations import add_index

revision = "{number:04}"
down_revision = "{before:04}"
kind = "{kind}"


def upgrade() -> None:
    {change}
'''


def make_next_version(folder: Path, schema: Schema, table: str, removed: str) -> Schema:
    """Return the schema of the next version, with its revisions in a new folder.

    Two expand revisions add a column and its index to `table`; a contract one removes a column, given as "table.column".
    """
    shutil.copytree(schema.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    changes = (
        ("expand", f"op.add_column('{table}', Column('added', BigInteger, nullable=False, server_default='7'))"),
        ("expand", f"add_index('added_index', '{table}', ['added'])"),
        ("contract", "op.drop_column('{}', '{}')".format(*removed.split("."))),
    )
    for number, (kind, change) in enumerate(changes, start=schema.newest + 1):
        content = _REVISION.format(number=number, before=number - 1, kind=kind, change=change)
        (folder / f"r{number:04}_next.py").write_text(content)
    newest = schema.newest + len(changes)
    return replace(schema, folder=folder, newest=newest, contracts=schema.contracts | {newest})

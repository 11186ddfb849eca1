"""Migrates the clinic's databases by alembic. Only the processes that migrate import it (decision 25).

A revision is a file of `store/` or `projections/`, numbered by `revision`, with the kind `expand` or `contract`
(`cloud.schemas`). To add one, write the next file, change `cloud/store/tables.py` or `cloud/tables.py` alike, and raise
`newest` of `SCHEMA` in `cloud/store/schema.py` or `cloud/projections_database.py`; a contract revision is named in `contracts`,
too. A revision is never changed afterwards: it describes its tables itself, and does not import today's.

An expand revision adds tables, columns that are nullable or have a constant default, and indexes (`operations.add_index` on a
table that is in use). Older openers do not empty a table of the projections that they do not know: add columns there.
"""

from cloud import projections_database as projections
from cloud.folder import ClinicFolder
from cloud.migrations.runner import Outcome, Step, migrate
from cloud.store.schema import SCHEMA

__all__ = ["Outcome", "Step", "migrate", "migrate_all"]


def migrate_all(folder: ClinicFolder, *, may_contract: bool) -> Outcome:
    """Migrate the store and the projections of a clinic.

    Raises:
        TransientError, PermanentError, OSError, ClinicError: as `migrate`.
    """
    store = migrate(folder.blocks, SCHEMA, may_contract=may_contract)
    opened = migrate(folder.projections, projections.SCHEMA, may_contract=may_contract)
    return Outcome(store.applied + opened.applied, store.left + opened.left)

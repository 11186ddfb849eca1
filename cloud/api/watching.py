"""Tells the store whose patients somebody watches: acknowledgements then ask their hubs to commit every second."""

import asyncio
import contextlib
from typing import Final, NoReturn

from sqlalchemy import Engine, select

from cloud import tables
from cloud.clock import now_us
from cloud.database_errors import translating_errors
from cloud.scope import Scope
from cloud.store import Store
from sync.errors import TransientError

WATCH_S: Final = 30
"""How long hubs go on after the last renewal: a page that reloads, or a short loss of its connection, changes nothing."""
RENEW_S: Final = 10.0
"""Time between two renewals: a third of `WATCH_S`, so that one that fails is made up for."""


async def renew_watch(store: Store, engine: Engine, scope: Scope) -> NoReturn:
    """Say again and again, until cancelled, that a viewer watches the patients of its scope.

    While a database is locked or full, nobody seems to watch: data then arrives at the ordinary pace.
    """
    while True:
        with contextlib.suppress(TransientError):
            await asyncio.to_thread(watch_patients, store, engine, scope, now_us())
        await asyncio.sleep(RENEW_S)


def watch_patients(store: Store, engine: Engine, scope: Scope, at_us: int) -> None:
    """Say that somebody watches every patient of the scope, for `WATCH_S` from `at_us` on (microseconds since 1970).

    Raises:
        TransientError, PermanentError: a database failed.
    """
    subject = tables.patients.c.subject
    with translating_errors("the projections"), engine.connect() as connection:
        subjects = connection.scalars(select(subject).where(scope.allows(subject))).all()
    store.watch(dict.fromkeys(subjects, at_us + WATCH_S * 1_000_000))

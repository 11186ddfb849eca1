"""Retention: deletes what the clinic has kept for its time, from the store and the projections, except under a legal hold.

The time begins when the treatment ends: with the last day of which a hub sealed something of the subject.

It runs once a day in the opener, and by `pulsegate-cloud retention`. It may be interrupted at any time: the next run goes on.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from sqlalchemy import Connection, Engine, Table, Tuple, select, tuple_

from cloud import projections_database, tables
from cloud.audit_actors import ORIGIN
from cloud.database_errors import translating_errors
from cloud.store import Store
from cloud.store.audit import append_to_log
from cloud.store.expiry import ExpiredSequence, delete_expired_rest, delete_page, has_blocks, list_expired
from sync.audit import Action, Actor, AuditEvent, Category, object_id
from sync.errors import TransientError
from sync.transport import WorkerCall
from sync.wire import epoch_seconds

DEFAULT_RETENTION_DAYS: Final = 3653
"""Ten years: section 630f(3) of the German Civil Code for a treatment's records. A clinic under another law sets its own."""
MIN_RETENTION_DAYS: Final = 30
"""A shorter one is a mistake: hubs that were away for weeks still send."""
INTERVAL_S: Final = 24 * 3600.0
_DAY_S: Final = 86_400
_US_PER_S: Final = 1_000_000
_PAGE_SEQUENCES: Final = 100
"""Sequences whose rows one transaction of the projections deletes."""
_OF_BLOCK: Final = (tables.opened, tables.unopened)
_OF_RECORD: Final = (
    tables.alerts,
    tables.alert_strips,
    tables.vitals,
    tables.latest_vitals,
    tables.waveforms,
    tables.gaps,
    tables.statuses,
)
_BY_TIME: Final = ((tables.intervals, "at_us"), (tables.beats, "from_us"), (tables.findings, "onset_us"))
_log: Final = logging.getLogger(__name__)


def delete_expired(store: Store, projections: Engine, days: int, actor: Actor, now_us: int) -> int:
    """Delete what is of subjects whose last data are more than `days` old; returns the number of blocks.

    The deletion of each subject is logged before.

    Raises:
        TransientError, PermanentError: a database failed; the next run goes on.
    """
    before_s = now_us // _US_PER_S - days * _DAY_S
    with store.transaction() as connection:
        expired = list_expired(connection, before_s)
    of_subject = defaultdict[str, list[ExpiredSequence]](list)
    for sequence in expired:
        of_subject[sequence.subject].append(sequence)
    n = 0
    for subject, sequences in sorted(of_subject.items()):
        objects = (object_id("blocks", sum(sequence.n for sequence in sequences)), object_id("days", days))
        event = AuditEvent(actor, Action.DELETE_EXPIRED, Category.ALL_RECORDS, subject, objects)
        with store.transaction() as connection:
            append_to_log(connection, ORIGIN, [event], now_us)
        n += _delete_subjects_blocks(store, projections, subject, sequences)
    while _run_once(store, before_s):
        pass
    return n


async def keep_retention(
    store: Store, projections: Engine, days: int, actor: Actor, now_us: Callable[[], int], call: WorkerCall = asyncio.to_thread
) -> NoReturn:
    """Delete what has expired once a day, until cancelled.

    Raises:
        PermanentError: a database is damaged.
    """
    while True:
        try:
            n = await call(delete_expired, store, projections, days, actor, now_us())
            if n:
                _log.info("deleted %d blocks that were kept for %d days", n, days)
        except TransientError as error:
            _log.warning("cannot delete what has expired, will try again in a day: %s", error)
        await asyncio.sleep(INTERVAL_S)


def _delete_subjects_blocks(store: Store, projections: Engine, subject: str, sequences: Sequence[ExpiredSequence]) -> int:
    """Delete the projections first: what is left of a block then, an interrupted run finds again by the block."""
    for start in range(0, len(sequences), _PAGE_SEQUENCES):
        with translating_errors("the projections"), projections.begin() as connection:
            _delete_projected(connection, sequences[start : start + _PAGE_SEQUENCES])
    n = 0
    for sequence in sequences:
        deleted = -1
        while deleted:
            with store.transaction() as connection:
                deleted = delete_page(connection, sequence)
            n += deleted
    with store.transaction() as connection:
        is_empty = not has_blocks(connection, subject)
    if is_empty:
        projections_database.erase_subject(projections, subject)
    return n


def _delete_projected(connection: Connection, sequences: Sequence[ExpiredSequence]) -> None:
    """Delete what these sequences have filled. An alert or gap belongs to its latest record."""
    connection.execute(select(tables.source).with_for_update())  # no opener is writing from here on
    blocks = [(sequence.hub, sequence.epoch, sequence.lane) for sequence in sequences]
    epochs = sorted({(sequence.subject, sequence.hub, sequence.epoch) for sequence in sequences})
    for table in _OF_BLOCK:
        connection.execute(table.delete().where(_tuple(table, "hub", "epoch", "lane").in_(blocks)))
    for table in _OF_RECORD:
        connection.execute(table.delete().where(_tuple(table, "subject", "hub", "epoch").in_(epochs)))
    ends = {(subject, hub): (epoch_seconds(epoch) + _DAY_S) * _US_PER_S for subject, hub, epoch in epochs}
    for table, time in _BY_TIME:  # they name no epoch; epochs of a hub follow each other, and so do their times
        for (subject, hub), end_us in ends.items():
            of_hub = (table.c.subject == subject) & (table.c.hub == hub)
            connection.execute(table.delete().where(of_hub, table.c[time] < end_us))


def _tuple(table: Table, *names: str) -> Tuple:
    return tuple_(*(table.c[name] for name in names))


def _run_once(store: Store, before_s: int) -> int:
    with store.transaction() as connection:
        return delete_expired_rest(connection, before_s)

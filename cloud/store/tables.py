"""The tables of the store of sealed blocks."""

import secrets
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    select,
    update,
)

from cloud.databases import BIG, insert_into
from cloud.schemas import make_revision_table
from sync.wire import STORE_ID_BYTES

ALERT_LANE: Final = "alert"
CONFLICT: Final = "conflict"
"""Reason of a quarantined block whose place another block has."""
FIRST_FENCE: Final = 1

metadata: Final = MetaData()
schema: Final = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))
"""One row: the oldest program that can use the store (`cloud.schemas`)."""
revisions: Final = make_revision_table("store_revision", metadata)


def _block_id() -> tuple[Column[str], Column[int], Column[str], Column[int]]:
    """The columns that identify a block."""
    return (
        Column("hub", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("lane", Text, nullable=False),
        Column("seq", BigInteger, nullable=False),
    )


blocks: Final = Table(
    "blocks",
    metadata,
    *_block_id(),
    Column("subject", Text, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("block", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("hub", "epoch", "lane", "seq"),
    postgresql_partition_by="RANGE (epoch)",
)
"""The sealed blocks. PostgreSQL keeps each month of epochs in a partition (`cloud.store.partitions`)."""
work: Final = Table(
    "work",
    metadata,
    *_block_id(),
    Column("is_alert", Boolean, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("is_live", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("hub", "epoch", "lane", "seq"),
    Index("work_by_arrival", "is_alert", "received_us", "epoch", "seq"),
    Index("work_by_urgency", "is_alert", "is_live", "received_us", "epoch", "seq"),
)
"""One row for each block that the opener has not projected yet. It is written with the block, and deleted by the opener.
`is_live`: it was one of the newest of its hub, and is no alert. The opener takes it after alerts and before a backlog.
`work_by_arrival` is for openers before revision 8; the next contract revision drops it."""
statements: Final = Table(
    "statements",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("commitment", LargeBinary, nullable=False),
    Column("subject", Text, nullable=False),
    Column("day", BigInteger, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
"""What the device key of a hub signed for each data key. Ingest has verified the signature."""
wrapped_keys: Final = Table(
    "wrapped_keys",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("recipient", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)
"""Data keys, each wrapped for one or more recipients (named by their fingerprint). Those of format 1 have no statement."""
keys_1: Final = Table(
    "keys_1",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)
"""Wrapped keys of format 1, until the opener has wrapped them again."""
rejected_keys: Final = Table(
    "rejected_keys",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
)
"""Wrapped keys and encoded statements whose place others have."""
marks: Final = Table(
    "marks",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
)
dropped: Final = Table(
    "dropped",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
)
"""Blocks that a hub deleted because its buffer was full; the chain value at `last`. Ranges may overlap."""
epochs: Final = Table(
    "epochs",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", BigInteger),
    Column("blocks", BigInteger, nullable=False),
    Column("heads", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("first_us", BigInteger, nullable=False),
)
"""The epochs of each hub, with the envelope of most blocks: `heads` (CBOR), `content` and `signature` are what the hub signed.
`blocks` is the number of blocks that the heads name; `first_us` is when the epoch's first envelope came."""
hubs: Final = Table(
    "hubs",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("event_us", BigInteger, nullable=False),
    Column("copied_us", BigInteger),
)
"""Hubs that were restored or copied: when this was last noticed, and when twice within a day (`cloud.store.hubs`)."""
hub_states: Final = Table(
    "hub_states",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("subject", Text),
    Column("since_us", BigInteger, nullable=False),
    Column("heard_us", BigInteger),
    Column("status_us", BigInteger),
    Column("status", LargeBinary),
    Column("epoch", BigInteger),
    Column("seq", BigInteger),
    Column("revision", BigInteger, nullable=False),
    Column("outdated_us", BigInteger),
)
"""Each hub with the subject that it seals for, since `since_us`. `heard_us`: when it last sent something new since then.
Then its last status as it was received, with its position and the revision of its agent. `outdated_us`: when this revision was
first seen to be too old; null if it is not."""
hub_alarms: Final = Table(
    "hub_alarms",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("raised_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    sqlite_autoincrement=True,
)
"""The clinic's technical alarms about hubs (`cloud.hub_watch`). At most one of a kind lasts for each hub."""
Index(
    "hub_alarms_ongoing",
    hub_alarms.c.hub,
    hub_alarms.c.kind,
    unique=True,
    sqlite_where=hub_alarms.c.ended_us.is_(None),
    postgresql_where=hub_alarms.c.ended_us.is_(None),
)
erased: Final = Table(
    "erased",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)
"""Subjects whose blocks were erased: none of them is stored again."""
erased_sequences: Final = Table(
    "erased_sequences",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
)
"""Sequences of erased subjects, or whose retention has ended: their blocks are not missing. A sequence has one subject."""
erased_hubs: Final = Table(
    "erased_hubs",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("hub", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)
"""Hubs that have said that they destroyed the keys of an erased subject, and when they first said so."""
consents: Final = Table(
    "consents",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("purpose", Text, nullable=False),
    Column("is_given", Boolean, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("text", LargeBinary),
    Column("hub", Text),
    Column("withdrawal", BigInteger),
)
"""The changes of each subject's consent (`cloud.store.consents`). `text` is the digest of the text that was agreed to.
`withdrawal` is the number of a withdrawal that was made at a hub: the hub repeats it."""
consent_texts: Final = Table(
    "consent_texts", metadata, Column("digest", LargeBinary, primary_key=True), Column("text", Text, nullable=False)
)
holds: Final = Table(
    "holds",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""Subjects whose data are kept although their retention ends or they ask for erasure, and why."""
watchers: Final = Table(
    "watchers",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("until_us", BigInteger, nullable=False),
)
"""Until when somebody watches a subject."""
quarantine: Final = Table(
    "quarantine",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("lane", Text),
    Column("epoch", BigInteger),
    Column("seq", BigInteger),
    Column("subject", Text),
    Column("reason", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    UniqueConstraint("hub", "digest"),
    Index("quarantine_by_position", "hub", "epoch", "lane", "seq"),
    sqlite_autoincrement=True,
)
rejected_messages: Final = Table(
    "rejected_messages",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
"""The newest messages whose origin is not proven; anyone on the broker can send them. `hub` is the one that the topic names."""
audit_rows: Final = Table(
    "audit_rows",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("subject", Text),
    Column("row", LargeBinary, nullable=False),
    Index("audit_rows_by_subject", "subject", "number"),
)
"""The site's audit log (`cloud.store.audit`). `at_us` and `subject` repeat what the encoded `row` says."""
audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("signed", LargeBinary),
    Column("cut", LargeBinary),
)
"""One row: the end of the audit log; then the last signed head and the note of the last cut, as lists in CBOR."""
audit_hubs: Final = Table(
    "audit_hubs",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("key_signature", LargeBinary, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("seen", LargeBinary),
    Column("received_us", BigInteger, nullable=False),
    Column("forked_us", BigInteger),
)
"""The highest head of each hub's audit log, and the highest one of this site's log that the hub holds, both as lists in CBOR.
`forked_us`: when one of them was first found to contradict the other end's log; null if never."""
audit_refusals: Final = Table(
    "audit_refusals",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
)
"""Refused messages of hours (since 1970) that are not in the audit log yet: it gets one row for each hub, reason and hour."""
commands: Final = Table(
    "commands",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text),
    Column("issued_s", BigInteger, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("author", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("answered_us", BigInteger),
    Column("refusal", Text),
    Column("request", Text, unique=True),
    Index("commands_by_state", "state", "hub", "number"),
    Index("commands_by_subject", "subject", "issued_s"),
)
"""Commands to hubs (`cloud.store.commands`). `payload` is signed, and its arguments are sealed for the hub."""
state: Final = Table(
    "state",
    metadata,
    Column("store_id", LargeBinary, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("conflicts", BigInteger, nullable=False),
    Column("key_conflicts", BigInteger, nullable=False),
    Column("rejected_messages", BigInteger, nullable=False),
    Column("copied_hubs", BigInteger, nullable=False),
    Column("rejection_logged_us", BigInteger, nullable=False),
    Column("projections_id", LargeBinary),
    Column("batches", BigInteger, nullable=False),
)
"""One row. `store_id` is random, `fence` grows with each new id, `commits` with each commit that stores something; then come
the numbers of rows, of messages rejected, and how often a hub was found copied; then when a rejected message was last logged.
`projections_id` and `batches` say which projections the work rows were deleted for, and how far these had come."""


def insert(connection: Connection, table: Table) -> Any:
    """Return an INSERT that accepts `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return insert_into(table, connection.dialect.name)


def insert_state(connection: Connection, **values: Any) -> None:
    """Insert the row of `state`: a new id and the counts of what the store holds, where `values` does not give others."""
    n_stored = select(func.count()).select_from(blocks).scalar_subquery()
    n_quarantined = select(func.count()).select_from(quarantine).scalar_subquery()
    n_conflicts = select(func.count()).select_from(quarantine).where(quarantine.c.reason == CONFLICT).scalar_subquery()
    n = connection.execute(select(n_stored.label("stored"), n_quarantined.label("quarantined"), n_conflicts.label("conflicts")))
    zeros = dict.fromkeys(("commits", "key_conflicts", "rejected_messages", "copied_hubs", "rejection_logged_us", "batches"), 0)
    first = {"store_id": secrets.token_bytes(STORE_ID_BYTES), "fence": FIRST_FENCE, **zeros}
    connection.execute(state.insert().values(**{**first, **n.mappings().one(), **values}))


def add_all_work(connection: Connection) -> None:
    """Make every block work again that is not."""
    is_known = select(work.c.seq).where(*(work.c[name] == blocks.c[name] for name in ("hub", "epoch", "lane", "seq")))
    columns = [*(blocks.c[name] for name in ("hub", "epoch", "lane", "seq")), blocks.c.lane == ALERT_LANE, blocks.c.received_us]
    connection.execute(work.insert().from_select(list(work.c)[: len(columns)], select(*columns).where(~is_known.exists())))


def begin_new_store(connection: Connection, fence: int) -> None:
    """Give the store a new id and this fence, and make all its blocks work: it was lost or restored from a backup.

    The projections begin again with it.
    """
    store_id = secrets.token_bytes(STORE_ID_BYTES)
    connection.execute(update(state).values(store_id=store_id, fence=fence, projections_id=None, batches=0))
    add_all_work(connection)

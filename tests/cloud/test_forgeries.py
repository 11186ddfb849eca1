"""The opener opens nothing that a registered hub did not seal for its subject, even if the receiving side was taken over."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, select

from cloud import projections_database, tables
from cloud.api import alert_queries
from cloud.api.alert_queries import ListCursor
from cloud.block_reader import DAMAGED, ERASED, NO_KEY, NOT_ASSIGNED, NOT_AUTHENTIC
from cloud.receipts import BlockOutcome
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store import tables as store_tables
from sync.data_keys import DataKey, wrap_key
from sync.record_codec import encode_records
from sync.seal import encode_header, parse_header, seal_block
from sync.signing import SigningKey, Use
from sync.wire import EPOCH_RANDOM_BITS
from tests.clinic_testbed import Clinic, Hub, open_all, put_into_store
from tests.cloud.synthetic import START_US, alert

TRUE_ALERT, FORGED_ALERT = alert(id="true"), alert(id="forged")
FORGED = encode_records([FORGED_ALERT])


def shown_alerts(engine: Engine) -> list[str]:
    return [found["id"] for found in alert_queries.list_alerts(engine, EVERY_SUBJECT, ListCursor(0))["alerts"]]


def unopened_reasons(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(tables.unopened.c.reason)))


def with_a_known_key_id(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    """Who reads the traffic knows the key's id, not the key."""
    block = seal_block(hub.header("alert", 2), FORGED, DataKey(hub.key.id, bytes(32)))
    return DAMAGED, lambda store: put_into_store(store, block)


def with_a_key_wrapped_by_a_stranger(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    """The public key of the recipient is enough to wrap a key, but not to commit to it."""
    hub.use_key(DataKey.generate())
    stranger = DataKey(hub.key.id, bytes(32))
    recipient = hub.clinic.recipient(hub.subject)
    wrapped = wrap_key(stranger, hub=hub.name, subject=hub.subject, recipient=recipient)
    block = seal_block(hub.header("alert", 2), FORGED, stranger)
    return NO_KEY, lambda store: put_into_store(store, block, statement=hub.statement, wrapped=wrapped)


def with_a_statement_by_a_stranger(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    hub.device = SigningKey.generate(Use.DEVICE)
    hub.use_key(DataKey.generate())
    block = seal_block(hub.header("alert", 2), FORGED, hub.key)
    return NOT_AUTHENTIC, lambda store: put_into_store(store, block, statement=hub.statement, wrapped=hub.wrapped)


def of_a_hub_that_is_not_registered(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    stranger = Hub(hub.clinic, "hub-9", hub.subject, 1, SigningKey.generate(Use.DEVICE))
    stranger.use_key(DataKey.generate())
    block = stranger.seal("alert", FORGED)
    return NOT_AUTHENTIC, lambda store: put_into_store(store, block, statement=stranger.statement, wrapped=stranger.wrapped)


def without_a_statement(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    hub.use_key(DataKey.generate())
    block = seal_block(hub.header("alert", 2), FORGED, hub.key)
    return NO_KEY, lambda store: put_into_store(store, block, wrapped=hub.wrapped)


def with_the_ciphertext_of_another_block(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    other = seal_block(hub.header("alert", 3), FORGED, hub.key)
    ciphertext = other[len(encode_header(parse_header(other))) :]
    block = encode_header(replace(parse_header(other), seq=2)) + ciphertext
    return DAMAGED, lambda store: put_into_store(store, block)


def stored_under_another_id(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    block = seal_block(hub.header("alert", 2), FORGED, hub.key)

    def put(store: Store) -> None:
        put_into_store(store, block)
        with store.transaction() as connection:
            for table in (store_tables.blocks, store_tables.work):
                connection.execute(table.update().where(table.c.seq == 2).values(seq=7))

    return NOT_AUTHENTIC, put


def about_another_subject(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    """The hub may seal for both, but it committed to this key for one of them."""
    hub.clinic.assign(hub, "subject-2")
    hub.subject, key = "subject-1", hub.key
    block = seal_block(replace(hub.header("alert", 2), key=key.id), FORGED, key)
    return NOT_AUTHENTIC, lambda store: put_into_store(store, block, statement=hub.statement, wrapped=hub.wrapped)


def about_a_subject_of_another_time(hub: Hub) -> tuple[str, Callable[[Store], None]]:
    hub.epoch = 1_700_000_000 << EPOCH_RANDOM_BITS
    hub.clinic.assign(hub, "subject-2", from_s=1_800_000_000)
    block = seal_block(hub.header("alert", 2), FORGED, hub.key)
    return NOT_ASSIGNED, lambda store: put_into_store(store, block, statement=hub.statement, wrapped=hub.wrapped)


FORGERIES = (
    with_a_known_key_id,
    with_a_key_wrapped_by_a_stranger,
    with_a_statement_by_a_stranger,
    of_a_hub_that_is_not_registered,
    without_a_statement,
    with_the_ciphertext_of_another_block,
    stored_under_another_id,
    about_another_subject,
    about_a_subject_of_another_time,
)


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_alert_is_not_opened_and_does_not_displace_a_true_one(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub, forge: Callable[[Hub], tuple[str, Callable[[Store], None]]]
) -> None:
    hub.send(store, "alert", TRUE_ALERT)
    reason, put = forge(hub)
    put(store)
    outcomes = open_all(store, engine, clinic)
    assert [outcome.error.reason for outcome in outcomes if outcome.error] == [reason]
    assert shown_alerts(engine) == ["true"]
    assert unopened_reasons(engine) == [reason]


def test_a_true_block_that_takes_the_same_way_is_opened(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    put_into_store(store, hub.seal("alert", FORGED), statement=hub.statement, wrapped=hub.wrapped)
    open_all(store, engine, clinic)
    assert shown_alerts(engine) == ["forged"]


def test_a_block_of_a_hub_that_is_registered_later_is_opened(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    path = clinic.folder.hubs / "hub-1.toml"
    registration = path.read_text()
    path.unlink()
    put_into_store(store, hub.seal("alert", FORGED), statement=hub.statement, wrapped=hub.wrapped)
    opener = clinic.opener(store, engine)
    opener.open_batch()
    assert unopened_reasons(engine) == [NOT_AUTHENTIC]
    path.write_text(registration)
    opener.retry_unopened()
    assert (unopened_reasons(engine), shown_alerts(engine)) == ([], ["forged"])


def test_a_hub_whose_registration_was_deleted_is_not_trusted_any_more(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub
) -> None:
    opener = clinic.opener(store, engine)
    hub.send(store, "alert", TRUE_ALERT)
    opener.open_batch()
    hub.send(store, "alert", FORGED_ALERT)
    (clinic.folder.hubs / "hub-1.toml").unlink()
    opener.open_batch()
    assert (unopened_reasons(engine), shown_alerts(engine)) == ([NOT_AUTHENTIC], ["true"])


def test_a_block_of_an_erased_subject_is_not_opened_with_a_key_in_memory(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    """The key pair is still there: the subject's tombstone alone decides."""
    outcomes: list[BlockOutcome] = []
    opener = clinic.opener(store, engine, report=outcomes.extend)
    hub.send(store, "alert", TRUE_ALERT)
    opener.open_batch()
    block = hub.seal("alert", FORGED)
    store.erase(hub.subject, START_US)
    projections_database.erase_subject(engine, hub.subject)
    put_into_store(store, block, statement=hub.statement, wrapped=hub.wrapped)
    opener.open_batch()
    assert [outcome.error.reason if outcome.error else None for outcome in outcomes] == [None, ERASED]
    assert (shown_alerts(engine), unopened_reasons(engine), caplog.text) == ([], [], "")


def test_a_block_in_a_store_restored_from_before_its_subject_was_erased_is_refused(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub
) -> None:
    """The store has no tombstone, the key store has one."""
    hub.send(store, "alert", TRUE_ALERT)
    clinic.key_store.destroy(hub.subject)
    (outcome,) = open_all(store, engine, clinic)
    assert outcome.error is not None
    assert (outcome.error.reason, unopened_reasons(engine)) == (ERASED, [])

"""An outdated hub: it is told to update; after the grace period only its alerts and statuses are taken."""

from dataclasses import replace

import pytest

from cloud.outdated import GRACE_S, find_policy
from cloud.store.hub_states import note_heard, note_outdated
from sync.chain import block_digest
from sync.message_rows import Outcome
from sync.versions import ACCEPTED_REVISIONS, OUTDATED, OUTDATED_REVISION, REVISION
from tests.cloud_ingest.ingest_testbed import HUB, NOW_US, START_S, Receiver, SendingHub
from tests.cloud_ingest.test_statuses import STATUS, message
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
GRACE_US = GRACE_S * 1_000_000


def make_outdated(clinic: Receiver) -> None:
    with clinic.store.transaction() as connection:
        note_heard(connection, HUB, clinic.now_us)
        note_outdated(connection, HUB, clinic.now_us)


@pytest.mark.parametrize(
    ("revision", "outdated_us", "policy"),
    [
        (REVISION, None, (None, False)),
        (REVISION + 1, None, (None, False)),
        (REVISION + 1, 0, (None, False)),
        (None, None, (None, False)),
        (REVISION - 1, NOW_US - GRACE_US + 1_000_000, (START_S + 1, False)),
        (REVISION - 1, NOW_US - GRACE_US, (START_S, True)),
        (REVISION - 2, NOW_US, (START_S, True)),
    ],
)
def test_what_holds_for_each_version(revision: int | None, outdated_us: int | None, policy: tuple[int | None, bool]) -> None:
    found = find_policy(revision, outdated_us, NOW_US)
    assert (found.update_by_s, found.is_refused) == policy


def test_this_clinic_takes_the_present_revision_and_the_one_before() -> None:
    assert ACCEPTED_REVISIONS == (REVISION - 1, REVISION)


def test_in_the_grace_period_everything_is_taken_and_the_hub_is_told(clinic: Receiver, hub: SendingHub) -> None:
    make_outdated(clinic)
    clinic.now_us += GRACE_US - 1
    ack = clinic.receive(hub.message(*hub.seal(2)))
    assert ack.update_by_s == START_S + GRACE_S
    assert (ack.held[0].first, len(ack.held[0].digests), ack.refused) == (1, 2, ())


def test_afterwards_only_alerts_are_taken_of_a_hub_that_would_delete_what_is_refused(clinic: Receiver, hub: SendingHub) -> None:
    make_outdated(clinic)
    clinic.now_us += GRACE_US
    ack = clinic.receive(
        hub.message(*hub.seal(1, "alert"), *hub.seal(2, "vital"), *hub.seal(1, "wave"), *hub.seal(1, "archive"))
    )
    assert [(held.lane, held.first) for held in ack.held] == [("alert", 1)]
    assert (ack.refused, ack.aside, [mark.lane for mark in ack.marks]) == ((), (), ["alert"])
    assert clinic.store.count_blocks() == 1
    assert clinic.store.counts().quarantined == 0


def test_a_hub_that_keeps_what_is_refused_is_told_which_blocks(
    clinic: Receiver, hub: SendingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the next release will treat a hub of this one."""
    monkeypatch.setattr("cloud.outdated.REVISION", OUTDATED_REVISION + 1)
    monkeypatch.setattr("cloud.outdated.ACCEPTED_REVISIONS", (OUTDATED_REVISION, OUTDATED_REVISION + 1))
    monkeypatch.setattr("cloud.store.hub_states.REVISION", OUTDATED_REVISION + 1)
    clinic.handle(message(hub))
    clinic.now_us += GRACE_US
    blocks = hub.seal(2, "vital")
    ack = clinic.receive(hub.message(*hub.seal(1, "alert"), *blocks))
    expected = [Outcome("vital", hub.epoch, seq, block_digest(block), OUTDATED) for seq, block in enumerate(blocks, 1)]
    assert list(ack.refused) == expected
    clinic.handle(message(hub, replace(STATUS, seq=6, revision=OUTDATED_REVISION + 1)))  # it was updated
    ack = clinic.receive(hub.message(*blocks))
    assert (ack.update_by_s, ack.refused, [mark.seq for mark in ack.marks]) == (None, (), [2])


def test_an_older_status_keeps_the_date_and_an_updated_hub_loses_it(
    clinic: Receiver, hub: SendingHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.outdated.REVISION", 2)
    monkeypatch.setattr("cloud.store.hub_states.REVISION", 2)
    clinic.handle(message(hub))
    for seq in (6, 7):
        clinic.now_us += 10**12
        clinic.handle(message(hub, replace(STATUS, seq=seq)))
        assert clinic.receive(hub.message(*hub.seal())).update_by_s == START_S + GRACE_S
    clinic.handle(message(hub, replace(STATUS, seq=8, revision=2)))
    assert clinic.receive(hub.message(*hub.seal())).update_by_s is None

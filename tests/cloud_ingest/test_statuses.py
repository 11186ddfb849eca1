"""Statuses at the clinic: the last one is kept, and a forged, foreign or repeated one changes nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cloud.ingest import handle_message
from cloud.store.audit_hubs import list_hub_logs
from cloud.store.hub_states import HubState, list_states
from sync.audit import End, Origin, Position
from sync.audit_heads import HubAudit, certify_audit_key, hub_audit_to_bytes, sign_head
from sync.mqtt import Message
from sync.signing import SigningKey, Use
from sync.status import Backlog, HubStatus, encode_status, read_verified_status
from sync.versions import REVISION
from sync.wire import LANES, status_topic
from tests.cloud_ingest.ingest_testbed import ACK_KEY, EPOCH, HUB, NOW_US, Receiver, SendingHub
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
BACKLOG = tuple(Backlog(lane, 0, None) for lane in LANES)
STATUS = HubStatus(HUB, EPOCH, 5, NOW_US, "0.1.0", REVISION, BACKLOG, None, None, None, 1, 10**9, (("streaming", 1),))
OTHER = "hub-2"


def message(hub: SendingHub, status: HubStatus = STATUS, *, topic: str = HUB, device: SigningKey | None = None) -> Message:
    return Message(status_topic(topic), encode_status(status, device or hub.device))


def states(clinic: Receiver) -> dict[str, HubState]:
    with clinic.store.transaction() as connection:
        return {state.hub: state for state in list_states(connection)}


def kept(clinic: Receiver) -> tuple[HubStatus, int | None]:
    """The status that is kept of the hub, and when the hub was last heard."""
    state = states(clinic)[HUB]
    assert state.status is not None
    return read_verified_status(state.status), state.heard_us


def test_the_last_status_is_kept_and_not_answered(clinic: Receiver, hub: SendingHub) -> None:
    later = replace(STATUS, seq=6, free_bytes=1)
    restarted = replace(STATUS, seq=1, epoch=EPOCH + 1)
    for n, status in enumerate((STATUS, later, restarted)):
        clinic.now_us = NOW_US + n
        assert clinic.handle(message(hub, status)) == (None, 0)
        assert kept(clinic) == (status, NOW_US + n)
    assert clinic.store.counts().rejected_messages == 0


@pytest.mark.parametrize(
    "older",
    [
        replace(STATUS, seq=4),
        replace(STATUS, seq=2**53 - 1, epoch=EPOCH - 1),
        replace(STATUS, free_bytes=1),
        replace(STATUS, seq=1, at_us=NOW_US + 10**12),
    ],
    ids=["earlier", "earlier run", "same number", "later by its clock"],
)
def test_a_replayed_or_reordered_status_does_not_make_a_hub_heard(clinic: Receiver, hub: SendingHub, older: HubStatus) -> None:
    clinic.handle(message(hub))
    clinic.now_us += 10**9
    assert clinic.handle(message(hub, older)) == (None, 0)
    assert kept(clinic) == (STATUS, NOW_US)
    assert [(row[0], row[1]) for row in clinic.store.list_rejected_messages()] == [
        (HUB, "the status is older than the hub's last one")
    ]


def test_the_same_status_again_changes_nothing_and_is_not_counted(clinic: Receiver, hub: SendingHub) -> None:
    repeated = message(hub)
    clinic.handle(repeated)
    clinic.now_us += 10**9
    clinic.handle(repeated)
    assert kept(clinic) == (STATUS, NOW_US)
    assert clinic.store.counts().rejected_messages == 0


FORGERIES: dict[str, Callable[[SendingHub, SendingHub], Message]] = {
    "a stranger's key": lambda hub, _other: message(hub, device=SigningKey.generate(Use.DEVICE)),
    "another hub's key": lambda hub, other: message(hub, device=other.device),
    "another hub's status": lambda _hub, other: message(other, replace(STATUS, hub=OTHER)),
    "another hub's status, on its own topic": lambda hub, _other: message(hub, topic=OTHER),
    "an unknown hub": lambda hub, _other: message(hub, replace(STATUS, hub="nobody"), topic="nobody"),
    "an envelope": lambda hub, _other: Message(status_topic(HUB), hub.message(*hub.seal()).payload),
    "nothing": lambda _hub, _other: Message(status_topic(HUB), b""),
    "an oversize status": lambda hub, _other: Message(status_topic(HUB), message(hub).payload + bytes(65_000)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_status_is_kept_aside(clinic: Receiver, hub: SendingHub, forgery: str) -> None:
    other = SendingHub(OTHER, "subject-2").register(clinic.registry)
    clinic.handle(message(hub))
    clinic.now_us += 10**9
    assert clinic.handle(FORGERIES[forgery](hub, other)) == (None, 0)
    assert kept(clinic) == (STATUS, NOW_US)
    assert set(states(clinic)) == {HUB}
    assert clinic.store.counts().rejected_messages == 1


def test_a_status_on_a_topic_for_blocks_is_no_envelope(clinic: Receiver, hub: SendingHub) -> None:
    assert clinic.handle(Message(f"pulsegate/v1/{HUB}/up/vital", message(hub).payload)) == (None, 0)
    assert states(clinic) == {}


def test_new_blocks_make_a_hub_heard_and_replayed_ones_do_not(clinic: Receiver, hub: SendingHub) -> None:
    first, second = hub.message(*hub.seal()), hub.message(*hub.seal())
    clinic.receive(first)
    assert states(clinic)[HUB].heard_us == NOW_US
    clinic.now_us += 60_000_000
    clinic.receive(first)
    assert states(clinic)[HUB].heard_us == NOW_US
    clinic.receive(second)
    assert states(clinic)[HUB].heard_us == NOW_US + 60_000_000


def test_a_status_whose_audit_heads_are_wrong_is_kept_and_they_are_not(
    clinic: Receiver, hub: SendingHub, caplog: pytest.LogCaptureFixture
) -> None:
    site, own, stranger = (SigningKey.generate(use) for use in (Use.AUDIT, Use.AUDIT, Use.DEVICE))
    place = Position(1, bytes(32))
    right = HubAudit(
        sign_head(own, Origin(End.HUB, HUB), place), own.public.to_bytes(), certify_audit_key(hub.device, HUB, own.public)
    )
    by_a_stranger = right._replace(key_signature=certify_audit_key(stranger, HUB, own.public))
    for n, field in enumerate((b"\x00", hub_audit_to_bytes(by_a_stranger), hub_audit_to_bytes(right))):
        status = replace(STATUS, seq=6 + n, audit=field)
        sent = message(hub, status)
        assert handle_message(clinic.store, clinic.registry, ACK_KEY, sent, NOW_US, audit_key=site.public) == (None, HUB, 0)
        assert kept(clinic)[0] == status
        with clinic.store.snapshot() as connection:
            assert [row.hub for row in list_hub_logs(connection)] == ([HUB] if n == 2 else [])
    assert caplog.text.count("cannot use the heads of the audit log") == 2

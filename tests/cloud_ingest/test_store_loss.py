"""A store that was lost or restored is noticed by what hubs know of it; a hub that was restored or copied, by its epochs."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cloud.store import Store
from cloud.store.hubs import COPY_WINDOW_US, LATE_MESSAGE_US
from sync.in_flight import SentBlocks
from sync.keys import HubKey, HubKeys
from sync.message_rows import SeenStore
from sync.messages import Ack
from sync.mqtt import Message
from sync.outbox import NEWEST, Outbox
from sync.outgoing import MESSAGE_BLOCKS_LIMIT_BYTES, Due, Section, Sender, prepare_message
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SigningKey, Use
from sync.wire import EPOCH_RANDOM_BITS, FENCE_STEP_LIMIT, MAX_COUNT, UPLINK_LANES, Lane, up_topic
from tests.cloud_ingest.ingest_testbed import (
    ACK_KEY,
    EPOCH,
    HUB,
    NOW_US,
    START_S,
    SUBJECT,
    FakeRegistry,
    Receiver,
    SendingHub,
)
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
ONE_S = 1 << EPOCH_RANDOM_BITS
NOTHING_SENT = SentBlocks(frozenset(), frozenset())


class RestartedClinic:
    """A clinic that runs for one `opened` after the other. Its store can be lost, copied and restored in between."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.registry = FakeRegistry()

    @contextmanager
    def opened(self) -> Iterator[Receiver]:
        with closing(Store.open(self.databases.location("blocks"))) as store:
            yield Receiver(store, self.registry)

    def send(self, hub: SendingHub, n: int, lane: str = "vital") -> list[Ack]:
        """Start, let a hub send new blocks one by one and accept the answers, stop."""
        acks = []
        with self.opened() as clinic:
            for block in hub.seal(n, lane):  # type: ignore[arg-type]
                acks.append(clinic.receive(hub.message(block)))
                hub.accept(acks[-1])
        return acks


@pytest.fixture
def restarted(databases: Databases) -> RestartedClinic:
    return RestartedClinic(databases)


def count_work(clinic: Receiver) -> int:
    with clinic.store.transaction() as connection:
        return int(connection.execute(text("SELECT count(*) FROM work")).scalar_one())


def clear_work(clinic: Receiver) -> None:
    with clinic.store.transaction() as connection:
        connection.execute(text("DELETE FROM work"))


@pytest.mark.parametrize("case", ["deleted", "restored"])
def test_a_lost_or_restored_store_gets_a_new_id_and_says_so(
    restarted: RestartedClinic, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    hub = SendingHub().register(restarted.registry)
    restarted.send(hub, 3)
    restarted.databases.back_up("blocks")
    before = restarted.send(hub, 2)[-1]
    restarted.databases.lose("blocks")
    if case == "restored":
        restarted.databases.restore("blocks")
    with restarted.opened() as clinic:
        clear_work(clinic)
    after = restarted.send(hub, 2)
    assert after[0].store != before.store
    assert {ack.store for ack in after} == {after[0].store}
    assert {ack.fence for ack in after} == {before.fence + 1}
    n_held = 3 if case == "restored" else 0
    assert after[-1].marks == (hub.mark("vital", n_held),)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "the clinic's store was lost or restored from a backup: hub hub-1 knows" in line
    assert ("5 commits of this store, this one has 3" if case == "restored" else "another store with fence 1") in line
    with restarted.opened() as clinic:
        assert count_work(clinic) == n_held + 2
        again = clinic.receive(hub.message(*hub.blocks.values()))
        assert (again.marks, again.store) == ((hub.mark("vital", 7),), after[0].store)
    assert len(caplog.records) == 1


def test_a_restored_store_with_many_new_commits_is_noticed_by_its_marks(restarted: RestartedClinic) -> None:
    hub, other = SendingHub().register(restarted.registry), SendingHub("hub-2").register(restarted.registry)
    restarted.send(hub, 1)
    restarted.databases.back_up("blocks")
    before = restarted.send(hub, 2)[-1]
    restarted.databases.restore("blocks")
    assert restarted.send(other, 9)[-1].commits > before.commits
    (after,) = restarted.send(hub, 1)
    assert (after.store != before.store, after.fence) == (True, before.fence + 1)


class RestartedHub:
    """A hub's buffer, which is opened anew for each `run`, so that each begins an epoch."""

    def __init__(self, clinic: RestartedClinic, path: Path) -> None:
        device = SendingHub().register(clinic.registry).device
        recipients = {SUBJECT: RecipientKeyPair.generate().public}
        receipt = SigningKey.generate(Use.RECEIPT).public
        self._clinic, self._path, self._sender = clinic, path, Sender(HUB, device)
        self._arguments: dict[str, Any] = {
            "hub": HUB,
            "subject": SUBJECT,
            "keys": HubKeys(HubKey(bytes(32)), device),
            "registration": Registration(HUB, "main", ACK_KEY.public, receipt, 24, START_S - 1, recipients),
            "clock": lambda: START_S,
        }

    def open(self) -> Outbox:
        return Outbox.open(self._path, **self._arguments)

    def run(self, new: Lane | None = "wave", *, is_backlog_sent: bool = True) -> int:
        """Store a block, send as the agent does after its start, and return how many blocks of the hub the clinic has then."""
        with closing(self.open()) as outbox, self._clinic.opened() as clinic:
            if new is not None:
                outbox.put(new, b"x")
            after = (0, 0) if is_backlog_sent else (outbox.epoch, 0)
            sections = [
                Section(lane, False, after, NEWEST, MESSAGE_BLOCKS_LIMIT_BYTES, must_fit=False) for lane in UPLINK_LANES
            ]
            due = Due.HELLO
            while message := prepare_message(outbox, self._sender, sections, NOTHING_SENT, due):
                due = Due.NOTHING
                outbox.apply_ack(clinic.receive(Message(up_topic(HUB, "wave"), message.payload)), set(message.ids))
            return sum(block.hub == HUB for block in clinic.store.blocks_after(None, 100))


@pytest.mark.parametrize("commits", [0, 9], ids=["", "with more commits than the hub saw"])
@pytest.mark.parametrize("new", ["wave", "alert", None])
def test_a_hub_that_has_begun_an_epoch_since_sends_again_what_a_restored_store_lost(
    restarted: RestartedClinic, tmp_path: Path, new: Lane | None, commits: int
) -> None:
    """The heads of its envelopes name no mark of its earlier epochs, and a block of another lane does not follow theirs."""
    other, hub = SendingHub("hub-2").register(restarted.registry), RestartedHub(restarted, tmp_path / "outbox.db")
    assert hub.run() == 1
    restarted.databases.back_up("blocks")
    assert [hub.run(), hub.run()] == [2, 3]
    restarted.databases.restore("blocks")
    restarted.send(other, commits)
    assert hub.run(new) == (3 if new is None else 4)


def test_a_restored_store_gets_again_a_backlog_that_came_after_later_blocks(restarted: RestartedClinic, tmp_path: Path) -> None:
    """Only the mark of an earlier epoch tells of it: nothing of the later one was lost."""
    other, hub = SendingHub("hub-2").register(restarted.registry), RestartedHub(restarted, tmp_path / "outbox.db")
    hub.run(None)
    with closing(hub.open()) as outbox:
        outbox.put("wave", b"backlog")
    assert hub.run(is_backlog_sent=False) == 1
    restarted.databases.back_up("blocks")
    assert hub.run(None) == 2
    restarted.databases.restore("blocks")
    restarted.send(other, 9)
    assert hub.run(None) == 2


def test_a_store_that_lost_nothing_keeps_its_id(restarted: RestartedClinic, caplog: pytest.LogCaptureFixture) -> None:
    hub, other = SendingHub().register(restarted.registry), SendingHub("hub-2").register(restarted.registry)
    acks = [*restarted.send(hub, 2), *restarted.send(other, 2), *restarted.send(hub, 2)]
    assert {(ack.store, ack.fence) for ack in acks} == {(acks[0].store, 1)}
    assert caplog.text == ""


def test_the_fence_is_above_every_one_that_a_hub_has_seen(restarted: RestartedClinic) -> None:
    hub = SendingHub().register(restarted.registry)
    restarted.send(hub, 1)
    hub.seen = SeenStore(bytes(16), 41, 7)
    (after,) = restarted.send(hub, 1)
    assert after.fence == 42
    hub.seen = SeenStore(bytes(16), 41, MAX_COUNT)
    assert restarted.send(hub, 1)[0].fence == 42


@pytest.mark.parametrize("fence", [1 + FENCE_STEP_LIMIT, MAX_COUNT])
def test_a_fence_that_other_hubs_would_not_follow_is_not_taken(restarted: RestartedClinic, fence: int) -> None:
    """One hub whose device key was stolen must not silence the others."""
    hub, other = SendingHub().register(restarted.registry), SendingHub("hub-2").register(restarted.registry)
    (before,) = restarted.send(other, 1)
    hub.seen = SeenStore(bytes(16), fence, 7)
    restarted.send(hub, 1)
    assert restarted.send(other, 1)[0].store == before.store
    hub.seen = SeenStore(bytes(16), FENCE_STEP_LIMIT, 7)
    restarted.send(hub, 1)
    assert restarted.send(other, 1)[0].fence == before.fence + FENCE_STEP_LIMIT


def test_two_ingests_that_notice_the_same_loss_take_one_new_id(restarted: RestartedClinic) -> None:
    hub = SendingHub().register(restarted.registry)
    restarted.send(hub, 1)
    hub.seen = SeenStore(bytes(16), 7, 7)
    envelope = hub.envelope(())
    with ExitStack() as stack:
        one, other = (stack.enter_context(restarted.opened()).store for _ in range(2))
        loss = one.begin_after_loss(envelope)
        assert loss is not None
        assert (loss.after.fence, other.begin_after_loss(envelope), other.identity()) == (8, None, loss.after)


class TestCopiedHub:
    """`EPOCH` is the latest epoch of the hub. Epochs of copies follow it by seconds."""

    def start(self, hub: SendingHub, seconds: int) -> SendingHub:
        """Return a copy of the hub as it is, which begins an epoch."""
        copy = replace(hub, chains=dict(hub.chains), blocks=dict(hub.blocks))
        copy.begin_epoch(EPOCH + seconds * ONE_S)
        return copy

    def send(self, clinic: Receiver, hub: SendingHub) -> bool:
        return clinic.receive(hub.message(*hub.seal())).copied

    def test_restarts_are_no_copies(self, clinic: Receiver, hub: SendingHub) -> None:
        """Also those of which the clinic hears late, or in another order."""
        assert not self.send(clinic, hub)
        late = self.start(hub, 1)
        last = self.start(self.start(late, 2), 3)
        for each in (last, late, self.start(last, 4), last, self.start(self.start(last, 4), 9)):
            assert not self.send(clinic, each)
        assert clinic.store.counts().copied_hubs == 0

    def test_two_epochs_that_arrive_in_another_order_are_no_event(self, clinic: Receiver, hub: SendingHub) -> None:
        self.send(clinic, hub)
        earlier = self.start(hub, 1)
        for each in (self.start(earlier, 2), earlier):
            self.send(clinic, each)
        with clinic.store.transaction() as connection:
            assert connection.execute(text("SELECT count(*) FROM hubs")).scalar_one() == 0

    @pytest.mark.parametrize("seconds", [-100, 100])
    def test_one_restored_buffer_is_not_a_copy(self, clinic: Receiver, hub: SendingHub, seconds: int) -> None:
        """Its clock may be behind, and it goes on for long."""
        self.send(clinic, hub)
        self.send(clinic, self.start(hub, 50))
        restored = self.start(hub, seconds)
        for _ in range(3):
            clinic.now_us += LATE_MESSAGE_US + 1
            assert not self.send(clinic, restored)

    def test_two_machines_with_one_identity_are_noticed(
        self, clinic: Receiver, hub: SendingHub, caplog: pytest.LogCaptureFixture
    ) -> None:
        copy = self.start(hub, 1)
        assert not self.send(clinic, hub)
        assert not self.send(clinic, copy)
        copied = []
        for _ in range(3):
            clinic.now_us += LATE_MESSAGE_US + 1
            copied += [self.send(clinic, hub), self.send(clinic, copy)]
        assert copied == [False, False, True, True, True, True]
        (line,) = caplog.records
        assert "hub hub-1 seems to run on two machines" in line.getMessage()
        assert clinic.store.counts().copied_hubs == 1
        other = SendingHub("hub-2").register(clinic.registry)
        assert not self.send(clinic, other)
        clinic.now_us += COPY_WINDOW_US
        assert not self.send(clinic, copy)

    def test_epochs_that_alternate_are_noticed(self, clinic: Receiver, hub: SendingHub) -> None:
        one, other = self.start(hub, 1), self.start(hub, 2)
        copied = [self.send(clinic, machine) for machine in (hub, one, other, self.start(one, 3))]
        assert copied == [False, False, False, True]

    def test_messages_that_were_under_way_are_no_copies(self, clinic: Receiver, hub: SendingHub) -> None:
        first, *late = [hub.message(*hub.seal()) for _ in range(4)]
        clinic.receive(first)
        self.send(clinic, self.start(hub, 1))
        clinic.now_us += LATE_MESSAGE_US - 1
        assert not any(clinic.receive(message).copied for message in late)


def test_the_highest_epoch_of_the_hub_is_acknowledged(clinic: Receiver, hub: SendingHub) -> None:
    SendingHub("hub-2", epoch=EPOCH + 7).register(clinic.registry)
    hub.begin_epoch(EPOCH + 5)
    clinic.receive(hub.message())
    rolled_back = replace(hub, epoch=EPOCH + 1, previous=EPOCH, chains={})
    assert clinic.receive(rolled_back.message(*rolled_back.seal())).epoch == EPOCH + 5


def test_an_acknowledgement_says_how_long_somebody_watches(clinic: Receiver, hub: SendingHub) -> None:
    def live_s() -> int:
        return clinic.receive(hub.message()).live_s

    assert live_s() == 0
    clinic.store.watch({"subject-2": NOW_US + 60_000_000})
    assert live_s() == 0
    clinic.store.watch({hub.subject: NOW_US + 60_000_000, "subject-3": NOW_US})
    clinic.store.watch({hub.subject: NOW_US})
    assert live_s() == 60
    clinic.now_us += 59_000_001
    assert live_s() == 0
    clinic.store.watch({hub.subject: NOW_US + 10**12})
    assert live_s() == 600
    clinic.registry.of_hub[hub.name] = [replace(found, to_s=1) for found in clinic.registry.of_hub[hub.name]]
    assert live_s() == 0

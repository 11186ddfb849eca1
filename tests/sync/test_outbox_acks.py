"""The clinic's answers: only those that name a block's bytes change it, and only the present store counts."""

from collections.abc import Callable

import pytest

from sync.message_rows import Mark, SeenStore
from sync.outbox import Outbox, OutboxBlock
from sync.outbox.acks import FIRST_FENCE_LIMIT, UNOPENED_S
from sync.wire import FENCE_STEP_LIMIT, MAX_COUNT, Lane
from tests.sync.outboxes import (
    BOOT_S,
    EVERY_BLOCK,
    OTHER_STORE,
    STORE,
    Clock,
    ack,
    all_pending,
    held,
    mark_at,
    outcome,
    receipt,
    tidy,
)

OpenOutbox = Callable[..., Outbox]


def put(outbox: Outbox, lane: Lane, count: int = 1) -> list[OutboxBlock]:
    ids = outbox.put_many([(lane, b"%d" % n) for n in range(count)])
    return [block for block in all_pending(outbox, [lane]) if block.id in ids]


def states(outbox: Outbox) -> tuple[int, int, int, int]:
    """Pending, released, set aside, and those that are acknowledged only."""
    statistics = outbox.statistics()
    pending = sum(statistics.pending.values())
    unopened = statistics.acknowledged - statistics.released - statistics.aside
    return pending, statistics.released, statistics.aside, unopened


class TestAnswers:
    def test_waves_are_released_by_the_acknowledgement(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        first, second = put(outbox, "wave", 2)
        applied = outbox.apply_ack(ack(held=held(second)))
        assert (applied.accepted, applied.settled, applied.released) == (True, (second.id,), 1)
        assert all_pending(outbox) == [first]
        assert states(outbox) == (1, 1, 0, 0)

    @pytest.mark.parametrize("lane", ["alert", "vital"])
    def test_alerts_and_vitals_are_released_by_the_receipt(self, open_outbox: OpenOutbox, lane: Lane) -> None:
        outbox = open_outbox()
        (block,) = put(outbox, lane)
        assert outbox.apply_ack(ack(held=held(block))).settled == (block.id,)
        assert states(outbox) == (0, 0, 0, 1)
        assert outbox.apply_receipt(receipt(opened=held(block))).released == 1
        assert states(outbox) == (0, 1, 0, 0)

    def test_a_receipt_may_come_before_the_acknowledgement(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        (block,) = put(outbox, "alert")
        assert outbox.apply_receipt(receipt(opened=held(block))).settled == (block.id,)
        assert outbox.apply_ack(ack(held=held(block))).settled == (block.id,)
        assert states(outbox) == (0, 1, 0, 0)

    @pytest.mark.parametrize("start_s", [BOOT_S, 0], ids=["right clock", "no battery clock"])
    def test_an_alert_without_a_receipt_is_sent_again_after_ten_minutes(self, open_outbox: OpenOutbox, start_s: int) -> None:
        clock = Clock(start_s)
        outbox = open_outbox(clock=clock)
        alert, vital = put(outbox, "alert") + put(outbox, "vital")
        outbox.apply_ack(ack(held=held(alert, vital)))
        outbox.apply_receipt(receipt(opened=held(vital)))
        clock.now += UNOPENED_S - 1
        assert outbox.requeue_unopened() == 0
        clock.now += 1
        assert outbox.requeue_unopened() == 1
        assert all_pending(outbox) == [alert]
        assert outbox.apply_ack(ack(held=held(alert))).settled == (alert.id,)

    def test_what_is_set_aside_is_kept_and_not_sent(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        alert, wave = put(outbox, "alert") + put(outbox, "wave")
        applied = outbox.apply_ack(ack(aside=(outcome(alert, "the subject is not assigned to the hub"),)))
        assert (applied.settled, applied.aside) == ((alert.id,), 1)
        outbox.apply_ack(ack(held=held(wave)))
        assert outbox.apply_receipt(receipt(aside=(outcome(wave, "a damaged block"),))).aside == 1
        assert states(outbox) == (0, 0, 2, 0)

    def test_what_is_refused_is_deleted(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        first, second = put(outbox, "wave", 2)
        applied = outbox.apply_ack(ack(refused=(outcome(first, "no consent"),)))
        assert (applied.settled, applied.refused) == ((first.id,), 1)
        assert (all_pending(outbox), outbox.statistics().refused) == ([second], 1)
        assert outbox.statistics().bytes == len(second.sealed)

    def test_an_erased_subject_loses_keys_blocks_and_state(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        outbox.put_many([("alert", b"a"), ("wave", b"b")], {"alerts": b"1"}, subject="subject-1")
        outbox.put_many([("alert", b"c")], {"alerts": b"2"}, subject="subject-2")
        first, other, wave = all_pending(outbox)
        outbox.apply_receipt(receipt(refused=(outcome(first),)))
        assert all_pending(outbox) == [other]
        assert outbox.keys_for([first.key], also_held=True) == ([], [])
        assert [state.subject for state in outbox.stored_states()] == ["subject-2"]
        tidy(outbox)
        assert outbox.statistics().bytes == len(other.sealed)
        assert outbox.statistics().refused == 2
        id_ = outbox.put("wave", b"d")  # with a new key
        assert next(block for block in all_pending(outbox) if block.id == id_).key != wave.key


class TestForgeries:
    def test_another_digest_changes_nothing(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        first, second = put(outbox, "alert", 2)
        wrong = held(OutboxBlock(first.id, first.key, second.sealed))
        moved = outcome(OutboxBlock(first.id, first.key, second.sealed))
        for message in (ack(held=wrong), ack(aside=(moved,)), ack(refused=(moved,))):
            applied = outbox.apply_ack(message)
            assert (applied.settled, applied.accepted) == ((), True)
            assert applied.problem is not None
            assert "other bytes" in applied.problem
        outbox.apply_receipt(receipt(opened=wrong, aside=(moved,), refused=(moved,)))
        assert all_pending(outbox) == [first, second]

    def test_a_mark_must_have_the_chain_value(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        put(outbox, "wave", 3)
        mark = mark_at(outbox, "wave")
        for forged in (mark._replace(chain=bytes(32)), mark._replace(seq=2), mark._replace(seq=4), mark._replace(seq=0)):
            assert outbox.apply_ack(ack(marks=(forged,)), EVERY_BLOCK).settled == ()
        assert len(outbox.apply_ack(ack(marks=(mark,)), EVERY_BLOCK).settled) == 3
        assert outbox.clinic_view().heads[2].mark == 3

    def test_unknown_blocks_lanes_and_epochs_are_ignored(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        (block,) = put(outbox, "wave")
        elsewhere = [block.id._replace(lane="vital"), block.id._replace(epoch=1), block.id._replace(seq=2)]
        rows = [OutboxBlock(id_, block.key, block.sealed) for id_ in elsewhere]
        assert outbox.apply_ack(ack(held=held(*rows), aside=tuple(map(outcome, rows)))).settled == ()
        assert outbox.apply_ack(ack(marks=(Mark("vital", MAX_COUNT, MAX_COUNT, bytes(32)),)), EVERY_BLOCK).settled == ()
        assert all_pending(outbox) == [block]

    def test_a_message_for_another_hub_is_not_accepted(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        blocks = put(outbox, "wave")
        message = ack(held=held(*blocks))
        object.__setattr__(message, "hub", "hub-2")
        applied = outbox.apply_ack(message)
        assert not applied.accepted
        assert all_pending(outbox) == blocks


class TestStores:
    def test_the_first_fence_is_bounded(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        assert not outbox.apply_ack(ack(fence=FIRST_FENCE_LIMIT)).accepted
        assert outbox.clinic_view().seen is None
        assert outbox.apply_ack(ack(fence=FIRST_FENCE_LIMIT - 1)).accepted

    @pytest.mark.parametrize(
        ("store", "step", "accepted"),
        [
            (STORE, 0, True),
            (STORE, 1, False),
            (STORE, -1, False),
            (OTHER_STORE, 0, False),
            (OTHER_STORE, -1, False),
            (OTHER_STORE, 1, True),
            (OTHER_STORE, FENCE_STEP_LIMIT, True),
            (OTHER_STORE, FENCE_STEP_LIMIT + 1, False),
            (OTHER_STORE, MAX_COUNT - 7, False),
        ],
    )
    def test_fences_after_the_first(self, open_outbox: OpenOutbox, store: bytes, step: int, accepted: bool) -> None:
        first = open_outbox()
        first.apply_ack(ack(fence=7, commits=5))
        first.close()
        outbox = open_outbox()  # the store is remembered across a restart
        (block,) = put(outbox, "wave")
        applied = outbox.apply_ack(ack(store, 7 + step, commits=9, held=held(block)))
        assert (applied.accepted, applied.is_new_store) == (accepted, accepted and store != STORE)
        assert (applied.problem is None, all_pending(outbox) == []) == (accepted, accepted)
        assert outbox.clinic_view().seen == (SeenStore(store, 7 + step, 9) if accepted else SeenStore(STORE, 7, 5))
        assert outbox.apply_receipt(receipt(store, 7 + step)).accepted is accepted

    def test_seen_names_the_most_commits(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        for commits, most in ((3, 3), (9, 9), (4, 9)):
            outbox.apply_ack(ack(commits=commits))
            assert outbox.clinic_view().seen == SeenStore(STORE, 7, most)
        outbox.apply_receipt(receipt())
        assert outbox.clinic_view().seen == SeenStore(STORE, 7, 9)

    def test_with_another_store_everything_is_pending_again(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        blocks = put(outbox, "alert") + put(outbox, "vital") + put(outbox, "wave", 3)
        alert, vital, wave, aside, unsent = blocks
        (statement,), (wrapped,) = outbox.keys_for([alert.key])
        confirmed = {"keys": (statement.id,), "wraps": (wrapped[:2],)}
        outbox.apply_ack(ack(held=held(alert, vital, wave), aside=(outcome(aside),), **confirmed))
        outbox.apply_receipt(receipt(opened=held(alert)))
        outbox.apply_ack(ack(marks=(mark_at(outbox, "alert"),)), EVERY_BLOCK)
        assert all_pending(outbox) == [unsent]

        applied = outbox.apply_ack(ack(OTHER_STORE, 8, commits=1))
        assert applied.is_new_store
        assert all_pending(outbox) == blocks
        assert states(outbox) == (5, 0, 0, 0)
        assert outbox.keys_for([alert.key]) == ([statement], [wrapped])
        assert [head.mark for head in outbox.clinic_view().heads] == [0, 0, 0]

        replayed = outbox.apply_ack(ack(held=held(*blocks), commits=99))
        assert not replayed.accepted
        assert all_pending(outbox) == blocks
        outbox.apply_ack(ack(OTHER_STORE, 8, held=held(*blocks)))
        assert states(outbox) == (0, 3, 0, 2)

    @pytest.mark.parametrize(("seq", "commits", "is_restored"), [(1, 6, True), (0, 6, True), (1, 5, False), (2, 6, False)])
    def test_a_mark_that_went_back_says_that_the_store_was_restored(
        self, open_outbox: OpenOutbox, seq: int, commits: int, is_restored: bool
    ) -> None:
        """Also of an earlier epoch. An acknowledgement that is not newer than others only came late."""
        outbox = open_outbox()
        blocks = put(outbox, "wave", 2)
        outbox.apply_ack(ack(marks=(mark_at(outbox, "wave"),), held=held(*blocks), commits=5))
        (statement,), (wrapped,) = outbox.keys_for([blocks[0].key])
        outbox.apply_ack(ack(keys=(statement.id,), wraps=(wrapped[:2],)))
        mark = Mark("wave", outbox.epoch, seq, bytes(32))
        outbox.close()
        outbox = open_outbox()
        assert outbox.apply_ack(ack(marks=(mark,), commits=commits)).is_new_store is is_restored
        assert all_pending(outbox) == (blocks if is_restored else [])
        assert len(outbox.keys_for([blocks[0].key])[0]) == is_restored
        assert outbox.clinic_view().seen == SeenStore(STORE, 7, commits)

    def test_a_restored_store_is_noticed_once(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        put(outbox, "wave", 2)
        outbox.apply_ack(ack(marks=(mark_at(outbox, "wave"),), commits=5), EVERY_BLOCK)
        lower = Mark("wave", outbox.epoch, 1, bytes(32))
        assert [outbox.apply_ack(ack(marks=(lower,), commits=n)).is_new_store for n in (6, 7)] == [True, False]

    def test_many_stores_one_after_the_other(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        blocks = put(outbox, "wave", 3)
        for n in range(40):  # more than fit in a state of one byte
            store = bytes(15) + bytes([n])
            assert outbox.apply_ack(ack(store, n, held=held(blocks[n % 3]))).accepted
            assert all_pending(outbox) == [block for block in blocks if block != blocks[n % 3]]


class TestEpochs:
    def test_a_higher_epoch_at_the_clinic_begins_one_above_it(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        first = outbox.epoch
        outbox.apply_ack(ack(epoch=first))
        assert outbox.epoch == first
        higher = (BOOT_S + 5000) << 20
        outbox.apply_ack(ack(epoch=higher))
        assert higher < outbox.epoch < higher + 2**22
        assert outbox.clinic_view().previous_epoch == first
        assert outbox.put("vital", b"a").epoch == outbox.epoch

    def test_an_epoch_at_the_limit_is_ignored(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        first = outbox.epoch
        applied = outbox.apply_ack(ack(epoch=MAX_COUNT))
        assert applied.accepted
        assert applied.problem is not None
        assert outbox.epoch == first

    def test_a_message_that_is_not_accepted_does_not_change_the_epoch(self, open_outbox: OpenOutbox) -> None:
        outbox = open_outbox()
        first = outbox.epoch
        outbox.apply_ack(ack(fence=MAX_COUNT, epoch=(BOOT_S + 5000) << 20))
        assert outbox.epoch == first


def test_the_view_names_the_heads_of_the_present_epoch(open_outbox: OpenOutbox) -> None:
    first = open_outbox()
    put(first, "wave", 2)
    outbox = open_outbox()
    empty = outbox.clinic_view()
    assert [head.seq for head in empty.heads] == [0, 0, 0]
    assert empty.previous_epoch == first.epoch
    put(outbox, "wave", 3)
    view = outbox.clinic_view()
    assert [(head.lane, head.seq) for head in view.heads] == [("alert", 0), ("vital", 0), ("wave", 3)]
    assert view.heads[:2] == empty.heads[:2]
    assert view.heads[2].chain != empty.heads[2].chain


def test_a_mark_settles_only_what_was_sent(open_outbox: OpenOutbox) -> None:
    """Envelopes carry the chain values of their heads: whoever signs acknowledgements could send these back."""
    outbox = open_outbox()
    outbox.put_many([("wave", b"one"), ("wave", b"two"), ("wave", b"three")])
    blocks = all_pending(outbox, ["wave"])
    echoed = ack(marks=(mark_at(outbox, "wave"),))
    assert outbox.apply_ack(echoed).settled == ()
    assert outbox.apply_ack(echoed, {blocks[1].id}).settled == (blocks[1].id,)
    assert all_pending(outbox, ["wave"]) == [blocks[0], blocks[2]]

"""A hub gets a signed receipt for every block of its alerts and vital signs, and for every block that is not opened."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Engine

from cloud import work
from cloud.block_reader import DAMAGED, ERASED, UNDECODABLE, UnreadableError
from cloud.receipts import RECEIPT_BLOCKS, BlockOutcome, ReceiptQueue, make_receipts
from cloud.store import Store
from cloud.store.stored_blocks import StoredBlock, StoreIdentity
from sync.chain import block_digest
from sync.errors import TransientError
from sync.message_rows import Held, Outcome
from sync.messages import Receipt, decode_receipt
from sync.signing import SignatureError, SigningKey, Use
from sync.wire import MAX_COUNT, MESSAGE_LIMIT_BYTES, BlockId, Lane, receipt_topic
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, heart_rate, waveform

STORE = StoreIdentity(bytes(16), 3, 9)
KEY = SigningKey.generate(Use.RECEIPT)


def stored(hub: str, lane: Lane, seq: int, epoch: int = 1) -> StoredBlock:
    return StoredBlock(hub, BlockId(lane, epoch, seq), bytes(16), f"{hub}{lane}{epoch}{seq}".encode(), START_US)


def receipts_of(outcomes: Sequence[BlockOutcome]) -> list[Receipt]:
    return [decode_receipt(payload, KEY.public) for _, payload in make_receipts(outcomes, STORE, KEY)]


def test_names_the_digests_of_opened_alerts_and_vitals_of_each_hub() -> None:
    blocks = [
        stored("hub-1", "alert", 1),
        stored("hub-1", "alert", 2),
        stored("hub-1", "alert", 4),
        stored("hub-1", "vital", 1),
    ]
    other = stored("hub-2", "vital", 7, epoch=2)
    first, second = receipts_of([BlockOutcome(block) for block in (*blocks, stored("hub-1", "wave", 1), other)])
    digests = [block_digest(block.block) for block in blocks]
    assert first == Receipt(
        "hub-1",
        STORE.id,
        STORE.fence,
        opened=(
            Held("alert", 1, 1, (digests[0], digests[1])),
            Held("alert", 1, 4, (digests[2],)),
            Held("vital", 1, 1, (digests[3],)),
        ),
    )
    assert (second.hub, second.opened) == ("hub-2", (Held("vital", 2, 7, (block_digest(other.block),)),))


def test_names_blocks_of_any_lane_that_are_set_aside_or_refused() -> None:
    damaged, erased = stored("hub-1", "wave", 1), stored("hub-1", "vital", 2)
    outcomes = [
        BlockOutcome(damaged, UnreadableError(DAMAGED, "x" * 300)),
        BlockOutcome(erased, UnreadableError(ERASED, "its subject was erased")),
    ]
    (receipt,) = receipts_of(outcomes)
    reason = ("damaged: " + "x" * 300)[:200]
    assert receipt.aside == (Outcome("wave", 1, 1, block_digest(damaged.block), reason),)
    assert receipt.refused == (Outcome("vital", 1, 2, block_digest(erased.block), "erased"),)
    assert receipt.opened == ()


def test_a_hub_whose_blocks_need_no_receipt_gets_none() -> None:
    assert receipts_of([BlockOutcome(stored("hub-1", "wave", 1))]) == []


def test_no_other_key_signs_a_receipt() -> None:
    ((_, payload),) = make_receipts([BlockOutcome(stored("hub-1", "alert", 1))], STORE, KEY)
    with pytest.raises(SignatureError):
        decode_receipt(payload, SigningKey.generate(Use.RECEIPT).public)


@given(st.lists(st.booleans(), max_size=3 * RECEIPT_BLOCKS))
@example([False] * (2 * RECEIPT_BLOCKS + 1))
def test_every_receipt_fits_into_a_message_and_no_block_is_left_out(are_opened: list[bool]) -> None:
    """With the longest names, numbers and reasons that there are, and no two blocks consecutive."""
    error = UnreadableError(UNDECODABLE, "\N{GRINNING FACE}" * 300)
    outcomes = [
        BlockOutcome(stored("h" * 64, "alert", MAX_COUNT - 2 * n, MAX_COUNT), None if is_opened else error)
        for n, is_opened in enumerate(are_opened)
    ]
    found = set()
    for _, payload in make_receipts(outcomes, STORE, KEY):
        assert len(payload) <= MESSAGE_LIMIT_BYTES
        receipt = decode_receipt(payload, KEY.public)
        found |= {held.first for held in receipt.opened} | {row.seq for row in receipt.aside}
    assert found == {outcome.block.position.seq for outcome in outcomes}


class Published:
    """Receipts that were published, decoded with the clinic's key."""

    def __init__(self, clinic: Clinic) -> None:
        self.key = clinic.signing.receipt.public
        self.receipts: asyncio.Queue[Receipt] = asyncio.Queue()

    async def publish(self, topic: str, payload: bytes) -> None:
        receipt = decode_receipt(payload, self.key)
        assert topic == receipt_topic(receipt.hub)
        self.receipts.put_nowait(receipt)


async def send_nothing() -> None:
    """Take the hint to a feed that has no viewers."""


def run_opener(store: Store, engine: Engine, clinic: Clinic, publish: Any, until: Any) -> None:
    """Run the opener and its receipts until `until` returns."""

    async def run() -> None:
        queue = ReceiptQueue(store, clinic.signing.receipt, publish)
        opener = clinic.opener(store, engine, report=queue.put)
        tasks = [asyncio.create_task(opener.run(send_nothing)), asyncio.create_task(queue.run())]
        async with asyncio.timeout(10):
            await until(opener)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_a_lost_receipt_is_sent_again_when_the_block_comes_again(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub
) -> None:
    good, bad = hub.seal_records("vital", heart_rate(START_US, 61.0)), hub.seal("alert", b"\xff")
    for block in (good, bad):
        hub.send_block(store, block)
    hub.send(store, "wave", waveform(START_US, counts(ecg_mv([0.5], 1.0))))
    published = Published(clinic)

    async def hub_sends_again(opener: Any) -> None:
        first = {await published.receipts.get(), await published.receipts.get()}
        for block in (good, bad):
            hub.receive(store, hub.message(block))
        opener.wake()
        again = {await published.receipts.get(), await published.receipts.get()}
        assert first == again
        assert {len(receipt.opened) for receipt in first} == {0, 1}
        assert {row.digest for receipt in first for row in receipt.aside} == {block_digest(bad)}
        assert {receipt.store for receipt in first} == {store.identity().id}

    run_opener(store, engine, clinic, published.publish, hub_sends_again)


def test_no_receipt_is_sent_before_both_databases_have_committed(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.send(store, "alert", alert())
    outcomes: list[BlockOutcome] = []

    def crash(*_: object) -> None:
        raise TransientError("crashed")

    monkeypatch.setattr(work, "delete_work", crash)
    opener = clinic.opener(store, engine, report=outcomes.extend)
    with pytest.raises(TransientError, match="crashed"):
        opener.open_batch()
    assert outcomes == []
    monkeypatch.undo()
    opener.open_batch()
    assert [outcome.error for outcome in outcomes] == [None]


def test_a_broker_that_is_away_does_not_stop_the_opener(
    store: Store, engine: Engine, clinic: Clinic, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_topic: str, _payload: bytes) -> None:
        attempts.put_nowait(None)
        raise TransientError("no connection")

    async def two_alerts(opener: Any) -> None:
        for n in range(2):
            hub.send(store, "alert", alert(onset_us=START_US + n))
            opener.wake()
            await attempts.get()

    attempts: asyncio.Queue[None] = asyncio.Queue()
    run_opener(store, engine, clinic, fail, two_alerts)
    assert "hub hub-1 will send its blocks again" in caplog.text


def test_a_block_that_opens_at_a_later_attempt_gets_its_receipt(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    hub.send(store, "alert", alert())
    outcomes: list[BlockOutcome] = []
    clinic.without_recipients().opener(store, engine, report=outcomes.extend).open_batch()
    clinic.opener(store, engine, report=outcomes.extend).retry_unopened()
    assert [outcome.error and outcome.error.reason for outcome in outcomes] == ["no key", None]

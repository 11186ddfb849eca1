"""What the clinic's messages change at the hub, and what forged, foreign and replayed ones do not."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.cbor import decode_cbor, encode_cbor
from sync.chain import block_digest
from sync.errors import TransientError
from sync.message_rows import AcceptedMark, Dropped, Held, Mark, Outcome
from sync.messages import Ack, Receipt, encode_ack, encode_receipt
from sync.outbox import Outbox
from sync.outbox.views import MARKS_LIMIT
from sync.signing import Label, SigningKey, Use
from sync.uplink import IGNORED_REPORT_INTERVAL_S, Uplink
from sync.wire import MAX_COUNT, MESSAGE_LIMIT_BYTES, PLAINTEXT_LIMIT_BYTES, BlockId, ack_topic, receipt_topic
from tests.fake_clinic import FakeClinic
from tests.link import Link
from tests.sync.uplink_testbed import HUB, UplinkTestbed, open_testbed, wait_until


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[UplinkTestbed]:
    with open_testbed(tmp_path) as opened:
        yield opened


@pytest.fixture
def stored(testbed: UplinkTestbed) -> list[BlockId]:
    """Three vital blocks in the outbox."""
    return testbed.outbox.put_many([("vital", b"a"), ("vital", b"b"), ("vital", b"c")])


def seen_ack(testbed: UplinkTestbed, **changes: Any) -> Ack:
    """The acknowledgement that the clinic would send for the blocks in the outbox, which it has received."""
    blocks = testbed.outbox.pending("vital", (0, 0), 10**6)
    testbed.clinic.blocks |= {block.id: block.sealed for block in blocks}
    clinic = testbed.clinic
    ack = Ack(HUB, "main", clinic.store, clinic.fence, clinic.commits + 1, held=clinic.held([block.id for block in blocks]))
    return replace(ack, **changes)


def deliver(testbed: UplinkTestbed, *payloads: bytes, topic: str = ack_topic(HUB), connect: bool = True) -> Uplink:
    """Send payloads to the hub, which has sent what it could before."""

    async def scenario(link: Link, _uplink: Uplink) -> None:
        if connect:
            link.connect()
        await asyncio.sleep(0.1)
        link.is_up = True
        for payload in payloads:
            await link.clinic.publish(topic, payload)
            await asyncio.sleep(0.1)

    return testbed.run(scenario, has_clinic=False)


def pending(testbed: UplinkTestbed) -> int:
    return testbed.outbox.statistics().pending["vital"]


def with_fields(payload: bytes, key: SigningKey, **fields: Any) -> bytes:
    """The acknowledgement with more or other fields, signed again."""
    message = decode_cbor(payload, limit_bytes=MESSAGE_LIMIT_BYTES) | fields
    del message["sig"]
    content = hashlib.sha256(encode_cbor(message)).digest()
    return encode_cbor(message | {"sig": key.sign(Label.ACKNOWLEDGEMENT, message["hub"], content)})


def test_an_acknowledgement_ends_the_sending(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    uplink = deliver(testbed, testbed.clinic.encode(seen_ack(testbed)))
    assert pending(testbed) == 0
    assert (uplink.statistics.blocks_acked, uplink.statistics.ignored_messages) == (3, 0)


def test_an_unknown_optional_field_is_accepted(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    payload = testbed.clinic.encode(seen_ack(testbed))
    uplink = deliver(testbed, with_fields(payload, testbed.clinic.acknowledgement, newer=[1, {"a": None}]))
    assert (pending(testbed), uplink.statistics.ignored_messages) == (0, 0)


def forged(testbed: UplinkTestbed) -> dict[str, bytes]:
    """Payloads that the hub must ignore, by what is wrong with each."""
    clinic = testbed.clinic
    right = seen_ack(testbed)
    stranger = SigningKey.generate(Use.ACKNOWLEDGEMENT)
    same_key_as_receipts = SigningKey(Use.ACKNOWLEDGEMENT, clinic.receipt.key)
    signed = clinic.encode(right)
    foreign = FakeClinic("hub-2", clinic.device, acknowledgement=clinic.acknowledgement)
    too_large = replace(right, held=tuple(Held("vital", 1, n, (bytes(32),)) for n in range(1, 1500)))
    return {
        "empty": b"",
        "no fields": b"\xa0",
        "a stranger's key": encode_ack(right, stranger),
        "the receipt key": encode_ack(right, same_key_as_receipts),
        "another hub": foreign.encode(replace(right, hub="hub-2")),
        "a changed field": signed.replace(b"main", b"mail"),
        "no signature": with_fields(signed, clinic.acknowledgement)[:-64] + bytes(64),
        "an unknown field that must not be ignored": with_fields(signed, clinic.acknowledgement, crit=["newer"], newer=1),
        "over the size limit": with_fields(
            signed, clinic.acknowledgement, held=[[h.lane, h.epoch, h.first, bytes(32)] for h in too_large.held]
        ),
        "a fence of 2^53 - 1": clinic.encode(replace(right, fence=MAX_COUNT)),
        "a fence over the limit": with_fields(signed, clinic.acknowledgement, fence=2**63 - 1),
        "a count over the limit": with_fields(signed, clinic.acknowledgement, commits=MAX_COUNT + 1),
        "a longer live time": with_fields(signed, clinic.acknowledgement, live_s=601),
    }


def test_forged_acknowledgements_are_counted_and_change_nothing(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    payloads = forged(testbed)
    before = testbed.outbox.clinic_view()
    for number, (what, payload) in enumerate(payloads.items(), 1):
        uplink = deliver(testbed, payload)
        assert uplink.statistics.ignored_messages == 1, what
        assert uplink.statistics.ignored_reason, what
        assert (pending(testbed), testbed.outbox.clinic_view()) == (3, before), (number, what)
    assert testbed.live_s == []


def test_a_message_on_another_topic_is_ignored(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    payload = testbed.clinic.encode(seen_ack(testbed))
    for topic in ("pulsegate/v1/hub-1/down/other", receipt_topic(HUB)):
        uplink = deliver(testbed, payload, topic=topic)
        assert (pending(testbed), uplink.statistics.ignored_messages) == (3, 1)


def test_an_acknowledgement_that_names_another_block_releases_nothing(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    others = (Held(*stored[0], (bytes(32), bytes(32))), Held("vital", stored[0].epoch - 1, 1, (bytes(32),)))
    marks = (Mark("vital", stored[0].epoch, 3, bytes(32)), Mark("wave", stored[0].epoch, 3, bytes(32)))
    uplink = deliver(testbed, testbed.clinic.encode(seen_ack(testbed, held=others, marks=marks)))
    assert (pending(testbed), uplink.statistics.blocks_acked) == (3, 0)


def test_a_replay_from_an_earlier_store_is_ignored(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    old = testbed.clinic.encode(seen_ack(testbed, live_s=60))
    deliver(testbed, old)
    testbed.clinic.lose_store()
    deliver(testbed, testbed.clinic.encode(Ack(HUB, "main", testbed.clinic.store, testbed.clinic.fence, 1)))
    assert pending(testbed) == 3
    view = testbed.outbox.clinic_view()
    uplink = deliver(testbed, old, old)
    assert (pending(testbed), testbed.outbox.clinic_view(), uplink.statistics.ignored_messages) == (3, view, 2)
    assert testbed.live_s == [60]


def test_everything_that_the_hub_holds_is_sent_to_a_new_store(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    testbed.drain()
    testbed.clinic.lose_store()

    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        testbed.outbox.put("wave", b"d")
        uplink.wake()
        await wait_until(lambda: len(testbed.clinic.blocks) == 4)

    testbed.run(scenario)
    assert sorted(testbed.clinic.opened_plaintexts()) == [b"a", b"b", b"c", b"d"]


def test_counts_up_to_the_limit_are_accepted_and_a_lower_one_is_no_longer_live(
    testbed: UplinkTestbed, stored: list[BlockId]
) -> None:
    right = seen_ack(testbed)
    deliver(testbed, *(testbed.clinic.encode(replace(right, commits=n, live_s=60)) for n in (5, 5, 4, MAX_COUNT, 6)))
    assert testbed.live_s == [60, 60]
    seen = testbed.outbox.clinic_view().seen
    assert seen is not None
    assert seen.commits == MAX_COUNT


def test_a_copied_identity_is_reported_until_the_clinic_says_that_it_is_over(
    testbed: UplinkTestbed, stored: list[BlockId], caplog: pytest.LogCaptureFixture
) -> None:
    right = seen_ack(testbed)
    copied = [testbed.clinic.encode(replace(right, commits=n, copied=True)) for n in (2, 3)]
    over = testbed.clinic.encode(replace(right, commits=4))
    assert deliver(testbed, *copied).statistics.is_copied
    assert caplog.text.count("another machine uses this hub's identity") == 1
    assert not deliver(testbed, over, copied[0]).statistics.is_copied


@pytest.mark.parametrize("outcome", ["aside", "refused"])
def test_a_block_that_the_clinic_does_not_store_is_sent_no_more(
    testbed: UplinkTestbed, stored: list[BlockId], outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    digest = block_digest(testbed.outbox.pending("vital", (0, 0), 10**6)[0].sealed)
    rows = (Outcome(*stored[0], digest, "not assigned"), Outcome(*stored[1], bytes(32), "another block"))
    uplink = deliver(testbed, testbed.clinic.encode(seen_ack(testbed, held=(), **{outcome: rows})))
    assert [block.id for block in testbed.outbox.pending("vital", (0, 0), 10**6)] == stored[1:]
    assert getattr(testbed.outbox.statistics(), outcome) == 1
    reasons = {"aside": uplink.statistics.aside_reason, "refused": uplink.statistics.refused_reason}
    assert reasons == {"aside": None, "refused": None} | {outcome: "another block"}
    assert caplog.text.count("another block") == 1


def test_a_receipt_releases_what_it_names_exactly_and_nothing_that_was_never_sent(
    testbed: UplinkTestbed, stored: list[BlockId]
) -> None:
    testbed.drain()
    clinic = testbed.clinic
    never_sent = testbed.outbox.put("vital", b"d")
    opened = (*clinic.held(stored), Held(*never_sent, (bytes(32),)), Held("vital", 1, MAX_COUNT, (bytes(32),)))
    payload = encode_receipt(Receipt(HUB, clinic.store, clinic.fence, opened), clinic.receipt)
    uplink = deliver(testbed, payload, topic=receipt_topic(HUB), connect=False)
    assert testbed.outbox.statistics().released == 3
    assert pending(testbed) == 1
    assert uplink.statistics.ignored_messages == 0


def test_forged_receipts_are_counted_and_change_nothing(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    testbed.drain()
    clinic = testbed.clinic
    receipt = Receipt(HUB, clinic.store, clinic.fence, clinic.held(stored))
    payloads = [
        encode_receipt(receipt, SigningKey.generate(Use.RECEIPT)),
        encode_receipt(receipt, SigningKey(Use.RECEIPT, clinic.acknowledgement.key)),
        encode_receipt(replace(receipt, hub="hub-2"), clinic.receipt),
        encode_receipt(replace(receipt, store=bytes(16)), clinic.receipt),
        encode_receipt(replace(receipt, fence=MAX_COUNT), clinic.receipt),
        clinic.encode(seen_ack(testbed)),
        b"",
    ]
    uplink = deliver(testbed, *payloads, topic=receipt_topic(HUB))
    assert uplink.statistics.ignored_messages == len(payloads)
    assert testbed.outbox.statistics().released == 0


def test_thousands_of_forged_messages_are_reported_once(
    testbed: UplinkTestbed, stored: list[BlockId], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        for number in range(1000):
            await link.clinic.publish(ack_topic(HUB), b"%d" % number)
            await asyncio.sleep(1.5 * IGNORED_REPORT_INTERVAL_S / 1000)

    uplink = testbed.run(scenario, has_clinic=False)
    assert uplink.statistics.ignored_messages == 1000
    assert caplog.text.count("ignored a message from the broker") == 2


def test_a_vital_without_a_receipt_is_sent_again_after_ten_minutes(testbed: UplinkTestbed, stored: list[BlockId]) -> None:
    async def scenario(link: Link, _uplink: Uplink) -> None:
        async def sleep(seconds: int) -> None:
            await asyncio.sleep(seconds)
            testbed.now_s[0] += seconds

        link.connect()
        await wait_until(testbed.is_drained)
        await sleep(500)
        assert len(testbed.clinic.envelopes) == 1
        await sleep(200)
        await asyncio.sleep(100)
        assert len(testbed.clinic.envelopes) == 2
        await link.clinic.publish(receipt_topic(HUB), testbed.clinic.encode_receipt())
        await sleep(2000)

    testbed.run(scenario)
    assert len(testbed.clinic.envelopes) == 2
    assert testbed.outbox.statistics().released == 3


def test_a_failing_outbox_does_not_end_the_search_for_blocks_without_a_receipt(
    testbed: UplinkTestbed, stored: list[BlockId], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def fail_once() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise TransientError("locked")
        return 0

    monkeypatch.setattr(testbed.outbox, "requeue_unopened", fail_once)
    seen: list[str | None] = []

    async def scenario(link: Link, uplink: Uplink) -> None:
        await asyncio.sleep(61)
        seen.append(uplink.statistics.problem)
        link.connect()
        await asyncio.sleep(120)
        seen.append(uplink.statistics.problem)

    testbed.run(scenario)
    assert seen == ["locked", None]
    assert len(calls) == 3


def test_dropped_ranges_are_sent_without_a_block_once_a_minute_until_a_mark_passes_them(
    testbed: UplinkTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = (Dropped("wave", testbed.outbox.epoch, 1, 4, bytes(32)),)
    view = Outbox.clinic_view
    monkeypatch.setattr(Outbox, "clinic_view", lambda outbox: replace(view(outbox), dropped=dropped))

    async def scenario(link: Link, _uplink: Uplink) -> None:
        link.connect()
        await asyncio.sleep(150)

    testbed.run(scenario)
    assert [(envelope.blocks, envelope.dropped) for envelope in testbed.clinic.envelopes] == [((), dropped)] * 3
    assert testbed.clinic.mark("wave", testbed.outbox.epoch).seq == 4


def test_a_message_of_the_largest_size_has_room_for_everything_else(
    testbed: UplinkTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = tuple(Dropped("archive", MAX_COUNT, MAX_COUNT - 1, MAX_COUNT, bytes(32)) for _ in range(20))
    marks = tuple(AcceptedMark("archive", MAX_COUNT, MAX_COUNT) for _ in range(MARKS_LIMIT))
    view = Outbox.clinic_view
    monkeypatch.setattr(Outbox, "clinic_view", lambda outbox: replace(view(outbox), dropped=dropped, marks=marks))
    testbed.outbox.put("vital", bytes(PLAINTEXT_LIMIT_BYTES))
    for _ in range(40):
        testbed.now_s[0] += 86_400
        testbed.outbox.put_many([("alert", bytes(5900))])
    testbed.drain()
    sizes = [len(message.payload) for message in testbed.link.sent if "/up/" in message.topic]
    assert PLAINTEXT_LIMIT_BYTES < max(sizes) <= MESSAGE_LIMIT_BYTES
    assert max(len(envelope.keys) for envelope in testbed.clinic.envelopes) > 3


def test_the_clinic_can_verify_the_heads_of_each_envelope(testbed: UplinkTestbed) -> None:
    testbed.outbox.put_many([("wave", b"w"), ("vital", b"v"), ("vital", b"u")])
    testbed.drain()
    last = testbed.clinic.envelopes[-1]
    assert last.epoch == testbed.outbox.epoch
    marks = {lane: testbed.clinic.mark(lane, last.epoch) for lane in ("vital", "wave")}
    assert {head.lane: (head.seq, head.chain) for head in last.heads if head.seq} == {
        lane: (mark.seq, mark.chain) for lane, mark in marks.items()
    }

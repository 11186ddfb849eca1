"""What an attacker sends ends at ingest: nothing is stored, displaced or acknowledged that the hub did not sign."""

import logging
from dataclasses import replace

import pytest

from cloud.check_message import NOT_ASSIGNED
from cloud.ingest import UNKNOWN_HUB
from cloud.store import rejections as store_rejections
from cloud.store.stored_blocks import StoreCounts
from sync.cbor import decode_cbor, encode_cbor
from sync.data_keys import DataKey, sign_statement
from sync.message_rows import Dropped
from sync.mqtt import Message
from sync.seal import seal_block
from sync.signing import SigningKey, Use
from sync.wire import EPOCH_RANDOM_BITS, MAX_COUNT, MESSAGE_LIMIT_BYTES, epoch_seconds, up_topic
from tests.cloud_ingest.ingest_testbed import EPOCH, HUB, NOW_US, START_S, Receiver, SendingHub
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
DAY_S = 86_400


def assert_not_answered(clinic: Receiver, sent: Message, reason: str) -> None:
    before = clinic.store.counts()
    assert clinic.handle(sent) == (None, 0)
    assert clinic.store.counts() == before._replace(rejected_messages=before.rejected_messages + 1)
    *_, (_, found, data) = clinic.store.list_rejected_messages()
    assert (reason in found, data) == (True, sent.payload[:MESSAGE_LIMIT_BYTES])


def assert_set_aside(clinic: Receiver, sent: Message, block: bytes, reason: str) -> None:
    ack = clinic.receive(sent)
    assert [outcome.reason for outcome in ack.aside] == [reason]
    assert (ack.held, clinic.store.count_blocks()) == ((), 0)
    assert [(row.bytes, row.reason) for row in clinic.store.list_quarantined()] == [(block, reason)]


def test_a_message_by_another_device_key_is_not_answered(clinic: Receiver, hub: SendingHub) -> None:
    """Whoever knows all public keys makes their own data key and wraps it right. The true block still arrives."""
    stranger = SendingHub()
    assert_not_answered(
        clinic, stranger.message(*stranger.seal(1, "alert")), "the signature is not by the registered device key"
    )
    ack = clinic.receive(hub.message(*hub.seal(1, "alert")))
    assert (ack.marks, ack.aside) == ((hub.mark("alert", 1),), ())


def test_a_message_of_a_hub_that_is_not_registered_is_not_answered(clinic: Receiver) -> None:
    stranger = SendingHub("hub-9")
    assert_not_answered(clinic, stranger.message(*stranger.seal()), "the hub is not registered")


def test_an_envelope_on_the_topic_of_another_hub_is_not_answered(clinic: Receiver, hub: SendingHub) -> None:
    SendingHub("hub-2").register(clinic.registry)
    sent = hub.message(*hub.seal())
    assert_not_answered(clinic, Message(up_topic("hub-2", "vital"), sent.payload), "another hub than its topic")


def test_a_message_that_was_changed_on_the_way_is_not_answered(clinic: Receiver, hub: SendingHub) -> None:
    """The broker swaps the headers of two blocks, or moves the ciphertext of one under the id of another."""
    sent = hub.message(*hub.seal(1, plaintext=b"one"), *hub.seal(1, plaintext=b"two"))
    fields = decode_cbor(sent.payload, limit_bytes=MESSAGE_LIMIT_BYTES)
    one, two = fields["blocks"]
    end = len(one) - len(b"one") - 16
    swapped = [two[:end] + one[end:], one[:end] + two[end:]]
    for blocks in (swapped, [one], [two, one]):
        changed = encode_cbor({**fields, "blocks": blocks})
        assert_not_answered(clinic, replace(sent, payload=changed), "the signature is not by")
    assert clinic.receive(sent).marks == (hub.mark("vital", 2),)


def test_a_field_that_this_version_must_understand_is_not_ignored(clinic: Receiver, hub: SendingHub) -> None:
    sent = hub.message(*hub.seal())
    fields = decode_cbor(sent.payload, limit_bytes=MESSAGE_LIMIT_BYTES)
    newer = encode_cbor({**fields, "later": 1, "crit": ["later"]})
    assert_not_answered(clinic, replace(sent, payload=newer), "needs a newer pulsegate")


@pytest.mark.parametrize(
    ("sent", "hub_name"),
    [
        (Message(up_topic(HUB, "vital"), b"not CBOR"), HUB),
        (Message(up_topic(HUB, "vital"), b""), HUB),
        (Message(up_topic(HUB, "vital"), bytes(70_000)), HUB),
        (Message("pulsegate/v1/hub-1/up/archive", b"x"), HUB),
        (Message("pulsegate/v1/ /up/vital", b"x"), UNKNOWN_HUB),
        (Message("elsewhere", b"x"), UNKNOWN_HUB),
    ],
)
def test_bytes_that_are_no_message_are_kept_aside(clinic: Receiver, sent: Message, hub_name: str) -> None:
    assert_not_answered(clinic, sent, "")
    assert [hub for hub, _, _ in clinic.store.list_rejected_messages()] == [hub_name]


def test_an_epoch_of_zero_is_rejected(clinic: Receiver, hub: SendingHub) -> None:
    """A block whose header says so has no valid id: it is kept without an answer."""
    (block,) = hub.seal()
    assert_not_answered(clinic, hub.message(block, epoch=0), "epoch is not [epoch, epoch or null]")
    prefix, length = block[:3], int.from_bytes(block[3:5], "big")
    fields = decode_cbor(block[5 : 5 + length], limit_bytes=1024)
    header = encode_cbor({**fields, "epoch": 0})
    ack = clinic.receive(hub.message(prefix + len(header).to_bytes(2, "big") + header + block[5 + length :]))
    assert (ack.held, ack.aside) == ((), ())
    assert [(row.reason, row.position) for row in clinic.store.list_quarantined()] == [
        ("block header: invalid epoch; docs/protocol.md gives the allowed values", None)
    ]


def test_epoch_and_number_at_their_limits_are_stored(clinic: Receiver, hub: SendingHub) -> None:
    """Only a hub's own device key can sign them. The clinic goes on, also beyond the months that have a partition."""
    hub.begin_epoch(MAX_COUNT)
    block = seal_block(hub.header("wave", MAX_COUNT), b"x", hub.key)
    ack = clinic.receive(hub.message(block))
    assert (ack.epoch, [tuple(row[:3]) for row in ack.held]) == (MAX_COUNT, [("wave", MAX_COUNT, MAX_COUNT)])
    assert ack.marks == (hub.mark("wave", 0),)
    whole = Dropped("wave", MAX_COUNT, 1, MAX_COUNT - 1, bytes(32))
    assert clinic.receive(hub.message(dropped=(whole,))).marks[0].seq == MAX_COUNT
    assert [row.block for row in clinic.store.blocks_after(None, 9)] == [block]


def test_a_block_of_another_subject_is_set_aside(clinic: Receiver, hub: SendingHub) -> None:
    """Also if its data key is signed for that subject."""
    other = replace(hub, subject="subject-2", key=DataKey.generate())
    (block,) = other.seal()
    assert_set_aside(clinic, other.message(block), block, NOT_ASSIGNED)


@pytest.mark.parametrize("seconds", [START_S - 1, START_S + DAY_S + 3601])
def test_a_block_outside_the_time_of_the_assignment_is_set_aside(clinic: Receiver, seconds: int) -> None:
    hub = SendingHub().register(clinic.registry, START_S, START_S + DAY_S)
    hub.epoch = seconds << EPOCH_RANDOM_BITS
    (block,) = hub.seal()
    assert_set_aside(clinic, hub.message(block), block, NOT_ASSIGNED)


def test_what_is_pending_of_an_earlier_subject_is_stored(clinic: Receiver, hub: SendingHub) -> None:
    (block,) = hub.seal()
    clinic.registry.of_hub[HUB].clear()
    hub.register(clinic.registry, 0, START_S + 1)
    next_ = replace(hub, subject="subject-2", key=DataKey.generate(), chains={}, previous=EPOCH)
    next_.epoch = EPOCH + (DAY_S << EPOCH_RANDOM_BITS)
    next_.register(clinic.registry, epoch_seconds(next_.epoch))
    sent = next_.message(block, *next_.seal(), keys=(hub.statement, next_.statement), wraps=(hub.wrapped, next_.wrapped))
    assert [mark.epoch for mark in clinic.receive(sent).marks] == [EPOCH, next_.epoch]


def test_a_data_key_that_a_stranger_signed_is_not_used(clinic: Receiver, hub: SendingHub) -> None:
    stranger = SigningKey.generate(Use.DEVICE)
    forged = sign_statement(hub.key, hub=HUB, subject=hub.subject, day=1, device=stranger)
    (block,) = hub.seal()
    sent = hub.message(block, keys=(forged,))
    assert_set_aside(clinic, sent, block, "the hub did not sign its data key")
    ack = clinic.receive(sent)
    assert (ack.keys, ack.wraps, clinic.store.key_statement(HUB, hub.key.id)) == ((), (), None)


def test_a_block_under_the_data_key_of_another_subject_is_set_aside(clinic: Receiver, hub: SendingHub) -> None:
    """The hub may seal for both; the key is signed for one of them. It arrives with the block, or came before."""
    hub.register(clinic.registry)
    replace(hub, subject="subject-2").register(clinic.registry)
    block = seal_block(replace(hub.header("vital", 1), subject="subject-2"), b"x", hub.key)
    reason = "its data key is of another subject"
    assert_set_aside(clinic, hub.message(block), block, reason)
    assert clinic.receive(hub.message(block, keys=(), wraps=())).aside[0].reason == reason


def test_a_block_of_another_hub_is_set_aside(clinic: Receiver, hub: SendingHub) -> None:
    other = SendingHub("hub-2").register(clinic.registry)
    (block,) = other.seal()
    assert_set_aside(clinic, hub.message(block), block, "the block is of another hub")
    assert clinic.receive(other.message(block)).marks == (other.mark("vital", 1),)


def test_an_erased_subject_is_refused_also_after_the_erasure_of_all_it_had(clinic: Receiver, hub: SendingHub) -> None:
    sent = hub.message(*hub.seal(2), seal_block(replace(hub.header("wave", 1), subject="subject-2"), b"x", hub.key))
    clinic.receive(sent)
    clinic.receive(hub.message(seal_block(hub.header("vital", 1), b"conflict", hub.key)))
    assert clinic.store.counts() == StoreCounts(stored=2, quarantined=2, conflicts=1)
    clinic.store.erase(hub.subject, NOW_US)
    assert clinic.store.counts() == StoreCounts(stored=0, quarantined=1)
    assert (clinic.store.key_statement(HUB, hub.key.id), clinic.store.wrapped_keys(HUB, hub.key.id)) == (None, [])
    assert clinic.store.erased_subjects() == {hub.subject}
    ack, n_work = clinic.handle(sent)
    assert ack is not None
    assert [(*outcome[:3], outcome.reason) for outcome in ack.refused] == [("vital", EPOCH, seq, "erased") for seq in (1, 2)]
    assert (ack.held, ack.keys, ack.wraps, n_work, clinic.store.count_blocks()) == ((), (), (), 0, 0)
    assert clinic.store.wrapped_keys(HUB, hub.key.id) == []


def test_a_replayed_message_changes_nothing(clinic: Receiver, hub: SendingHub) -> None:
    old = hub.message(*hub.seal(1, "wave"))
    clinic.receive(old)
    latest = clinic.receive(hub.message(*hub.seal(2, "wave")))
    replayed, n_work = clinic.handle(old)
    assert replayed is not None
    assert (replayed.marks, n_work, replayed.commits) == (latest.marks, 0, latest.commits)
    assert not replayed.copied


class TestKeptAside:
    def test_only_the_newest_messages_are_kept_and_all_are_counted(
        self, clinic: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_rejections, "MAX_MESSAGES", 5)
        monkeypatch.setattr(store_rejections, "MAX_BYTES", 100)
        for n in range(8):
            clinic.handle(Message("elsewhere", bytes([n])))
        kept = [data for _, _, data in clinic.store.list_rejected_messages()]
        assert kept == [bytes([n]) for n in range(3, 8)]
        clinic.handle(Message("elsewhere", bytes(98)))
        assert [len(data) for _, _, data in clinic.store.list_rejected_messages()] == [1, 1, 98]
        assert clinic.store.counts() == StoreCounts(rejected_messages=9)

    def test_one_is_logged_a_minute(self, clinic: Receiver, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        for at_s in (0, 1, 59, 60, 61):
            clinic.now_us = NOW_US + at_s * 1_000_000
            clinic.handle(Message(up_topic(HUB, "vital"), b"CANARY-4711"))
        lines = [record.getMessage() for record in caplog.records]
        assert [line.rsplit("; ", 1)[1] for line in lines] == ["1 such messages so far", "4 such messages so far"]
        assert "CANARY" not in caplog.text

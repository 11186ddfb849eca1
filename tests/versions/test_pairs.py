"""Hub N and N-1 with clinic N and N-1: revision 1 is the present release, revision 0 the one before.

`vectors/revision_0.json` has what that release sent: three messages of a hub, and the acknowledgements and the receipt of its
clinic; `outbox_revision_0.db` is the hub's buffer before it got any of these. `revision_0_reader.py` reads messages as that
release did.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloud.ingest import handle_message
from cloud.outdated import GRACE_S
from cloud.registry import Assignment
from cloud.store import Store
from cloud.store.hub_states import note_outdated
from sync.in_flight import SentBlocks
from sync.incoming import Received, receive_ack, receive_receipt
from sync.keys import HubKey, HubKeys
from sync.messages import Ack, decode_ack, encode_ack
from sync.mqtt import Message
from sync.outbox import NEWEST, Outbox
from sync.outgoing import Section, Sender, prepare_message
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.seal import parse_header
from sync.signing import SigningKey, Use, VerifyingKey
from sync.wire import UPLINK_LANES, BlockId, up_topic
from tests.cloud_ingest.ingest_testbed import FakeRegistry
from tests.databases import ON_BOTH, Databases
from tests.second_reader.cbor import RefusedError
from tests.versions import revision_0_reader as old_reader

DATABASES = ON_BOTH
VECTORS = Path(__file__).parent / "vectors"
V: dict[str, Any] = json.loads((VECTORS / "revision_0.json").read_text())
HUB, SUBJECT, START_S = "hub-1", "subject-1", V["start_s"]
DEVICE = SigningKey.from_bytes(Use.DEVICE, bytes.fromhex(V["device_private"]))
DEVICE_BYTES = DEVICE.public.to_bytes()
OLD_MESSAGES = [Message(topic, bytes.fromhex(payload)) for topic, payload in V["messages"]]
OLD_ACKS = [bytes.fromhex(payload) for payload in V["acknowledgements"]]
OLD_ACK_KEY, OLD_RECEIPT_KEY = bytes.fromhex(V["acknowledgement_public"]), bytes.fromhex(V["receipt_public"])
NEW_ACK_KEY = SigningKey.generate(Use.ACKNOWLEDGEMENT)
N_BLOCKS = {"alert": 2, "vital": 3, "wave": 4}


class NewClinic:
    """A clinic of the present release that knows the old release's hub."""

    def __init__(self, store: Store) -> None:
        self.store, self.now_us = store, START_S * 1_000_000
        self.registry = FakeRegistry({HUB: DEVICE.public})
        self.registry.of_hub[HUB].append(Assignment(SUBJECT, 0))

    def answer(self, message: Message, retry_after_s: int = 0) -> bytes:
        payload, _, _ = handle_message(self.store, self.registry, NEW_ACK_KEY, message, self.now_us, retry_after_s)
        assert payload is not None
        return payload


@pytest.fixture
def clinic(databases: Databases) -> Iterator[NewClinic]:
    with closing(Store.open(databases.location("blocks"))) as store:
        yield NewClinic(store)


def registration(acknowledgement: VerifyingKey) -> Registration:
    receipt = VerifyingKey.from_bytes(Use.RECEIPT, OLD_RECEIPT_KEY)
    recipient = RecipientKeyPair.from_bytes(bytes.fromhex(V["recipient_private"]))
    return Registration(HUB, "main", acknowledgement, receipt, 24, START_S - 1, {SUBJECT: recipient.public})


@pytest.fixture
def open_outbox(tmp_path: Path) -> Iterator[Callable[[VerifyingKey], tuple[Outbox, Registration]]]:
    """Open the old release's buffer with the present one, registered at a clinic with this acknowledgement key."""
    opened: list[Outbox] = []

    def open_(acknowledgement: VerifyingKey) -> tuple[Outbox, Registration]:
        shutil.copyfile(VECTORS / "outbox_revision_0.db", tmp_path / "outbox.db")
        keys, registered = HubKeys(HubKey(bytes.fromhex(V["hub_key"])), DEVICE), registration(acknowledgement)
        outbox = Outbox.open(
            tmp_path / "outbox.db", hub=HUB, subject=SUBJECT, keys=keys, registration=registered, clock=lambda: START_S
        )
        opened.append(outbox)
        return outbox, registered

    yield open_
    for outbox in opened:
        outbox.close()


def new_messages(outbox: Outbox) -> tuple[list[Message], SentBlocks]:
    """What the present release's hub sends of this buffer, and the blocks in it."""
    messages, sent = list[Message](), set[BlockId]()
    for lane in UPLINK_LANES:
        section = Section(lane, False, (0, 0), NEWEST, 48 * 1024, must_fit=False)
        prepared = prepare_message(outbox, Sender(HUB, DEVICE), [section], SentBlocks(frozenset(sent), frozenset()))
        assert prepared is not None
        sent |= set(prepared.ids)
        messages.append(Message(up_topic(HUB, lane), prepared.payload))
    return messages, SentBlocks(frozenset(sent), frozenset())


def held_by_old_reader(payload: bytes, signer: bytes) -> dict[str, int]:
    """How many blocks of each lane an acknowledgement confirms to the old release."""
    message = old_reader.open_acknowledgement(payload, signer)
    return {lane: len(digests) // 32 for lane, _, _, digests in message["held"]}


def test_the_old_hub_with_the_old_clinic() -> None:
    lanes = []
    for message, answer in zip(OLD_MESSAGES, OLD_ACKS, strict=True):
        blocks = old_reader.open_envelope(message.payload, DEVICE_BYTES)["blocks"]
        lane = parse_header(blocks[0]).lane
        lanes.append(lane)
        assert held_by_old_reader(answer, OLD_ACK_KEY) == {lane: len(blocks)} == {lane: N_BLOCKS[lane]}
    assert lanes == ["alert", "vital", "wave"]
    assert old_reader.open_receipt(bytes.fromhex(V["receipt"]), OLD_RECEIPT_KEY)["opened"]


def test_the_old_hub_with_the_new_clinic(clinic: NewClinic) -> None:
    for message, (lane, n) in zip(OLD_MESSAGES, N_BLOCKS.items(), strict=True):
        assert held_by_old_reader(clinic.answer(message), NEW_ACK_KEY.public.to_bytes()) == {lane: n}
    assert clinic.store.count_blocks() == 9


def test_the_old_hub_understands_what_the_new_clinic_adds(clinic: NewClinic) -> None:
    answer = clinic.answer(OLD_MESSAGES[0])
    with clinic.store.transaction() as connection:
        note_outdated(connection, HUB, clinic.now_us)
    for retry_after_s in (0, 300):
        answer = clinic.answer(OLD_MESSAGES[1], retry_after_s)
        assert held_by_old_reader(answer, NEW_ACK_KEY.public.to_bytes()) == {"vital": 3}
        assert decode_ack(answer, NEW_ACK_KEY.public).update_by_s == START_S + GRACE_S


def test_after_the_grace_period_the_old_hub_keeps_everything_and_its_alerts_are_taken(clinic: NewClinic) -> None:
    clinic.answer(OLD_MESSAGES[1])
    with clinic.store.transaction() as connection:
        note_outdated(connection, HUB, clinic.now_us)
    clinic.now_us += GRACE_S * 1_000_000
    answers = [clinic.answer(message) for message in OLD_MESSAGES]
    assert [held_by_old_reader(answer, NEW_ACK_KEY.public.to_bytes()) for answer in answers] == [{"alert": 2}, {}, {}]
    read = [old_reader.open_acknowledgement(answer, NEW_ACK_KEY.public.to_bytes()) for answer in answers]
    assert [(message["refused"], message["aside"]) for message in read] == [([], [])] * 3  # it deletes what is refused


def test_the_new_hub_with_the_old_clinic(
    open_outbox: Callable[[VerifyingKey], tuple[Outbox, Registration]], tmp_path: Path
) -> None:
    outbox, registered = open_outbox(VerifyingKey.from_bytes(Use.ACKNOWLEDGEMENT, OLD_ACK_KEY))
    messages, sent = new_messages(outbox)
    for message, lane in zip(messages, N_BLOCKS, strict=True):
        read = old_reader.open_envelope(message.payload, DEVICE_BYTES)
        assert len(read["blocks"]) == N_BLOCKS[lane]
    received = [receive_ack(outbox, registered, payload, sent) for payload in OLD_ACKS]
    assert [len(each.applied.settled) for each in received] == [2, 3, 4]
    assert [(each.pause_s, each.update_by_s, each.outdated) for each in received] == [(0, None, ())] * 3
    receipt = receive_receipt(outbox, registered, bytes.fromhex(V["receipt"]), sent)
    assert receipt.applied.released == 5
    assert not any(outbox.statistics().pending.values())
    assert outbox.statistics().unopened == 0


def test_the_new_hub_with_the_new_clinic(
    open_outbox: Callable[[VerifyingKey], tuple[Outbox, Registration]], clinic: NewClinic
) -> None:
    outbox, registered = open_outbox(NEW_ACK_KEY.public)
    messages, sent = new_messages(outbox)
    received: list[Received] = [
        receive_ack(outbox, registered, clinic.answer(message, retry_after_s=7), sent) for message in messages
    ]
    assert [len(each.applied.settled) for each in received] == [2, 3, 4]
    assert [each.pause_s for each in received] == [7, 7, 7]
    assert not any(outbox.statistics().pending.values())


def test_the_old_release_ignores_fields_and_refuses_critical_ones() -> None:
    """What the next revision must keep to: it may add fields, and must not name one in `crit`."""
    key = NEW_ACK_KEY
    added = encode_ack(Ack(HUB, "main", bytes(16), 1, 1, retry_after_s=9, update_by_s=1), key)
    assert old_reader.open_acknowledgement(added, key.public.to_bytes())["retry_after_s"] == 9
    with pytest.raises(RefusedError):
        old_reader.check_fields({"crit": ["retry_after_s"], "retry_after_s": 9}, {}, {})

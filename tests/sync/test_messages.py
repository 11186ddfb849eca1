"""Messages: round trips, the fields of the protocol, signatures, and bytes from the network."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.audit_heads import SignedHead, SiteAudit
from sync.consent import ConsentAnswer
from sync.data_keys import KeyStatement, WrappedKey
from sync.errors import PermanentError
from sync.message_rows import REASON_LIMIT_CHARS, AcceptedMark, Dropped, Head, Held, Mark, Outcome, SeenStore
from sync.messages import (
    Ack,
    Envelope,
    Receipt,
    decode_ack,
    decode_envelope,
    decode_receipt,
    encode_ack,
    encode_envelope,
    encode_receipt,
)
from sync.signing import Label, SignatureError, SigningKey, Use, VerifyingKey
from sync.wire import MAX_COUNT, MESSAGE_LIMIT_BYTES, WireError, hub_of_topic, is_name, up_topic

VECTOR = json.loads((Path(__file__).parent / "vectors" / "format_2.json").read_text())
DEVICE, ACKNOWLEDGEMENT, RECEIPT = (SigningKey.generate(use) for use in (Use.DEVICE, Use.ACKNOWLEDGEMENT, Use.RECEIPT))

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
lanes = st.sampled_from(["alert", "vital", "wave", "archive"])
counts = st.integers(0, MAX_COUNT)
epochs = st.integers(1, MAX_COUNT)
digests = st.binary(min_size=32, max_size=32)
ids = st.binary(min_size=16, max_size=16)
fingerprints = st.binary(min_size=8, max_size=8)


def some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=3).map(tuple)


heads = st.builds(
    lambda lane, seqs, chain: Head(lane, max(seqs), chain, min(seqs)),
    st.sampled_from(["alert", "vital", "wave"]),
    st.tuples(counts, counts),
    digests,
)
dropped = st.builds(
    lambda lane, epoch, ends, chain: Dropped(lane, epoch, min(ends), max(ends), chain),
    lanes,
    epochs,
    st.tuples(epochs, epochs),
    digests,
)
held = st.builds(Held, lanes, epochs, st.integers(1, 2**40), st.lists(digests, min_size=1, max_size=3).map(tuple))
outcomes = st.builds(Outcome, lanes, epochs, epochs, digests, st.text(max_size=REASON_LIMIT_CHARS))
envelopes = st.builds(
    Envelope,
    hub=names,
    epoch=epochs,
    previous_epoch=st.none() | epochs,
    heads=some(heads),
    seen=st.none() | st.builds(SeenStore, ids, counts, counts),
    blocks=some(st.binary(max_size=200)),
    keys=some(st.builds(KeyStatement, ids, digests, names, counts, st.binary(min_size=64, max_size=64))),
    wraps=some(st.builds(WrappedKey, ids, fingerprints, st.binary(max_size=50))),
    dropped=some(dropped),
    marks=some(st.builds(AcceptedMark, lanes, epochs, counts)),
)
audit_heads = st.builds(SignedHead, counts, digests, st.binary(min_size=64, max_size=64))
acks = st.builds(
    Ack,
    hub=names,
    site=names,
    store=ids,
    fence=counts,
    commits=counts,
    epoch=st.none() | epochs,
    marks=some(st.builds(Mark, lanes, epochs, counts, digests)),
    held=some(held),
    keys=some(ids),
    wraps=some(st.tuples(ids, fingerprints)),
    aside=some(outcomes),
    refused=some(outcomes),
    live_s=st.integers(0, 600),
    copied=st.booleans(),
    audit=st.none() | st.builds(SiteAudit, audit_heads, st.none() | audit_heads),
    consent=st.none()
    | st.builds(
        ConsentAnswer,
        st.binary(min_size=8, max_size=8),
        epochs,
        st.lists(names, max_size=16).map(tuple),
        st.none() | epochs,
    ),
)
receipts = st.builds(
    Receipt, hub=names, store=ids, fence=counts, opened=some(held), aside=some(outcomes), refused=some(outcomes)
)
ACK = Ack("hub-1", "main", bytes(16), 1, 1)
RECEIPT_MESSAGE = Receipt("hub-1", bytes(16), 1)
ENVELOPE = Envelope("hub-1", 9, None, (), None, ())


def resigned(payload: bytes, changed: dict[str, Any], label: Label, key: SigningKey, without: str = "") -> bytes:
    """The message with other fields, signed correctly as an acknowledgement or receipt."""
    message = {name: value for name, value in (cbor2.loads(payload) | changed).items() if name not in {"sig", without}}
    content = hashlib.sha256(cbor2.dumps(message, canonical=True)).digest()
    return cbor2.dumps(message | {"sig": key.sign(label, message.get("hub", "hub-1"), content)}, canonical=True)


def resigned_ack(changed: dict[str, Any], without: str = "") -> bytes:
    return resigned(encode_ack(ACK, ACKNOWLEDGEMENT), changed, Label.ACKNOWLEDGEMENT, ACKNOWLEDGEMENT, without)


@given(envelopes)
def test_envelope_round_trip(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope, DEVICE)).verify(DEVICE.public) == envelope


@given(acks)
def test_ack_round_trip(ack: Ack) -> None:
    assert decode_ack(encode_ack(ack, ACKNOWLEDGEMENT), ACKNOWLEDGEMENT.public) == ack


@pytest.mark.parametrize(
    "consent",
    [
        None,
        [bytes(8), 1, ["care"]],
        [bytes(7), 1, ["care"], None],
        [bytes(8), 0, ["care"], None],
        [bytes(8), 1, "care", None],
        [bytes(8), 1, ["not a name"], None],
        [bytes(8), 1, ["care"] * 17, None],
        [bytes(8), 1, ["care"], 0],
    ],
    ids=repr,
)
def test_a_malformed_consent_is_refused(consent: object) -> None:
    with pytest.raises(WireError, match="consent"):
        decode_ack(resigned_ack({"consent": consent}), ACKNOWLEDGEMENT.public)


@given(receipts)
def test_receipt_round_trip(receipt: Receipt) -> None:
    assert decode_receipt(encode_receipt(receipt, RECEIPT), RECEIPT.public) == receipt


def test_the_frozen_messages_have_the_fields_of_the_protocol() -> None:
    """Fields, and what is signed, are checked here without our encoder."""
    keys = {
        "envelope": VerifyingKey.from_bytes(Use.DEVICE, bytes.fromhex(VECTOR["device_public"])),
        "acknowledgement": VerifyingKey.from_bytes(Use.ACKNOWLEDGEMENT, bytes.fromhex(VECTOR["acknowledgement_public"])),
        "receipt": VerifyingKey.from_bytes(Use.RECEIPT, bytes.fromhex(VECTOR["receipt_public"])),
    }
    names_of = {
        "envelope": "v hub epoch heads seen blocks keys wraps dropped sig",
        "acknowledgement": "v hub site store fence commits epoch marks held keys wraps aside refused live_s copied sig",
        "receipt": "v hub store fence opened aside refused sig",
    }
    for name, key in keys.items():
        message = cbor2.loads(bytes.fromhex(VECTOR[name]))
        assert set(message) == set(names_of[name].split())
        signature = message.pop("sig")
        content = hashlib.sha256(cbor2.dumps(message, canonical=True)).digest()
        values = [message["epoch"][0], message["heads"], content] if name == "envelope" else [content]
        key.verify(signature, Label(f"pulsegate {name}"), "hub-1", *values)
    assert cbor2.loads(bytes.fromhex(VECTOR["envelope"]))["heads"][2] == [
        "wave",
        2,
        bytes.fromhex(VECTOR["blocks"][1]["chain"]),
        1,
    ]


def test_decodes_the_frozen_messages() -> None:
    envelope = decode_envelope(bytes.fromhex(VECTOR["envelope"])).envelope
    ack = decode_ack(
        bytes.fromhex(VECTOR["acknowledgement"]),
        VerifyingKey.from_bytes(Use.ACKNOWLEDGEMENT, bytes.fromhex(VECTOR["acknowledgement_public"])),
    )
    receipt = decode_receipt(
        bytes.fromhex(VECTOR["receipt"]), VerifyingKey.from_bytes(Use.RECEIPT, bytes.fromhex(VECTOR["receipt_public"]))
    )

    assert [block.hex() for block in envelope.blocks] == [vector["block"] for vector in VECTOR["blocks"]]
    assert envelope.seen == SeenStore(bytes(16), 3, 1000)
    assert [digest.hex() for digest in ack.held[0].digests] == [vector["digest"] for vector in VECTOR["blocks"]]
    assert (ack.live_s, ack.copied, ack.aside[0].reason, ack.refused[0].reason) == (600, True, "conflict", "erased")
    assert receipt.aside[0].digest.hex() == VECTOR["blocks"][1]["digest"]


DECODERS: dict[str, Callable[[bytes], object]] = {
    "envelope": lambda data: decode_envelope(data).verify(DEVICE.public),
    "acknowledgement": lambda data: decode_ack(data, ACKNOWLEDGEMENT.public),
    "receipt": lambda data: decode_receipt(data, RECEIPT.public),
}
PAYLOADS = {
    "envelope": encode_envelope(ENVELOPE, DEVICE),
    "acknowledgement": encode_ack(ACK, ACKNOWLEDGEMENT),
    "receipt": encode_receipt(RECEIPT_MESSAGE, RECEIPT),
}


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=300))
def test_random_bytes_raise_only_declared_errors(name: str, data: bytes) -> None:
    with pytest.raises(PermanentError):
        DECODERS[name](data)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_no_changed_bit_goes_unnoticed(name: str, data: st.DataObject) -> None:
    payload = bytearray(PAYLOADS[name])
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PermanentError):
        DECODERS[name](bytes(payload))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("use", Use)
def test_only_the_key_of_this_use_signs(name: str, use: Use) -> None:
    label = Label(f"pulsegate {name}")
    strangers = {use: SigningKey.generate(use)}
    if (label, use) in {
        (Label.ENVELOPE, Use.DEVICE),
        (Label.ACKNOWLEDGEMENT, Use.ACKNOWLEDGEMENT),
        (Label.RECEIPT, Use.RECEIPT),
    }:
        message = cbor2.loads(PAYLOADS[name])
        content = hashlib.sha256(cbor2.dumps({k: v for k, v in message.items() if k != "sig"}, canonical=True)).digest()
        values = (9, [], content) if name == "envelope" else (content,)
        message["sig"] = strangers[use].sign(label, "hub-1", *values)
        with pytest.raises(SignatureError):
            DECODERS[name](cbor2.dumps(message, canonical=True))
    else:
        with pytest.raises(ValueError, match="does not sign"):
            strangers[use].sign(label, "hub-1")


def test_a_field_of_a_later_version_is_ignored_and_signed() -> None:
    payload = resigned_ack({"colour": 7})
    assert decode_ack(payload, ACKNOWLEDGEMENT.public) == ACK
    message = cbor2.loads(payload)
    with pytest.raises(SignatureError):
        decode_ack(cbor2.dumps(message | {"colour": 8}, canonical=True), ACKNOWLEDGEMENT.public)


def test_a_field_that_must_not_be_ignored_is_refused() -> None:
    with pytest.raises(WireError, match="needs a newer pulsegate"):
        decode_ack(resigned_ack({"colour": 7, "crit": ["colour"]}), ACKNOWLEDGEMENT.public)


@pytest.mark.parametrize("name", [name for name in cbor2.loads(PAYLOADS["acknowledgement"]) if name not in {"hub", "sig"}])
def test_no_field_may_be_missing(name: str) -> None:
    with pytest.raises(WireError, match=name):
        decode_ack(resigned_ack({}, without=name), ACKNOWLEDGEMENT.public)


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 1},
        {"v": 2.0},
        {"hub": "a/b"},
        {"site": ""},
        {"store": bytes(15)},
        {"fence": 2**53},
        {"fence": -1},
        {"commits": True},
        {"epoch": 0},
        {"epoch": 2**53},
        {"live_s": 601},
        {"copied": 1},
        {"marks": [["wave", 9, 1]]},
        {"marks": [["wave", 9, 1, bytes(31)]]},
        {"marks": {}},
        {"held": [["wave", 9, 1, b""]]},
        {"held": [["wave", 9, 0, bytes(32)]]},
        {"held": [["wave", 9, 1, bytes(33)]]},
        {"held": [["wave", 9, 2**53 - 1, bytes(64)]]},
        {"keys": [bytes(15)]},
        {"wraps": [[bytes(16), bytes(7)]]},
        {"aside": [["wave", 9, 1, bytes(32), "x" * 201]]},
        {"refused": [["other", 9, 1, bytes(32), "x"]]},
    ],
)
def test_a_field_beyond_its_limits_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode_ack(resigned_ack(changed), ACKNOWLEDGEMENT.public)


@pytest.mark.parametrize(
    "envelope",
    [
        replace(ENVELOPE, epoch=0),
        replace(ENVELOPE, previous_epoch=2**53),
        replace(ENVELOPE, heads=(Head("archive", 1, bytes(32), 0),)),
        replace(ENVELOPE, heads=(Head("wave", 1, bytes(32), 2),)),
        replace(ENVELOPE, seen=SeenStore(bytes(15), 1, 1)),
        replace(ENVELOPE, dropped=(Dropped("wave", 9, 2, 1, bytes(32)),)),
        replace(ENVELOPE, keys=(KeyStatement(bytes(16), bytes(32), "a/b", 1, bytes(64)),)),
        replace(ENVELOPE, wraps=(WrappedKey(bytes(16), bytes(9), b""),)),
    ],
)
def test_a_malformed_envelope_is_refused(envelope: Envelope) -> None:
    with pytest.raises(WireError):
        decode_envelope(encode_envelope(envelope, DEVICE))


def test_a_message_over_the_limit_is_neither_sent_nor_read() -> None:
    with pytest.raises(WireError, match="put fewer blocks"):
        encode_envelope(replace(ENVELOPE, blocks=(bytes(MESSAGE_LIMIT_BYTES),)), DEVICE)
    with pytest.raises(WireError, match="limit"):
        decode_envelope(cbor2.dumps({"blocks": bytes(MESSAGE_LIMIT_BYTES)}, canonical=True))


def test_only_the_deterministic_encoding_is_read() -> None:
    message = cbor2.loads(PAYLOADS["acknowledgement"])
    with pytest.raises(WireError, match="deterministic"):
        decode_ack(cbor2.dumps(dict(reversed(message.items()))), ACKNOWLEDGEMENT.public)


def test_topics() -> None:
    assert hub_of_topic(up_topic("hub-1", "vital")) == "hub-1"
    for topic in ("pulsegate/v1/a/b/up/wave", "pulsegate/v1/hub-1/up/archive", "pulsegate/v2/hub-1/up/wave", ""):
        with pytest.raises(WireError):
            hub_of_topic(topic)


@pytest.mark.parametrize(
    ("name", "valid"), [("a", True), ("a" * 64, True), ("a" * 65, False), ("-a", False), ("a\n", False), (7, False)]
)
def test_names(name: object, valid: bool) -> None:
    assert is_name(name) is valid

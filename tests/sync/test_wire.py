"""Messages: round trips, and bytes from the network, which may raise only WireError."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.wire import (
    MESSAGE_LIMIT_BYTES,
    Ack,
    Envelope,
    Mark,
    Range,
    Rejected,
    WireError,
    WrappedKey,
    decode_ack,
    decode_envelope,
    encode_ack,
    encode_envelope,
    is_name,
    parse_up_topic,
    up_topic,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
lanes = st.sampled_from(["alert", "vital", "wave", "archive"])
counts = st.integers(0, 2**63 - 1)
key_ids = st.binary(min_size=16, max_size=16)
envelopes = st.builds(
    Envelope,
    hub=names,
    blocks=st.lists(st.binary(max_size=200), max_size=5).map(tuple),
    keys=st.lists(st.builds(WrappedKey, key_ids, st.binary(max_size=50)), max_size=3).map(tuple),
)
ranges = st.tuples(lanes, counts, st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1)).map(
    lambda row: Range(row[0], row[1], min(row[2:]), max(row[2:]))  # type: ignore[arg-type]
)
acks = st.builds(
    Ack,
    hub=names,
    site=names,
    fence=counts,
    marks=st.lists(st.builds(Mark, lanes, counts, counts), max_size=3).map(tuple),
    ranges=st.lists(ranges, max_size=3).map(tuple),
    keys=st.lists(key_ids, max_size=3).map(tuple),
    rejected=st.lists(st.builds(Rejected, lanes, counts, counts, st.text(max_size=20)), max_size=3).map(tuple),
)


@given(envelopes)
def test_envelope_round_trip(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope)) == envelope


@given(acks)
def test_ack_round_trip(ack: Ack) -> None:
    assert decode_ack(encode_ack(ack)) == ack


def test_envelope_has_the_fields_of_the_protocol() -> None:
    payload = encode_envelope(Envelope("hub-1", (b"block",), (WrappedKey(bytes(16), b"wrapped"),)))
    assert cbor2.loads(payload) == {"v": 1, "hub": "hub-1", "blocks": [b"block"], "keys": [[bytes(16), b"wrapped"]]}


def test_ack_has_the_fields_of_the_protocol() -> None:
    ack = Ack(
        "hub-1", "main", 3, (Mark("vital", 9, 4),), (Range("vital", 9, 6, 7),), (bytes(16),), (Rejected("wave", 9, 1, "x"),)
    )
    assert cbor2.loads(encode_ack(ack)) == {
        "v": 1,
        "hub": "hub-1",
        "site": "main",
        "fence": 3,
        "marks": [["vital", 9, 4]],
        "ranges": [["vital", 9, 6, 7]],
        "keys": [bytes(16)],
        "rejected": [["wave", 9, 1, "x"]],
    }


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_wire_error(data: bytes) -> None:
    for decode in (decode_envelope, decode_ack):
        with pytest.raises(WireError):
            decode(data)


@given(st.one_of(envelopes.map(encode_envelope), acks.map(encode_ack)), st.data())
def test_changed_messages_raise_only_wire_error(payload: bytes, data: st.DataObject) -> None:
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for decode, encode in ((decode_envelope, encode_envelope), (decode_ack, encode_ack)):
        try:
            message = decode(bytes(changed))
        except WireError:
            continue
        assert encode(message) == bytes(changed)  # type: ignore[arg-type]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=20) | lanes,
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


@given(values, st.sampled_from(["v", "hub", "blocks", "keys", "site", "fence", "marks", "ranges", "rejected", "more"]))
def test_fields_of_the_wrong_type_raise_only_wire_error(value: object, field: str) -> None:
    envelope = cbor2.loads(encode_envelope(Envelope("h", (b"1",))))
    ack = cbor2.loads(encode_ack(Ack("h", "s", 1)))
    for decode, encode, message in ((decode_envelope, encode_envelope, envelope), (decode_ack, encode_ack, ack)):
        payload = cbor2.dumps(message | {field: value}, canonical=True)
        try:
            decoded = decode(payload)
        except WireError:
            continue
        assert encode(decoded) == payload  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [
        encode_envelope(Envelope("h", ())) + b"\x00",
        b"\xbf" + encode_envelope(Envelope("h", ()))[1:] + b"\xff",  # the same map with indefinite length
        cbor2.dumps([1]),
        cbor2.dumps({1: 2}),
        b"\x81" * 70_000,
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that contains itself
        b"\xd8\x24\x61a",  # tag 36, MIME
    ],
)
def test_rejects_cbor_that_is_not_a_deterministic_envelope(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode_envelope(payload)


def test_error_for_another_protocol_version_says_to_update() -> None:
    with pytest.raises(WireError, match="update"):
        decode_envelope(cbor2.dumps({"v": 2, "hub": "h", "blocks": [], "keys": []}, canonical=True))


def test_rejects_an_oversized_message() -> None:
    with pytest.raises(WireError, match="fewer blocks"):
        encode_envelope(Envelope("h", (bytes(MESSAGE_LIMIT_BYTES),)))


@given(names, st.sampled_from(["alert", "vital", "wave"]))
def test_topic_round_trip(hub: str, lane: str) -> None:
    assert parse_up_topic(up_topic(hub, lane)) == (hub, lane)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "pulsegate/v1/h/up/archive",
        "pulsegate/v1/h/up/wave/x",
        "pulsegate/v1/+/up/wave",
        "pulsegate/v2/h/up/wave",
        "pulsegate/v1/h/up/wave\n",
    ],
)
def test_rejects_topics_that_do_not_carry_blocks(topic: str) -> None:
    with pytest.raises(WireError):
        parse_up_topic(topic)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "ä", "a" * 65, "a\n", None, 1])
def test_rejects_an_invalid_name(name: object) -> None:
    assert not is_name(name)

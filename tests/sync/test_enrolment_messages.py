"""The messages of enrolment, renewal and time: read back, refused when anything differs, and bounded."""

import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import enrolment
from sync.cbor import decode_cbor, encode_cbor
from sync.enrolment import Broker, EnrolRequest, Grant, RenewRequest, SignedTime
from sync.recipients import RecipientKeyPair
from sync.signing import SignatureError, SigningKey, Use
from sync.wire import WireError
from tests.second_reader import cbor as second_cbor
from tests.second_reader.keys import verify_signature

SECRET, NONCE = bytes(range(16)), bytes(range(40))
DEVICE, TLS, TIME = (SigningKey.generate(use) for use in (Use.DEVICE, Use.TLS, Use.TIME))
OTHER_DEVICE, OTHER_TLS = SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.TLS)
COMMAND = RecipientKeyPair.generate().public
ENROL = EnrolRequest.make(SECRET, DEVICE, TLS, COMMAND)
RENEW = RenewRequest.make("hub-1", NONCE, DEVICE, TLS)
GRANT = Grant("hub-1", "subject-1", (b"leaf", b"issuing"), (b"root",), (Broker("mqtt.example", 8883, "DE"),), "version = 2\n")
SIGNED_TIME = SignedTime.make(bytes(16), 1_790_000_000, TIME, (b"leaf",))
DECODERS = (
    (EnrolRequest.decode, ENROL.encode()),
    (RenewRequest.decode, RENEW.encode()),
    (Grant.decode, GRANT.encode()),
    (SignedTime.decode, SIGNED_TIME.encode()),
    (enrolment.decode_time_request, enrolment.encode_time_request(bytes(16))),
    (enrolment.decode_nonce_request, enrolment.encode_nonce_request("hub-1")),
    (enrolment.decode_nonce, enrolment.encode_nonce(NONCE)),
    (enrolment.decode_roots, enrolment.encode_roots([b"root"])),
    (enrolment.decode_refusal, enrolment.encode_refusal("used")),
)
NAMES = ("enrol", "renew", "grant", "signed time", "time", "nonce request", "nonce", "roots", "refusal")


def test_messages_are_read_back() -> None:
    enrol, renew, signed = EnrolRequest.decode(ENROL.encode()), RenewRequest.decode(RENEW.encode()), SIGNED_TIME.encode()
    enrol.verify()
    renew.verify(DEVICE.public)
    SignedTime.decode(signed).verify(bytes(16), TIME.public)

    assert (enrol.secret, enrol.device.to_bytes(), enrol.tls.to_bytes()) == (
        SECRET,
        DEVICE.public.to_bytes(),
        TLS.public.to_bytes(),
    )
    assert (renew.hub, renew.nonce, renew.tls.to_bytes()) == ("hub-1", NONCE, TLS.public.to_bytes())
    assert Grant.decode(GRANT.encode()) == GRANT


def test_an_independent_reader_accepts_what_docs_protocol_says() -> None:
    device, tls, time = (key.public.to_bytes() for key in (DEVICE, TLS, TIME))
    enrol, renew, signed = (second_cbor.decode(message.encode()) for message in (ENROL, RENEW, SIGNED_TIME))
    proof = (hashlib.sha256(SECRET).digest(), device, tls, COMMAND.to_bytes())
    verify_signature(device, enrol["sig"], "pulsegate enrolment", "", *proof)
    verify_signature(tls, enrol["tls_sig"], "pulsegate TLS key", "", *proof)
    verify_signature(device, renew["sig"], "pulsegate renewal", "hub-1", NONCE, tls)
    verify_signature(tls, renew["tls_sig"], "pulsegate TLS key", "hub-1", NONCE, tls)
    verify_signature(time, signed["sig"], "pulsegate time", "", bytes(16), 1_790_000_000)

    assert enrol.keys() == {"v", "secret", "device", "tls", "command", "sig", "tls_sig"}
    assert renew.keys() == {"v", "hub", "nonce", "tls", "sig", "tls_sig"}
    assert signed.keys() == {"v", "time", "chain", "sig"}
    assert second_cbor.decode(GRANT.encode()) == {
        "v": 2,
        "hub": "hub-1",
        "subject": "subject-1",
        "chain": [b"leaf", b"issuing"],
        "roots": [b"root"],
        "brokers": [["mqtt.example", 8883, "DE"]],
        "registration": "version = 2\n",
    }


@pytest.mark.parametrize(
    "changed",
    [
        replace(ENROL, secret=bytes(16)),
        replace(ENROL, device=OTHER_DEVICE.public),
        replace(ENROL, tls=OTHER_TLS.public),
        replace(ENROL, command=RecipientKeyPair.generate().public),
        replace(ENROL, signature=ENROL.tls_signature),
        replace(ENROL, tls_signature=RENEW.tls_signature),
    ],
)
def test_an_enrolment_without_both_private_keys_is_refused(changed: EnrolRequest) -> None:
    with pytest.raises(SignatureError):
        changed.verify()


@pytest.mark.parametrize(
    "changed",
    [
        replace(RENEW, hub="hub-2"),
        replace(RENEW, nonce=bytes(40)),
        replace(RENEW, tls=OTHER_TLS.public),
        replace(RENEW, signature=ENROL.signature),
        replace(RENEW, tls_signature=ENROL.tls_signature),
        RenewRequest.make("hub-1", NONCE, OTHER_DEVICE, TLS),
    ],
)
def test_a_renewal_is_for_one_hub_nonce_and_key(changed: RenewRequest) -> None:
    with pytest.raises(SignatureError):
        changed.verify(DEVICE.public)


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=NAMES)
def test_every_other_form_is_refused(decode, data: bytes) -> None:
    """A field more, less, of another type, empty, or repeated; another version; bytes after it."""
    fields = decode_cbor(data, limit_bytes=1 << 20)
    changed = [
        fields | {"more": 1},
        fields | {"v": 1},
        fields | {"v": True},
        fields | {"v": 2.0},
        *({key: value for key, value in fields.items() if key != gone} for gone in fields),
        *(fields | {key: other} for key in fields for other in (None, 1.5, "", b"", [], {}, -1, [[]], [b""])),
        [fields],
    ]
    for other in changed:
        with pytest.raises(WireError):
            decode(encode_cbor(other))
    for raw in (b"", data + b"\0", data[:-1], b"\xbf" + data[1:] + b"\xff", b"\xc1" + data):
        with pytest.raises(WireError):
            decode(raw)


@pytest.mark.parametrize(("decode", "data"), DECODERS, ids=NAMES)
@given(change=st.data())
def test_damaged_bytes_raise_no_other_error(decode, data: bytes, change: st.DataObject) -> None:
    place, byte = change.draw(st.integers(0, len(data) - 1)), change.draw(st.integers(0, 255))
    changed = data[:place] + bytes([byte]) + data[place + 1 :]
    with contextlib.suppress(WireError):
        assert decode(changed) is not None


@pytest.mark.parametrize("decode", [EnrolRequest.decode, RenewRequest.decode, enrolment.decode_time_request])
def test_a_large_request_is_not_read(decode) -> None:
    with pytest.raises(WireError, match="limit of 2048"):
        decode(bytes(2049))


@pytest.mark.parametrize("broker", [["mqtt.example", 0, "DE"], ["", 1, "DE"], ["h", 1, "Germany"], ["h", 1], ["h", True, "DE"]])
def test_a_broker_without_host_port_or_country_is_refused(broker: list[object]) -> None:
    fields = decode_cbor(GRANT.encode(), limit_bytes=1 << 20)
    with pytest.raises(WireError):
        Grant.decode(encode_cbor(fields | {"brokers": [broker]}))


def test_a_time_is_for_one_nonce_and_by_one_key() -> None:
    for nonce, key, changed in (
        (bytes(15) + b"\1", TIME, SIGNED_TIME),
        (bytes(16), SigningKey.generate(Use.TIME), SIGNED_TIME),
        (bytes(16), TIME, replace(SIGNED_TIME, time_s=SIGNED_TIME.time_s + 1)),
    ):
        with pytest.raises(SignatureError):
            changed.verify(nonce, key.public)

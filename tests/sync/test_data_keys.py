"""Data keys: commitments, statements, and wrapped keys."""

import hashlib
import hmac
import json
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sync.data_keys import DataKey, DataKeyError, KeyStatement, WrappedKey, sign_statement, unwrap_key, wrap_key
from sync.recipients import RecipientKeyPair
from sync.signing import SignatureError, SigningKey, Use, VerifyingKey

VECTOR = json.loads((Path(__file__).parent / "vectors" / "format_2.json").read_text())
DEVICE = SigningKey.generate(Use.DEVICE)
RECIPIENT = RecipientKeyPair.generate()
KEY = DataKey.generate()
STATEMENT = sign_statement(KEY, hub="hub-1", subject="subject-1", day=20_717, device=DEVICE)
WRAPPED = wrap_key(KEY, hub="hub-1", subject="subject-1", recipient=RECIPIENT.public)


def vector(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def test_the_commitment_is_that_of_the_protocol() -> None:
    expected = hmac.new(vector("data_key"), b"pulsegate data key commitment" + vector("key_id"), hashlib.sha256).digest()
    assert expected == vector("commitment") == DataKey(vector("key_id"), vector("data_key")).commitment


def test_the_statement_is_signed_as_the_protocol_says() -> None:
    """The signature is verified here without our code."""
    signed = ["pulsegate data key", 2, "hub-1", vector("key_id"), vector("commitment"), "subject-1", VECTOR["day"]]
    signature = vector("statement_signature")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), vector("device_public"))
    public.verify(encode_dss_signature(r, s), cbor2.dumps(signed, canonical=True), ec.ECDSA(hashes.SHA256()))

    statement = KeyStatement(vector("key_id"), vector("commitment"), "subject-1", VECTOR["day"], signature)
    statement.verify("hub-1", VerifyingKey.from_bytes(Use.DEVICE, vector("device_public")))


def test_unwraps_the_frozen_key() -> None:
    statement = KeyStatement(vector("key_id"), vector("commitment"), "subject-1", VECTOR["day"], vector("statement_signature"))
    recipient = RecipientKeyPair.from_bytes(vector("recipient_private"))
    wrapped = WrappedKey(vector("key_id"), vector("recipient_fingerprint"), vector("wrapped_key"))

    assert unwrap_key(wrapped, statement, hub="hub-1", recipient=recipient).secret == vector("data_key")
    assert recipient.public.to_bytes() == vector("recipient_public")
    assert hashlib.sha256(vector("recipient_public")).digest()[:8] == recipient.public.fingerprint == wrapped.recipient


@pytest.mark.parametrize(
    "changed",
    [{"commitment": bytes(32)}, {"subject": "subject-2"}, {"day": 20_718}, {"id": bytes(16)}, {"signature": bytes(64)}],
)
def test_a_changed_statement_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(SignatureError):
        STATEMENT._replace(**changed).verify("hub-1", DEVICE.public)


def test_a_statement_is_for_one_hub_and_by_its_device_key() -> None:
    with pytest.raises(SignatureError):
        STATEMENT.verify("hub-2", DEVICE.public)
    with pytest.raises(SignatureError):
        STATEMENT.verify("hub-1", SigningKey.generate(Use.DEVICE).public)


def test_a_wrapped_key_belongs_to_hub_subject_id_and_recipient() -> None:
    assert unwrap_key(WRAPPED, STATEMENT, hub="hub-1", recipient=RECIPIENT) == KEY
    for statement, hub, recipient in (
        (STATEMENT, "hub-2", RECIPIENT),
        (STATEMENT._replace(subject="subject-2"), "hub-1", RECIPIENT),
        (STATEMENT._replace(id=bytes(16)), "hub-1", RECIPIENT),
        (STATEMENT, "hub-1", RecipientKeyPair.generate()),
    ):
        with pytest.raises(DataKeyError):
            unwrap_key(WRAPPED, statement, hub=hub, recipient=recipient)


def test_a_stranger_cannot_wrap_a_key_of_his_own() -> None:
    """Anyone may know the recipient's public key; the commitment tells his key from the hub's."""
    forged = wrap_key(DataKey(KEY.id, bytes(32)), hub="hub-1", subject="subject-1", recipient=RECIPIENT.public)
    with pytest.raises(DataKeyError, match="committed"):
        unwrap_key(forged, STATEMENT, hub="hub-1", recipient=RECIPIENT)


@pytest.mark.parametrize("length", [0, 7, 1167, 1169])
def test_a_wrapped_key_of_another_length_is_refused(length: int) -> None:
    damaged = WRAPPED._replace(wrapped=(WRAPPED.wrapped + bytes(1))[:length])
    with pytest.raises(DataKeyError):
        unwrap_key(damaged, STATEMENT, hub="hub-1", recipient=RECIPIENT)

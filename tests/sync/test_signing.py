"""Signatures: a published vector, key files, and that no key has two uses."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from sync.key_files import KeyFileError
from sync.signing import Label, SignatureError, SigningKey, Use, VerifyingKey

LABELS = {
    Label.DATA_KEY: Use.DEVICE,
    Label.ENVELOPE: Use.DEVICE,
    Label.ACKNOWLEDGEMENT: Use.ACKNOWLEDGEMENT,
    Label.RECEIPT: Use.RECEIPT,
    Label.AUDIT_KEY: Use.DEVICE,
    Label.AUDIT_HEAD: Use.AUDIT,
    Label.AUDIT_CUT: Use.AUDIT,
    Label.STATUS: Use.DEVICE,
    Label.ENROLMENT: Use.DEVICE,
    Label.RENEWAL: Use.DEVICE,
    Label.TLS_KEY: Use.TLS,
    Label.TIME: Use.TIME,
    Label.COMMAND: Use.COMMAND,
}
KEYS = {use: SigningKey.generate(use) for use in Use}


def test_a_key_has_the_public_point_of_rfc_6979() -> None:
    """RFC 6979, appendix A.2.5: a key of P-256 and its signature of "sample" with SHA-256."""
    scalar = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
    x = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    y = "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
    r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
    s = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"

    key = SigningKey.from_bytes(Use.DEVICE, bytes.fromhex(scalar)).public

    assert key.to_bytes().hex() == "04" + x + y
    key.key.verify(encode_dss_signature(int(r, 16), int(s, 16)), b"sample", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("label", Label)
def test_a_signature_is_for_one_label_hub_and_value(label: Label) -> None:
    key = KEYS[LABELS[label]]
    signature = key.sign(label, "hub-1", b"content", 7)
    key.public.verify(signature, label, "hub-1", b"content", 7)

    others = [other for other in Label if other != label]
    changes = [
        (label, "hub-2", b"content", 7),
        (label, "hub-1", b"other", 7),
        (label, "hub-1", b"content"),
        *((o, "hub-1", b"content", 7) for o in others),
    ]
    for changed in changes:
        with pytest.raises(SignatureError):
            key.public.verify(signature, *changed)


@pytest.mark.parametrize("label", Label)
@pytest.mark.parametrize("use", Use)
def test_a_key_signs_for_its_use_only(label: Label, use: Use) -> None:
    if LABELS[label] == use:
        assert len(KEYS[use].sign(label, "hub-1")) == 64
    else:
        with pytest.raises(ValueError, match="does not sign"):
            KEYS[use].sign(label, "hub-1")


def test_a_key_of_another_use_does_not_verify() -> None:
    """The same point, registered for another use, would accept the signature."""
    signature = KEYS[Use.DEVICE].sign(Label.ENVELOPE, "hub-1")
    stranger = VerifyingKey(Use.RECEIPT, KEYS[Use.DEVICE].public.key)
    with pytest.raises(SignatureError):
        stranger.verify(signature, Label.ENVELOPE, "hub-1")


@given(st.binary(max_size=70))
def test_random_signatures_are_refused(signature: bytes) -> None:
    with pytest.raises(SignatureError):
        KEYS[Use.DEVICE].public.verify(signature, Label.ENVELOPE, "hub-1")


@given(st.binary(max_size=70))
def test_random_public_keys_raise_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        VerifyingKey.from_bytes(Use.DEVICE, data)


@pytest.mark.parametrize("scalar", [b"", bytes(32), b"\xff" * 32, bytes(31), bytes(33)])
def test_a_scalar_out_of_range_is_refused(scalar: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        SigningKey.from_bytes(Use.DEVICE, scalar)


def test_key_files_hold_one_use_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    key = SigningKey.load_or_create(path, Use.DEVICE)
    again = SigningKey.load_or_create(path, Use.DEVICE)
    key.public.save(tmp_path / "device.pub")

    assert path.stat().st_mode & 0o777 == 0o600
    assert again.to_bytes() == key.to_bytes()
    assert VerifyingKey.load(tmp_path / "device.pub", Use.DEVICE).to_bytes() == key.public.to_bytes()
    with pytest.raises(KeyFileError, match="pulsegate receipt private key"):
        SigningKey.load(path, Use.RECEIPT)
    with pytest.raises(KeyFileError, match="holds no such file"):
        key.create(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        SigningKey.load(path, Use.DEVICE)


@pytest.mark.parametrize(
    "content", [b"", b"pulsegate device public key, version 2\n04", b"pulsegate device public key, version 2\nzz"]
)
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "device.pub").write_bytes(content)
    with pytest.raises(KeyFileError):
        VerifyingKey.load(tmp_path / "device.pub", Use.DEVICE)

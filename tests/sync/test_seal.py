"""Blocks and wrapped keys: known answers, an independent decoder, and tampering."""

import json
import struct
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from hypothesis import given
from hypothesis import strategies as st

from sync.seal import (
    BlockHeader,
    ClinicKeyPair,
    ClinicPublicKey,
    DataKey,
    SealError,
    open_block,
    parse_header,
    seal_block,
    unwrap_at_clinic,
    wrap_for_clinic,
)

KEY = DataKey(bytes(16), bytes(range(32)))
CLINIC = ClinicKeyPair.generate()
VECTOR = json.loads((Path(__file__).parent / "vectors" / "seal_v1.json").read_text())

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
counts = st.integers(0, 2**63 - 1)
headers = st.builds(
    BlockHeader,
    hub=names,
    subject=names,
    epoch=counts,
    lane=st.sampled_from(["alert", "vital", "wave", "archive"]),
    seq=st.integers(1, 2**63 - 1),
    key=st.just(KEY.id),
    nonce=st.binary(min_size=12, max_size=12),
)


@pytest.mark.parametrize(
    ("plaintext", "associated", "sealed"),
    [
        ("", "", "07f5f4169bbf55a8400cd47ea6fd400f"),
        ("0100000000000000", "", "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
        ("0200000000000000", "01", "1de22967237a813291213f267e3b452f02d01ae33e4ec854"),
    ],
)
def test_cipher_matches_rfc_8452_appendix_c2(plaintext: str, associated: str, sealed: str) -> None:
    key, nonce = bytes([1]) + bytes(31), bytes([3]) + bytes(11)
    assert AESGCMSIV(key).encrypt(nonce, bytes.fromhex(plaintext), bytes.fromhex(associated)).hex() == sealed


def test_block_has_the_layout_of_the_protocol() -> None:
    """The block is decoded here without our code, by docs/protocol.md only."""
    block = bytes.fromhex(VECTOR["block"])
    magic, version, length = struct.unpack(">2sBH", block[:5])
    header = cbor2.loads(block[5 : 5 + length])
    clear, sealed = block[: 5 + length], block[5 + length :]
    assert (magic, version) == (b"PG", 1)
    assert header == {
        "hub": "hub-1",
        "subject": "subject-1",
        "epoch": 1_790_000_000,
        "lane": "wave",
        "seq": 1,
        "key": bytes(range(16)),
        "nonce": bytes(range(12)),
        "prev": [1_780_000_000, 7],
    }
    cipher = AESGCMSIV(bytes.fromhex(VECTOR["secret"]))
    assert cipher.decrypt(header["nonce"], sealed, clear) == VECTOR["plaintext"].encode()


def test_opens_blocks_and_keys_of_version_1() -> None:
    clinic = ClinicKeyPair.from_bytes(bytes.fromhex(VECTOR["clinic_private"]))
    assert clinic.public.to_bytes().hex() == VECTOR["clinic_public"]
    key = unwrap_at_clinic(
        bytes.fromhex(VECTOR["wrapped"]),
        key_id=bytes.fromhex(VECTOR["key_id"]),
        hub=VECTOR["hub"],
        subject=VECTOR["subject"],
        clinic=clinic,
    )
    header, plaintext = open_block(bytes.fromhex(VECTOR["block"]), key)
    assert plaintext == VECTOR["plaintext"].encode()
    assert header.prev == (1_780_000_000, 7)


@given(headers, st.binary(max_size=300))
def test_opens_a_sealed_block(header: BlockHeader, plaintext: bytes) -> None:
    block = seal_block(header, plaintext, KEY)
    assert open_block(block, KEY) == (header, plaintext)
    assert parse_header(block) == header


@given(headers, st.binary(max_size=100), st.data())
def test_detects_a_flipped_bit(header: BlockHeader, plaintext: bytes, data: st.DataObject) -> None:
    block = bytearray(seal_block(header, plaintext, KEY))
    bit = data.draw(st.integers(0, len(block) * 8 - 1))
    block[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        open_block(bytes(block), KEY)


@given(headers, st.binary(max_size=50), st.data())
def test_rejects_a_truncated_block(header: BlockHeader, plaintext: bytes, data: st.DataObject) -> None:
    block = seal_block(header, plaintext, KEY)
    with pytest.raises(SealError):
        open_block(block[: data.draw(st.integers(0, len(block) - 1))], KEY)


@given(st.binary(max_size=400))
def test_random_bytes_raise_only_seal_error(data: bytes) -> None:
    for candidate in (data, b"PG\x01" + data, b"PG\x01" + len(data).to_bytes(2, "big") + data + bytes(16)):
        with pytest.raises(SealError):
            parse_header(candidate)


@pytest.mark.parametrize(
    "change",
    [
        {"hub": "a/b"},
        {"subject": ""},
        {"epoch": -1},
        {"epoch": 2**63},
        {"epoch": True},
        {"lane": "urgent"},
        {"seq": 0},
        {"key": bytes(15)},
        {"nonce": bytes(11)},
        {"prev": (1, -1)},
        {"seq": 2, "prev": (1, 1)},
    ],
)
def test_header_rejects_invalid_fields(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"hub": "h", "subject": "s", "epoch": 1, "lane": "wave", "seq": 1, "key": KEY.id}
    with pytest.raises(SealError, match=list(change)[-1]):
        BlockHeader(**(fields | change))  # type: ignore[arg-type]


def test_error_for_a_newer_format_says_to_update() -> None:
    block = bytearray(seal_block(BlockHeader("h", "s", 1, "wave", 1, KEY.id), b"", KEY))
    block[2] = 2
    with pytest.raises(SealError, match=r"format 2.*update"):
        parse_header(bytes(block))


def test_rejects_a_header_that_names_another_key() -> None:
    with pytest.raises(SealError, match="another key"):
        seal_block(BlockHeader("h", "s", 1, "wave", 1, bytes(15) + b"1"), b"", KEY)


def test_repr_contains_no_secrets() -> None:
    assert repr(KEY.secret) not in repr(KEY)
    assert "mlkem" not in repr(CLINIC)


class TestWrappedKey:
    def test_unwraps_only_for_its_hub_subject_and_key_id(self) -> None:
        wrapped = wrap_for_clinic(KEY, hub="h", subject="s", clinic=CLINIC.public)
        right: dict[str, Any] = {"key_id": KEY.id, "hub": "h", "subject": "s", "clinic": CLINIC}
        assert unwrap_at_clinic(wrapped, **right) == KEY
        for wrong in ({"key_id": bytes(15) + b"1"}, {"hub": "h2"}, {"subject": "s2"}, {"clinic": ClinicKeyPair.generate()}):
            with pytest.raises(SealError):
                unwrap_at_clinic(wrapped, **(right | wrong))

    @given(st.integers(0, 1177 * 8 - 1))
    def test_detects_a_flipped_bit(self, bit: int) -> None:
        wrapped = bytearray(wrap_for_clinic(KEY, hub="h", subject="s", clinic=CLINIC.public))
        assert len(wrapped) == 1177
        wrapped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            unwrap_at_clinic(bytes(wrapped), key_id=KEY.id, hub="h", subject="s", clinic=CLINIC)

    @given(st.binary(max_size=60))
    def test_random_bytes_raise_only_seal_error(self, data: bytes) -> None:
        for candidate in (data, b"\x01" + CLINIC.public.fingerprint + data):
            with pytest.raises(SealError):
                unwrap_at_clinic(candidate, key_id=KEY.id, hub="h", subject="s", clinic=CLINIC)

    def test_wrapping_a_key_twice_gives_different_bytes(self) -> None:
        first, second = (wrap_for_clinic(KEY, hub="h", subject="s", clinic=CLINIC.public) for _ in range(2))
        assert first != second


class TestClinicKeyFiles:
    def test_load_returns_the_saved_keys(self, tmp_path: Path) -> None:
        CLINIC.save(tmp_path / "private")
        CLINIC.public.save(tmp_path / "public")
        assert ClinicKeyPair.load(tmp_path / "private").to_bytes() == CLINIC.to_bytes()
        assert ClinicPublicKey.load(tmp_path / "public").to_bytes() == CLINIC.public.to_bytes()
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600

    def test_private_key_is_never_overwritten(self, tmp_path: Path) -> None:
        CLINIC.save(tmp_path / "private")
        with pytest.raises(SealError, match="exists"):
            ClinicKeyPair.generate().save(tmp_path / "private")
        assert ClinicKeyPair.load(tmp_path / "private").to_bytes() == CLINIC.to_bytes()

    def test_rejects_a_private_key_that_other_users_can_access(self, tmp_path: Path) -> None:
        CLINIC.save(tmp_path / "private")
        (tmp_path / "private").chmod(0o640)
        with pytest.raises(SealError, match="chmod 600"):
            ClinicKeyPair.load(tmp_path / "private")

    def test_rejects_a_public_key_file_as_private_key(self, tmp_path: Path) -> None:
        CLINIC.public.save(tmp_path / "public")
        (tmp_path / "public").chmod(0o600)
        with pytest.raises(SealError, match="not a clinic private key"):
            ClinicKeyPair.load(tmp_path / "public")

    @pytest.mark.parametrize(
        "content", [b"", b"pulsegate clinic public key, version 1\nzz", b"pulsegate clinic public key, version 1\n00"]
    )
    def test_rejects_a_damaged_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "public").write_bytes(content)
        with pytest.raises(SealError):
            ClinicPublicKey.load(tmp_path / "public")

    def test_error_for_a_missing_file_names_it(self, tmp_path: Path) -> None:
        for load in (ClinicPublicKey.load, ClinicKeyPair.load):
            with pytest.raises(SealError, match="missing"):
                load(tmp_path / "missing")

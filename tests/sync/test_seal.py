"""Blocks: known answers, an independent decoder, and tampering."""

import json
import struct
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from hypothesis import given
from hypothesis import strategies as st

from sync.cbor import encode_cbor
from sync.data_keys import DataKey
from sync.seal import BlockHeader, LaneEnd, SealError, block_format, open_block, parse_header, seal_block
from sync.wire import MAX_COUNT

KEY = DataKey(bytes(16), bytes(range(32)))
VECTOR = json.loads((Path(__file__).parent / "vectors" / "format_2.json").read_text())

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
headers = st.builds(
    BlockHeader,
    hub=names,
    subject=names,
    epoch=st.integers(1, MAX_COUNT),
    lane=st.sampled_from(["alert", "vital", "wave", "archive"]),
    seq=st.integers(1, MAX_COUNT),
    key=st.just(KEY.id),
    nonce=st.binary(min_size=12, max_size=12),
)
HEADER = BlockHeader("hub-1", "subject-1", 9, "wave", 1, KEY.id, bytes(12))


def with_fields(changed: dict[str, Any], *, without: str = "") -> bytes:
    """A block whose header has other fields; it is well formed otherwise."""
    fields = {name: getattr(HEADER, name) for name in ("hub", "subject", "epoch", "lane", "seq", "key", "nonce")} | changed
    fields.pop(without, None)
    header = encode_cbor(fields)
    clear = struct.pack(">2sBH", b"PG", 2, len(header)) + header
    return clear + AESGCMSIV(KEY.secret).encrypt(bytes(12), b"plaintext", clear)


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
    block = bytes.fromhex(VECTOR["blocks"][0]["block"])
    magic, version, length = struct.unpack(">2sBH", block[:5])
    header = cbor2.loads(block[5 : 5 + length])
    clear, sealed = block[: 5 + length], block[5 + length :]
    assert (magic, version) == (b"PG", 2)
    assert header == {
        "hub": "hub-1",
        "subject": "subject-1",
        "epoch": (1_790_000_000 << 20) + 0xABCDE,
        "lane": "wave",
        "seq": 1,
        "key": bytes(range(16)),
        "nonce": bytes(range(12)),
        "prev": [(1_780_000_000 << 20) + 7, 7, bytes(range(32))],
    }
    cipher = AESGCMSIV(bytes.fromhex(VECTOR["data_key"]))
    assert cipher.decrypt(header["nonce"], sealed, clear) == VECTOR["blocks"][0]["plaintext"].encode()


def test_opens_the_frozen_blocks() -> None:
    key = DataKey(bytes.fromhex(VECTOR["key_id"]), bytes.fromhex(VECTOR["data_key"]))
    opened = [open_block(bytes.fromhex(vector["block"]), key) for vector in VECTOR["blocks"]]
    assert [plaintext.decode() for _, plaintext in opened] == [vector["plaintext"] for vector in VECTOR["blocks"]]
    assert opened[0][0].prev == LaneEnd(VECTOR["previous_epoch"], 7, bytes(range(32)))


@given(headers, st.binary(max_size=300))
def test_round_trip(header: BlockHeader, plaintext: bytes) -> None:
    assert open_block(seal_block(header, plaintext, KEY), KEY) == (header, plaintext)


@given(headers, st.data())
def test_no_changed_bit_goes_unnoticed(header: BlockHeader, data: st.DataObject) -> None:
    block = bytearray(seal_block(header, b"plaintext", KEY))
    bit = data.draw(st.integers(0, 8 * len(block) - 1))
    block[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        open_block(bytes(block), KEY)


@given(headers, st.data())
def test_a_truncated_block_is_refused(header: BlockHeader, data: st.DataObject) -> None:
    block = seal_block(header, b"plaintext", KEY)
    with pytest.raises(SealError):
        open_block(block[: data.draw(st.integers(0, len(block) - 1))], KEY)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SealError):
        parse_header(data)


def test_the_ciphertext_cannot_move_to_another_header() -> None:
    one = seal_block(HEADER, b"plaintext", KEY)
    other = seal_block(BlockHeader("hub-1", "subject-2", 9, "alert", 1, KEY.id, bytes(12)), b"plaintext", KEY)
    end = len(other) - len(b"plaintext") - 16
    with pytest.raises(SealError):
        open_block(other[:end] + one[-len(b"plaintext") - 16 :], KEY)


def test_a_field_of_a_later_version_is_ignored() -> None:
    block = with_fields({"colour": 7})
    assert open_block(block, KEY) == (HEADER, b"plaintext")


@pytest.mark.parametrize("crit", [["colour"], ["hub", "colour"], "colour", [7]])
def test_a_field_that_must_not_be_ignored_is_refused(crit: object) -> None:
    with pytest.raises(SealError):
        open_block(with_fields({"colour": 7, "crit": crit}), KEY)


@pytest.mark.parametrize("name", ["hub", "subject", "epoch", "lane", "seq", "key", "nonce"])
def test_no_field_may_be_missing(name: str) -> None:
    with pytest.raises(SealError, match=name):
        parse_header(with_fields({}, without=name))


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": 0},
        {"epoch": 2**53},
        {"seq": 0},
        {"seq": 2**53},
        {"seq": True},
        {"lane": "other"},
        {"hub": "a/b"},
        {"key": bytes(15)},
        {"nonce": bytes(13)},
        {"prev": [9, 1]},
        {"prev": [0, 1, bytes(32)]},
        {"prev": [8, 0, bytes(32)]},
        {"prev": [8, 1, bytes(31)]},
        {"prev": [8, 1, bytes(32)], "seq": 2},
        {"prev": 5},
    ],
)
def test_a_field_beyond_its_limits_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(SealError):
        parse_header(with_fields(changed))


def test_another_key_is_refused() -> None:
    block = seal_block(HEADER, b"plaintext", KEY)
    with pytest.raises(SealError, match="another key"):
        open_block(block, DataKey(bytes([1]) * 16, KEY.secret))
    with pytest.raises(SealError, match="its key is wrong"):
        open_block(block, DataKey(KEY.id, bytes(32)))
    with pytest.raises(SealError, match="another key"):
        seal_block(HEADER, b"", DataKey(bytes([1]) * 16, bytes(32)))


@pytest.mark.parametrize(("version", "side"), [(1, "hub"), (3, "clinic")])
def test_another_format_says_which_side_is_old(version: int, side: str) -> None:
    block = bytearray(seal_block(HEADER, b"plaintext", KEY))
    block[2] = version
    with pytest.raises(SealError, match=f"on the {side}"):
        parse_header(bytes(block))
    assert block_format(bytes(block)) == version
    assert block_format(b"PG") is None

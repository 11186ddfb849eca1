"""The hub's key file and what is sealed with it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.keys import HubKey
from sync.seal import SealError

KEY = HubKey(bytes(range(32)))


def test_is_created_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    key = HubKey.load_or_create(path)
    assert (len(path.read_bytes()), path.stat().st_mode & 0o777) == (32, 0o600)
    assert HubKey.load_or_create(path) == key
    assert HubKey.load_or_create(tmp_path / "other.key") != key


def test_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    HubKey.load_or_create(path)
    for mode in (0o604, 0o640, 0o620):
        path.chmod(mode)
        with pytest.raises(SealError, match="chmod 600"):
            HubKey.load_or_create(path)


def test_of_another_length_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(SealError, match="5 bytes, not 32"):
        HubKey.load_or_create(path)
    assert path.read_bytes() == b"short"


def test_in_a_missing_folder_says_where(tmp_path: Path) -> None:
    with pytest.raises(SealError, match="nowhere"):
        HubKey.load_or_create(tmp_path / "nowhere" / "hub.key")


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_what_was_sealed_opens(plaintext: bytes, purpose: bytes) -> None:
    assert KEY.open(KEY.seal(plaintext, purpose), purpose) == plaintext


@given(st.binary(max_size=40), st.data())
def test_any_flipped_bit_other_purpose_or_key_is_noticed(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(plaintext, b"a"))
    for key, purpose in ((KEY, b"b"), (HubKey(bytes(32)), b"a")):
        with pytest.raises(SealError):
            key.open(bytes(sealed), purpose)
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        KEY.open(bytes(sealed), b"a")


@given(st.binary(max_size=40))
def test_random_bytes_raise_nothing_but_seal_error(data: bytes) -> None:
    for candidate in (data, b"\x01" + data):
        with pytest.raises(SealError):
            KEY.open(candidate, b"a")


def test_check_value_tells_keys_apart_and_is_not_the_key() -> None:
    assert KEY.check_value() == HubKey(bytes(range(32))).check_value()
    assert KEY.check_value() != HubKey(bytes(32)).check_value()
    assert KEY.check_value() not in KEY.secret
    assert "\\x01" not in repr(KEY)

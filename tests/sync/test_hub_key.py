"""The hub's key file, and sealing with it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.key_files import KeyFileError
from sync.keys import HubKey
from sync.seal import SealError

KEY = HubKey(bytes(range(32)))


def test_key_file_is_created_once_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    key = HubKey.load_or_create(path)
    assert (len(path.read_bytes()), path.stat().st_mode & 0o777) == (32, 0o600)
    assert HubKey.load_or_create(path) == key
    assert HubKey.load_or_create(tmp_path / "other.key") != key


def test_rejects_a_key_file_that_other_users_can_access(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    HubKey.load_or_create(path)
    for mode in (0o604, 0o640, 0o620):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match="chmod 600"):
            HubKey.load_or_create(path)


def test_rejects_and_keeps_a_key_file_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(SealError, match="5 bytes, not 32"):
        HubKey.load_or_create(path)
    assert path.read_bytes() == b"short"


def test_error_for_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="missing"):
        HubKey.load_or_create(tmp_path / "missing" / "hub.key")


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_opens_sealed_data(plaintext: bytes, purpose: bytes) -> None:
    assert KEY.open(KEY.seal(plaintext, purpose), purpose) == plaintext


@given(st.binary(max_size=40), st.data())
def test_detects_a_flipped_bit_another_purpose_and_another_key(plaintext: bytes, data: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(plaintext, b"a"))
    for key, purpose in ((KEY, b"b"), (HubKey(bytes(32)), b"a")):
        with pytest.raises(SealError):
            key.open(bytes(sealed), purpose)
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealError):
        KEY.open(bytes(sealed), b"a")


@given(st.binary(max_size=40))
def test_random_bytes_raise_only_seal_error(data: bytes) -> None:
    for candidate in (data, b"\x01" + data):
        with pytest.raises(SealError):
            KEY.open(candidate, b"a")


def test_check_value_identifies_the_key_without_containing_it() -> None:
    assert KEY.check_value() == HubKey(bytes(range(32))).check_value()
    assert KEY.check_value() != HubKey(bytes(32)).check_value()
    assert KEY.check_value() not in KEY.secret
    assert "\\x01" not in repr(KEY)

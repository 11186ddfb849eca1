"""What databases of format 1 hold can still be read."""

import json
from pathlib import Path

import pytest

from sync.data_keys import DataKeyError
from sync.format_1.blocks import ClinicKeyPair1, open_block, parse_header
from sync.key_files import KeyFileError
from sync.seal import SealError

VECTOR = json.loads((Path(__file__).parent / "vectors" / "seal_v1.json").read_text())
KEY_ID = bytes.fromhex(VECTOR["key_id"])
TITLE = "pulsegate clinic private key, version 1\n"


@pytest.fixture
def clinic(tmp_path: Path) -> ClinicKeyPair1:
    path = tmp_path / "clinic.key"
    path.touch(mode=0o600)
    path.write_text(f"{TITLE}{VECTOR['clinic_private']}\n")
    return ClinicKeyPair1.load(path)


def test_opens_the_frozen_block_with_the_frozen_key(clinic: ClinicKeyPair1) -> None:
    block = bytes.fromhex(VECTOR["block"])
    key = clinic.unwrap(bytes.fromhex(VECTOR["wrapped"]), key_id=KEY_ID, hub="hub-1", subject="subject-1")

    assert key.secret.hex() == VECTOR["secret"]
    assert open_block(block, key).decode() == VECTOR["plaintext"]
    assert parse_header(block).prev == (1_780_000_000, 7)


def test_a_wrapped_key_belongs_to_hub_subject_and_id(clinic: ClinicKeyPair1) -> None:
    wrapped = bytes.fromhex(VECTOR["wrapped"])
    for key_id, hub, subject in (
        (bytes(16), "hub-1", "subject-1"),
        (KEY_ID, "hub-2", "subject-1"),
        (KEY_ID, "hub-1", "subject-2"),
    ):
        with pytest.raises(DataKeyError):
            clinic.unwrap(wrapped, key_id=key_id, hub=hub, subject=subject)
    with pytest.raises(DataKeyError, match="another clinic key"):
        clinic.unwrap(b"\2" + wrapped[1:], key_id=KEY_ID, hub="hub-1", subject="subject-1")


def test_a_changed_block_is_refused(clinic: ClinicKeyPair1) -> None:
    key = clinic.unwrap(bytes.fromhex(VECTOR["wrapped"]), key_id=KEY_ID, hub="hub-1", subject="subject-1")
    block = bytes.fromhex(VECTOR["block"])
    for at in range(len(block)):
        with pytest.raises(SealError):
            open_block(block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :], key)
        with pytest.raises(SealError):
            open_block(block[:at], key)


def test_a_key_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clinic.key"
    path.touch(mode=0o600)
    path.write_text(f"{TITLE.replace('private', 'public')}00\n")
    with pytest.raises(KeyFileError, match="does not begin"):
        ClinicKeyPair1.load(path)

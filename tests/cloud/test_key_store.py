"""The key store and its backups: creation, destruction, expiry."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud.errors import ClinicError
from cloud.key_backup import LIFETIME_S, create_recovery_key, delete_expired, restore_backup, write_backup
from cloud.key_store import KeyStore
from cloud.signing_keys import SigningKeys, key_file
from sync.key_files import KeyFileError
from sync.signing import Use

T0_S = 1_790_000_000


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys")


@pytest.fixture
def signing(tmp_path: Path) -> SigningKeys:
    return SigningKeys.load_or_create(tmp_path, may_create=True)


@pytest.fixture
def recovery(tmp_path: Path) -> Path:
    create_recovery_key(tmp_path / "recovery.key", tmp_path / "recovery.pub")
    return tmp_path / "recovery.key"


def back_up(tmp_path: Path, keys: KeyStore, signing: SigningKeys) -> Path:
    path = tmp_path / "keys.backup"
    write_backup(path, keys, signing, tmp_path / "recovery.pub", T0_S)
    return path


def test_a_pair_is_found_by_its_fingerprint(keys: KeyStore) -> None:
    first, other = keys.create("patient-1"), keys.create("patient-2")

    found = [keys.recipient(public.fingerprint) for public in (first, other)]

    assert [pair and pair.public.to_bytes() for pair in found] == [first.to_bytes(), other.to_bytes()]
    assert keys.recipient(bytes(8)) is None


def test_rotation_keeps_the_earlier_pair(keys: KeyStore) -> None:
    old, new = keys.create("patient-1"), keys.create("patient-1")

    newest = keys.public("patient-1")

    assert newest is not None
    assert newest.to_bytes() == new.to_bytes()
    assert keys.recipient(old.fingerprint) is not None


def test_another_process_creates_and_destroys(tmp_path: Path, keys: KeyStore) -> None:
    other = KeyStore(tmp_path / "keys")
    public = other.create("patient-1")
    found = keys.recipient(public.fingerprint) is not None
    other.destroy("patient-1")

    assert (found, keys.recipient(public.fingerprint), keys.subjects()) == (True, None, ())


def test_a_destroyed_pair_is_overwritten(tmp_path: Path, keys: KeyStore) -> None:
    keys.create("patient-1")
    path = tmp_path / "keys" / "patient-1" / "1.key"
    (tmp_path / "hard-link").hardlink_to(path)  # sees what is written to the file after its name is gone

    assert keys.destroy("patient-1") == 1
    assert not path.exists()
    assert set((tmp_path / "hard-link").read_bytes()) == {0}


def test_a_pair_that_is_being_destroyed_is_no_damaged_file(tmp_path: Path, keys: KeyStore) -> None:
    """Another process, or a power cut, is between the overwriting and the deletion of the file."""
    erased, other = keys.create("patient-1"), keys.create("patient-2")
    path = tmp_path / "keys" / "patient-1" / "1.key"
    path.write_bytes(bytes(100))
    with pytest.raises(KeyFileError):
        KeyStore(tmp_path / "keys").recipient(other.fingerprint)
    (path.parent / "erased").touch()
    keys_of_another_process = KeyStore(tmp_path / "keys")
    assert keys_of_another_process.recipient(other.fingerprint) is not None
    assert keys_of_another_process.recipient(erased.fingerprint) is None
    assert (keys_of_another_process.destroy("patient-1"), path.exists()) == (1, False)


def test_a_pair_that_others_may_read_is_refused(tmp_path: Path, keys: KeyStore) -> None:
    public = keys.create("patient-1")
    (tmp_path / "keys" / "patient-1" / "1.key").chmod(0o644)

    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyStore(tmp_path / "keys").recipient(public.fingerprint)


@pytest.mark.parametrize("change", [KeyStore.create, KeyStore.destroy])
def test_nobody_else_may_list_the_subjects(tmp_path: Path, keys: KeyStore, change: Callable[[KeyStore, str], object]) -> None:
    change(keys, "patient-1")
    folders = [tmp_path / "keys", tmp_path / "keys" / "patient-1"]
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700, 0o700]


def test_a_backup_brings_back_missing_keys(tmp_path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path) -> None:
    first, second = keys.create("patient-1"), keys.create("patient-2")
    backup = back_up(tmp_path, keys, signing)
    shutil.rmtree(tmp_path / "keys" / "patient-1")
    key_file(tmp_path, Use.RECEIPT).unlink()

    restored = restore_backup(backup, tmp_path, keys, recovery, now_s=T0_S + LIFETIME_S)

    assert restored.subjects == 2
    assert keys.recipient(first.fingerprint) is not None
    assert [pair.public.to_bytes() for pair in keys.pairs("patient-2")] == [second.to_bytes()]
    assert SigningKeys.load(tmp_path).receipt.to_bytes() == signing.receipt.to_bytes()


def test_an_erased_subject_is_left_out(tmp_path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path) -> None:
    keys.create("patient-1")
    backup = back_up(tmp_path, keys, signing)
    keys.destroy("patient-1")

    restored = restore_backup(backup, tmp_path, keys, recovery, now_s=T0_S)

    assert (restored.subjects, restored.erased, keys.subjects()) == (0, 1, ())
    with pytest.raises(ClinicError, match="was erased"):
        keys.create("patient-1")


@pytest.mark.parametrize("now_s", [T0_S + LIFETIME_S + 1, T0_S - 1])
def test_an_expired_backup_is_refused(tmp_path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path, now_s: int) -> None:
    keys.create("patient-1")
    backup = back_up(tmp_path, keys, signing)
    shutil.rmtree(tmp_path / "keys" / "patient-1")

    with pytest.raises(ClinicError, match="may no longer be restored"):
        restore_backup(backup, tmp_path, keys, recovery, now_s=now_s)
    assert keys.subjects() == ()


def test_the_expiry_cannot_be_moved(tmp_path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path) -> None:
    """The times are part of what is encrypted, so that a changed file does not open."""
    keys.create("patient-1")
    backup = back_up(tmp_path, keys, signing)
    title, digits = backup.read_bytes().split(b"\n", 1)
    later = digits.replace(
        (T0_S + LIFETIME_S).to_bytes(4, "big").hex().encode(), (T0_S + 2 * LIFETIME_S).to_bytes(4, "big").hex().encode()
    )
    assert later != digits
    backup.write_bytes(title + b"\n" + later)

    with pytest.raises(ClinicError, match="damaged"):
        restore_backup(backup, tmp_path, keys, recovery, now_s=T0_S + LIFETIME_S + 1)


def test_a_backup_needs_its_recovery_key(tmp_path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path) -> None:
    keys.create("patient-1")
    backup = back_up(tmp_path, keys, signing)
    create_recovery_key(tmp_path / "other.key", tmp_path / "other.pub")

    with pytest.raises(ClinicError, match="another recovery key"):
        restore_backup(backup, tmp_path, keys, tmp_path / "other.key", now_s=T0_S)
    assert recovery.exists()


def test_expired_backups_are_deleted(tmp_path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path) -> None:
    backup = back_up(tmp_path, keys, signing)
    (tmp_path / "other.backup").write_bytes(b"not a backup")

    counts = [delete_expired(tmp_path, now_s) for now_s in (T0_S + LIFETIME_S, T0_S + LIFETIME_S + 1)]

    assert (counts, backup.exists(), recovery.exists()) == ([0, 1], False, True)


def test_signing_keys_are_never_made_anew_beside_registered_hubs(tmp_path: Path, signing: SigningKeys) -> None:
    key_file(tmp_path, Use.ACKNOWLEDGEMENT).unlink()

    with pytest.raises(ClinicError, match="restore"):
        SigningKeys.load_or_create(tmp_path, may_create=False)
    assert signing.receipt.to_bytes() == SigningKeys.load_or_create(tmp_path, may_create=True).receipt.to_bytes()

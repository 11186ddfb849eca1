"""A clinic whose private keys are missing beside a store with blocks does not start: it would take in what it cannot open."""

import shutil
from pathlib import Path

import pytest

from cloud.clinic_keys import load_keys
from cloud.errors import ClinicError
from cloud.store import Store
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.synthetic import START_US, heart_rate
from tests.cloud.test_cloud_cli import START_LIMIT_S, start_dev


@pytest.fixture
def with_blocks(store: Store, hub: Hub, clinic: Clinic) -> Store:
    """The store of a clinic with blocks of two subjects."""
    other = clinic.add_hub("hub-2", "subject-2")
    for one in (hub, other):
        one.send(store, "vital", heart_rate(START_US, 61.0))
    return store


def test_a_first_start_creates_the_signing_keys(tmp_path: Path, store: Store) -> None:
    clinic = Clinic(tmp_path / "new")
    found = load_keys(clinic.folder, store).signing
    assert found.receipt.to_bytes() == clinic.signing.receipt.to_bytes()
    assert found.acknowledgement.to_bytes() == clinic.signing.acknowledgement.to_bytes()


def test_a_clinic_with_its_keys_starts(with_blocks: Store, clinic: Clinic) -> None:
    keys = load_keys(clinic.folder, with_blocks)
    assert keys.recipients.subjects() == ("subject-1", "subject-2")


def test_a_clinic_without_a_subjects_private_key_does_not_start(with_blocks: Store, clinic: Clinic) -> None:
    shutil.rmtree(clinic.folder.keys / "subject-2")
    with pytest.raises(ClinicError, match=r"the private keys of subject-2 are missing.*restore them with"):
        load_keys(clinic.folder, with_blocks)
    clinic.key_store.create("subject-2")  # a new pair is no substitute
    with pytest.raises(ClinicError, match="subject-2"):
        load_keys(clinic.folder, with_blocks)


def test_a_clinic_without_its_key_store_does_not_start(with_blocks: Store, clinic: Clinic) -> None:
    shutil.rmtree(clinic.folder.keys)
    with pytest.raises(ClinicError, match="subject-1, subject-2"):
        load_keys(clinic.folder, with_blocks)


def test_a_subject_with_a_newer_pair_needs_the_earlier_one_only_for_its_keys(with_blocks: Store, clinic: Clinic) -> None:
    clinic.key_store.create("subject-1")
    assert set(load_keys(clinic.folder, with_blocks).recipients.subjects()) == {"subject-1", "subject-2"}


def test_an_erased_subject_needs_no_private_key(with_blocks: Store, clinic: Clinic) -> None:
    with_blocks.erase("subject-2", START_US)
    clinic.key_store.destroy("subject-2")
    assert load_keys(clinic.folder, with_blocks).recipients.subjects() == ("subject-1",)


def test_a_store_restored_from_before_an_erasure_needs_no_private_key(with_blocks: Store, clinic: Clinic) -> None:
    clinic.key_store.destroy("subject-2")
    assert load_keys(clinic.folder, with_blocks).recipients.subjects() == ("subject-1",)


@pytest.mark.parametrize("name", ["acknowledgement.key", "receipt.key"])
def test_a_clinic_without_a_signing_key_does_not_start(with_blocks: Store, clinic: Clinic, name: str) -> None:
    path = clinic.folder.path / name
    path.unlink()
    with pytest.raises(ClinicError, match=rf"{name} is missing.*restore"):
        load_keys(clinic.folder, with_blocks)
    assert not path.exists()


@pytest.mark.sqlite_only
def test_dev_says_what_is_missing_in_one_line_and_receives_nothing(with_blocks: Store, clinic: Clinic) -> None:
    shutil.rmtree(clinic.folder.keys)
    process = start_dev(clinic.folder.path, "--port", "0", "--watch-stdin")
    _, error = process.communicate(timeout=START_LIMIT_S)
    assert process.returncode == 1
    assert error.decode().count("\n") == 1
    assert "the private keys of subject-1, subject-2 are missing" in error.decode()
    assert not clinic.folder.endpoints.exists()

"""`pulsegate-cloud` about keys, as an operator uses it: register a hub, back the keys up, restore them, erase a subject."""

import shutil
from pathlib import Path

import pytest

from cloud.cli import main
from sync.registration import Registration
from sync.signing import SigningKey, Use

SUBJECT = "subject-1"


@pytest.fixture
def data(tmp_path: Path) -> str:
    """The folder of a clinic that has registered hub-1 for a subject."""
    SigningKey.generate(Use.DEVICE).public.save(tmp_path / "device.pub")
    assert main(["register", "--data", str(tmp_path / "clinic"), *registration_options(tmp_path)]) == 0
    return str(tmp_path / "clinic")


def registration_options(folder: Path) -> list[str]:
    hub_key, out = str(folder / "device.pub"), str(folder / "registration.toml")
    return ["--hub", "hub-1", "--hub-key", hub_key, "--subject", SUBJECT, "--out", out]


def key_files(data: str) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in Path(data).rglob("*.key")}


def test_register_writes_what_the_hub_needs(tmp_path: Path, data: str) -> None:
    assert list(Registration.load(tmp_path / "registration.toml", "hub-1").recipients) == [SUBJECT]


def test_a_backup_brings_back_the_keys_of_a_lost_folder(tmp_path: Path, data: str) -> None:
    private, public, out = (str(tmp_path / name) for name in ("recovery.key", "recovery.pub", "backups"))
    before = key_files(data)
    assert main(["create-recovery-key", "--private", private, "--public", public]) == 0
    assert main(["backup-keys", "--data", data, "--recovery", public, "--out", out]) == 0
    (backup,) = Path(out).iterdir()
    new = str(tmp_path / "new")
    assert main(["restore-keys", "--data", new, "--recovery", private, str(backup)]) == 0
    assert key_files(new) == before
    assert len(before) == 5


def test_an_erased_subject_stays_erased_even_if_the_whole_key_store_is_restored(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public, out = (str(tmp_path / name) for name in ("recovery.key", "recovery.pub", "backups"))
    assert main(["create-recovery-key", "--private", private, "--public", public]) == 0
    assert main(["backup-keys", "--data", data, "--recovery", public, "--out", out]) == 0
    assert main(["erase", "--data", data, "--subject", SUBJECT]) == 0
    shutil.rmtree(Path(data) / "keys")
    (backup,) = Path(out).iterdir()
    assert main(["restore-keys", "--data", data, "--recovery", private, str(backup)]) == 0
    assert "restored the keys of 0 subjects; 1 were erased and are left out" in capsys.readouterr().out
    assert list(Path(data, "keys").rglob("*.key")) == []


def test_erase_destroys_the_keys_and_the_pseudonym_is_never_used_again(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["erase", "--data", data, "--subject", SUBJECT]) == 0
    assert "1 key pairs destroyed" in capsys.readouterr().out
    assert sorted(key_files(data)) == ["acknowledgement.key", "audit.key", "command.key", "receipt.key"]
    assert main(["erase", "--data", data, "--subject", SUBJECT]) == 0  # a command that was cut off can be repeated
    assert "there was no key: check the name" in capsys.readouterr().out
    assert main(["register", "--data", data, *registration_options(tmp_path)]) == 1
    assert capsys.readouterr().err == f"pulsegate-cloud: {SUBJECT} was erased: give the patient another pseudonym\n"


@pytest.mark.parametrize("subject", ["../hubs", "", "a/b"])
def test_erase_refuses_what_is_no_name_and_changes_nothing(data: str, subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["erase", "--data", data, "--subject", subject]) == 1
    assert "a subject has a name of 1 to 64 letters" in capsys.readouterr().err
    assert len(key_files(data)) == 5
    assert not list(Path(data).rglob("erased"))


def test_erase_creates_no_clinic_in_a_wrong_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["erase", "--data", str(tmp_path / "none"), "--subject", SUBJECT]) == 1
    assert "no clinic in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()

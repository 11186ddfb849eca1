"""The hub's registration file."""

from pathlib import Path

import pytest

from sync.recipients import RecipientKeyPair
from sync.registration import Registration, RegistrationError
from sync.signing import SigningKey, Use

REGISTRATION = Registration(
    hub="hub-1",
    site="main",
    acknowledgement=SigningKey.generate(Use.ACKNOWLEDGEMENT).public,
    receipt=SigningKey.generate(Use.RECEIPT).public,
    audit=SigningKey.generate(Use.AUDIT).public,
    backup_interval_h=24,
    registered_s=1_790_000_000,
    recipients={name: RecipientKeyPair.generate().public for name in ("patient-2", "patient-1")},
)


def saved(folder: Path) -> str:
    REGISTRATION.save(folder / "registration.toml")
    return (folder / "registration.toml").read_text()


def test_a_saved_file_is_read_back(tmp_path: Path) -> None:
    saved(tmp_path)

    read = Registration.load(tmp_path / "registration.toml", "hub-1")

    assert (read.hub, read.site, read.backup_interval_h, read.registered_s) == ("hub-1", "main", 24, 1_790_000_000)
    assert read.acknowledgement.to_bytes() == REGISTRATION.acknowledgement.to_bytes()
    assert (read.receipt.to_bytes(), read.receipt.use) == (REGISTRATION.receipt.to_bytes(), Use.RECEIPT)
    assert {name: key.to_bytes() for name, key in read.recipients.items()} == {
        name: key.to_bytes() for name, key in REGISTRATION.recipients.items()
    }


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("version = 2", "version = 1", "version must be 2"),
        ('site = "main"', 'site = "a/b"', "site must be a name"),
        ("backup_interval_h = 24", "backup_interval_h = 0", "backup_interval_h must be hours"),
        ("registered = 2026-09-21T14:13:20Z", "registered = 2026-09-21T14:13:20", "registered must be a time with a zone"),
        ('acknowledgement_key = "04', 'acknowledgement_key = "05', "acknowledgement_key must be a public key"),
        ('audit_key = "04', 'audit_key = "05', "audit_key must be a public key"),
        ('receipt_key = "04', 'receipt_key = "zz', "receipt_key must be a public key"),
        ('recipient = "', 'recipient = "00', "recipient must be a public key"),
        ('name = "patient-1"', 'name = "patient-2"', "different names"),
        ("[[subject]]", "[[other]]", "at least one"),
        ("version", "=", "not valid TOML"),
    ],
)
def test_a_damaged_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = saved(tmp_path)
    assert old in text
    (tmp_path / "registration.toml").write_text(text.replace(old, new))

    with pytest.raises(RegistrationError, match=says):
        Registration.load(tmp_path / "registration.toml", "hub-1")


def test_the_file_of_another_hub_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(RegistrationError, match="is for hub hub-1, not hub-2"):
        Registration.load(tmp_path / "registration.toml", "hub-2")


def test_a_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="pulsegate-cloud register"):
        Registration.load(tmp_path / "registration.toml", "hub-1")

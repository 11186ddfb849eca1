"""Loads the private keys of a clinic. One whose keys are missing does not start: it would take in what it cannot open."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_migration import migrate_keys
from cloud.key_store import KeyStore
from cloud.signing_keys import SigningKeys
from cloud.store import Store, tables

MAX_NAMED: Final = 5
"""Subjects that the error names."""


@dataclass(frozen=True, slots=True)
class ClinicKeys:
    """The keys that sign, and the recipients that unwrap data keys."""

    signing: SigningKeys
    recipients: KeyStore


def load_keys(folder: ClinicFolder, store: Store) -> ClinicKeys:
    """Load the keys that belong to a store; create the signing keys at the first start. The caller holds the folder's lock.

    Data keys of format 1 are wrapped again first.

    Raises:
        ClinicError: private keys are missing, or a file cannot be written. The message says which, and how to restore them.
        KeyFileError: a key file is damaged, accessible to other users, or cannot be written.
        TransientError, PermanentError: the store failed.
    """
    recipients = KeyStore(folder.keys)
    migrate_keys(folder, store, recipients)
    check_recipients(store, recipients)
    return ClinicKeys(folder.load_or_create_signing_keys(), recipients)


def check_recipients(store: Store, key_store: KeyStore) -> None:
    """Check that the data key of every block is wrapped for a recipient whose private key is there, erased subjects excepted.

    Raises:
        ClinicError: private keys are missing. The message says whose, and how to restore them.
        KeyFileError: a key file is damaged, or accessible to other users.
        TransientError, PermanentError: the store cannot be read.
    """
    missing = _list_missing(store, key_store)
    if missing:
        names = ", ".join(missing[:MAX_NAMED]) + (f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else "")
        raise ClinicError(
            f"the private keys of {names} are missing, so their blocks cannot be opened: restore them with "
            "pulsegate-cloud restore-keys, or erase a subject with pulsegate-cloud erase"
        )


def _list_missing(store: Store, key_store: KeyStore) -> list[str]:
    """Return the subjects of blocks whose key is wrapped, but for no recipient of the key store."""
    wrapped, blocks, erased = tables.wrapped_keys.c, tables.blocks.c, tables.erased.c
    with store.transaction() as connection:
        recipients = connection.scalars(select(wrapped.recipient).distinct()).all()
        held = [recipient for recipient in recipients if key_store.recipient(recipient) is not None]
        if len(held) == len(recipients):
            return []
        is_wrapped = select(wrapped.id).where(wrapped.hub == blocks.hub, wrapped.id == blocks.key)
        is_usable = is_wrapped.where(wrapped.recipient.in_(held))
        query = select(blocks.subject).distinct().where(is_wrapped.exists(), ~is_usable.exists())
        subjects = set(connection.scalars(query)) - set(connection.scalars(select(erased.subject)))
    return sorted(subjects - key_store.erased())

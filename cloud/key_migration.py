"""Wraps the data keys of format 1 again, each for its subject's recipient, and then destroys the clinic's one key pair."""

import logging
from typing import Final

from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.store import Store
from config.files import destroy_file
from sync.data_keys import DataKeyError
from sync.format_1.blocks import ClinicKeyPair1
from sync.format_1.rewrapped_keys import wrap_again

_log: Final = logging.getLogger(__name__)


def migrate_keys(folder: ClinicFolder, store: Store, key_store: KeyStore) -> None:
    """If the clinic has a key pair of format 1, wrap all data keys again and destroy the pair. A crash in between does no harm.

    The caller holds the folder's lock. A key that the pair cannot unwrap stays as it is: no other pair ever could.

    Raises:
        KeyFileError: a key file is damaged, accessible to other users, or cannot be written.
        TransientError, PermanentError: the store failed; the pair is still there.
        ClinicError: a file cannot be written or deleted.
    """
    if not folder.key_1.exists():
        return
    n_wrapped = rewrap_keys(store, key_store, ClinicKeyPair1.load(folder.key_1))
    try:
        destroy_file(folder.key_1)
        folder.public_key_1.unlink(missing_ok=True)
    except OSError as error:
        raise ClinicError(f"cannot destroy {folder.key_1} ({error.strerror}): check the folder {folder.path}") from error
    n_unusable = len({(hub, id_) for hub, id_, _ in store.keys_1()})
    text = "wrapped %d data keys of format 1 again, for one recipient a patient, and destroyed %s; it did not fit %d keys"
    _log.warning(text, n_wrapped, folder.key_1, n_unusable)


def rewrap_keys(store: Store, key_store: KeyStore, pair: ClinicKeyPair1) -> int:
    """Wrap data keys of format 1 for the recipients of their subjects; returns how many the pair could unwrap.

    A subject without a recipient gets one. A key comes with each subject of its blocks, of which only one is right.

    Raises:
        KeyFileError, ClinicError: a key file is damaged, or cannot be written.
        TransientError, PermanentError: the store failed.
    """
    n = 0
    for hub, id_, subject in store.keys_1():
        old = store.key_1(hub, id_)
        if old is None or subject is None or subject in key_store.erased():
            continue  # wrapped again already, or no block needs it
        try:
            key = pair.unwrap(old, key_id=id_, hub=hub, subject=subject)
        except DataKeyError:
            continue
        recipient = key_store.public(subject) or key_store.create(subject)
        store.add_wrapped(hub, wrap_again(key, hub=hub, subject=subject, recipient=recipient))
        n += 1
    return n

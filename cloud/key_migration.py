"""Wraps the data keys of format 1 again, each for its subject's recipient, and then destroys the clinic's one key pair."""

import logging
from itertools import groupby
from typing import Any, Final

from sqlalchemy import bindparam, select

from cloud import store_tables as tables
from cloud.databases import insert_into
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore, destroy_key_file
from cloud.store import Store
from sync.data_keys import DataKey, DataKeyError, WrappedKey
from sync.format_1.blocks import ClinicKeyPair1
from sync.format_1.rewrapped_keys import wrap_again

_log: Final = logging.getLogger(__name__)


def migrate_keys(folder: ClinicFolder, store: Store, key_store: KeyStore) -> None:
    """If the clinic has a key pair of format 1, wrap all data keys again and destroy the pair. Repeat it after a crash.

    The caller holds the folder's lock. Keys that the pair cannot unwrap stay as they are: they are logged.

    Raises:
        KeyFileError: a key file is damaged, accessible to other users, or cannot be written.
        TransientError, PermanentError: the store failed; the pair is still there.
        ClinicError: a file cannot be written or deleted.
    """
    if not folder.key_1.exists():
        return
    n_wrapped, n_unusable = rewrap_keys(store, key_store, ClinicKeyPair1.load(folder.key_1))
    try:
        destroy_key_file(folder.key_1)
        folder.public_key_1.unlink(missing_ok=True)
    except OSError as error:
        raise ClinicError(f"cannot destroy {folder.key_1} ({error.strerror}): check the folder {folder.path}") from error
    _log.warning(
        "wrapped %d data keys again, one recipient for each patient, and destroyed %s; %d could not be unwrapped with it",
        n_wrapped,
        folder.key_1,
        n_unusable,
    )


def rewrap_keys(store: Store, key_store: KeyStore, pair: ClinicKeyPair1) -> tuple[int, int]:
    """Wrap the data keys of format 1 for the recipients of their subjects, in one transaction.

    Returns how many were wrapped, and how many the pair cannot unwrap. A subject without a recipient gets one.

    Raises:
        KeyFileError, ClinicError: a key file is damaged, or cannot be written.
        TransientError, PermanentError: the store failed; nothing was changed.
    """
    wrapped: list[dict[str, Any]] = []
    n_unusable = 0
    with store.transaction() as connection:
        keys, blocks = tables.keys_1.c, tables.blocks.c
        is_key_of_block = (blocks.hub == keys.hub) & (blocks.key == keys.id)
        query = select(keys.hub, keys.id, keys.wrapped, blocks.subject).outerjoin_from(
            tables.keys_1, tables.blocks, is_key_of_block
        )
        rows = connection.execute(query.distinct().order_by(keys.hub, keys.id)).all()
        for (hub, _), found in groupby(rows, key=lambda row: (row.hub, row.id)):
            key = _rewrap_key(list(found), key_store, pair)
            if key is None:
                n_unusable += 1
            else:
                wrapped.append({"hub": hub, **key._asdict()})
        if wrapped:
            insert = insert_into(tables.wrapped_keys, connection.dialect.name)
            connection.execute(insert.on_conflict_do_nothing(), wrapped)
            delete = tables.keys_1.delete().where(keys.hub == bindparam("of_hub"), keys.id == bindparam("key_id"))
            connection.execute(delete, [{"of_hub": row["hub"], "key_id": row["id"]} for row in wrapped])
    return len(wrapped), n_unusable


def _rewrap_key(rows: list[Any], key_store: KeyStore, pair: ClinicKeyPair1) -> WrappedKey | None:
    """Wrap one data key again; `rows` has it with each subject of its blocks, of which one is right."""
    for hub, id_, wrapped, subject in rows:
        key = _unwrap(wrapped, id_, hub, subject, pair) if subject is not None else None
        if key is not None:
            recipient = key_store.public(subject) or key_store.create(subject)
            return wrap_again(key, hub=hub, subject=subject, recipient=recipient)
    return None


def _unwrap(wrapped: bytes, id_: bytes, hub: str, subject: str, pair: ClinicKeyPair1) -> DataKey | None:
    try:
        return pair.unwrap(wrapped, key_id=id_, hub=hub, subject=subject)
    except DataKeyError:
        return None

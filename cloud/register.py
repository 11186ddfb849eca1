"""Registers a hub for a subject, and erases a subject: what the operator does by hand and by file."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from cloud import tables
from cloud.audit_actors import service
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.registry import RegisteredHub, hub_file, load_hub, save_hub
from cloud.signing_keys import SigningKeys
from cloud.site_name import SITE
from cloud.store import Store
from sync.audit import Actor
from sync.registration import Registration
from sync.signing import Use, VerifyingKey
from sync.wire import is_name

BACKUP_INTERVAL_H: Final = 24
"""How often the clinic is expected to back its store up, unless the operator says otherwise. Hubs keep what is acknowledged for
at least this time, so that they can send again what a restored store has lost."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """Which hub (name and file of its device's public key) shall seal for which subject, from when on."""

    hub: str
    hub_key: Path
    subject: str
    from_s: int | None
    backup_interval_h: int

    def check_names(self) -> None:
        """Raise ClinicError if the hub or the subject has no valid name."""
        if not (is_name(self.hub) and is_name(self.subject)):
            raise ClinicError(
                "a hub and a subject have names of 1 to 64 letters, digits, '.', '_' and '-': correct the options"
            )


def register_hub(folder: ClinicFolder, request: RegistrationRequest, now_s: int) -> Registration:
    """Register a hub at the clinic; returns what the hub must know. The first registration creates the clinic's keys.

    Raises:
        ClinicError: a name is not valid, the hub is registered with another key, or a file cannot be written.
        KeyFileError: a key file is missing, damaged, or accessible to other users.
    """
    request.check_names()
    device = VerifyingKey.load(request.hub_key, Use.DEVICE)
    folder.create()
    signing = folder.load_or_create_signing_keys()
    hub = _find_or_begin(folder, request.hub, device).assign(request.subject, request.from_s or now_s)
    keys = KeyStore(folder.keys)
    if keys.public(request.subject) is None:
        keys.create(request.subject)
    save_hub(folder.hubs, hub)
    return _describe(hub, keys, signing, request.backup_interval_h, now_s)


def erase_subject(subject: str, keys: KeyStore, store: Store, projections: Engine, now_us: int, actor: Actor) -> int:
    """Erase a subject: its blocks, its key pairs and its opened data. Hubs are told to delete what they hold of it.

    Its blocks cannot be opened from any copy, since no key is left; returns the number of destroyed pairs. If a later step
    fails, the command can be repeated, and the next start of the clinic repeats it (`repeat_erasures`).

    Raises:
        ClinicError, TransientError, PermanentError: keys or a database could not be changed.
    """
    n = keys.destroy(subject)
    tables.erase_subject(projections, subject)
    store.erase(subject, now_us, actor)
    return n


def repeat_erasures(keys: KeyStore, store: Store, projections: Engine, now_us: int) -> tuple[str, ...]:
    """Erase the subjects that the key store notes as erased and the store does not; returns them.

    The erasure was interrupted, or the store is a backup from before it.

    Raises:
        ClinicError, TransientError, PermanentError: keys or a database could not be changed.
    """
    subjects = tuple(sorted(keys.erased() - store.erased_subjects()))
    for subject in subjects:
        erase_subject(subject, keys, store, projections, now_us, service("clinic"))
        _log.warning("erased %s again: the erasure was interrupted, or the store was restored from a backup before it", subject)
    return subjects


def _find_or_begin(folder: ClinicFolder, name: str, device: VerifyingKey) -> RegisteredHub:
    path = hub_file(folder.hubs, name)
    if not path.exists():
        return RegisteredHub(name, device, ())
    known = load_hub(path)
    if known.device.to_bytes() != device.to_bytes():
        raise ClinicError(
            f"hub {name} is registered with another device key: give a new device a new hub name, "
            "since the blocks of the old one are verified with its key"
        )
    return known


def _describe(hub: RegisteredHub, keys: KeyStore, signing: SigningKeys, backup_interval_h: int, now_s: int) -> Registration:
    subjects = dict.fromkeys(assignment.subject for assignment in reversed(hub.assignments))
    recipients = {subject: public for subject in subjects if (public := keys.public(subject)) is not None}
    return Registration(
        hub=hub.hub,
        site=SITE,
        acknowledgement=signing.acknowledgement.public,
        receipt=signing.receipt.public,
        backup_interval_h=backup_interval_h,
        registered_s=now_s,
        recipients=recipients,
        audit=signing.audit.public,
    )

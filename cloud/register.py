"""Registers or enrols a hub for a subject, and erases a subject."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from cloud import projections_database
from cloud.audit_actors import service
from cloud.audit_log import AuditLog
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.registry import RegisteredHub, hub_file, load_hub, save_hub
from cloud.signing_keys import SigningKeys
from cloud.site_name import SITE
from cloud.store import Store
from sync.audit import OBJECTS_LIMIT, Action, Actor, AuditEvent, Category, Purpose, object_id
from sync.commands import load_command_key
from sync.recipients import RecipientPublicKey
from sync.registration import Registration
from sync.signing import Use, VerifyingKey
from sync.wire import is_name

BACKUP_INTERVAL_H: Final = 24
"""How often the clinic is expected to back its store up, unless the operator says otherwise. Hubs keep what is acknowledged for
at least this time, so that they can send again what a restored store has lost."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RegistrationRequest:
    """Which hub (name and file of its device's public key) shall seal for which subject, from when on.

    `command_key` is the file of the hub's public command key; without it the hub keeps the one that it has.
    """

    hub: str
    hub_key: Path
    subject: str
    from_s: int | None
    backup_interval_h: int
    command_key: Path | None = None

    def check_names(self) -> None:
        """Raise ClinicError if the hub or the subject has no valid name."""
        if not (is_name(self.hub) and is_name(self.subject)):
            raise ClinicError(
                "a hub and a subject have names of 1 to 64 letters, digits, '.', '_' and '-': correct the options"
            )


@dataclass(frozen=True, slots=True)
class HubPublicKeys:
    """What an enrolling hub signs with, and what commands to it are sealed for."""

    device: VerifyingKey
    command: RecipientPublicKey


def register_hub(folder: ClinicFolder, request: RegistrationRequest, now_s: int) -> Registration:
    """Register a hub at the clinic; returns what the hub must know. The first registration creates the clinic's keys.

    Raises:
        ClinicError: a name is not valid, the hub is registered with another key, or a file cannot be written.
        KeyFileError: a key file is missing, damaged, or accessible to other users.
    """
    request.check_names()
    device = VerifyingKey.load(request.hub_key, Use.DEVICE)
    hub = _find_or_begin(folder, request.hub, device)
    if hub.device != device:
        raise ClinicError(
            f"hub {request.hub} is registered with another device key: invite it to enrol anew (pulsegate-cloud invite), "
            "or give the new device a new hub name"
        )
    hub = hub.assign(request.subject, request.from_s or now_s)
    if request.command_key is not None:
        hub = replace(hub, command_key=load_command_key(request.command_key))
    return _save(folder, hub, request.subject, request.backup_interval_h, now_s)


def enrol_hub(folder: ClinicFolder, name: str, keys: HubPublicKeys, subject: str, now_s: int) -> Registration:
    """Register a hub that was invited; a device key that it had before is kept as a former one. Repeating it changes nothing.

    Raises:
        ClinicError: the subject was erased, or a file cannot be written.
        KeyFileError: a key file is missing, damaged, or accessible to other users.
    """
    hub = _find_or_begin(folder, name, keys.device).with_device(keys.device, now_s).assign(subject, now_s)
    hub = replace(hub, command_key=keys.command)
    return _save(folder, hub, subject, BACKUP_INTERVAL_H, now_s)


def describe_hub(folder: ClinicFolder, name: str, now_s: int) -> tuple[str, Registration]:
    """Return a registered hub's present subject, and what the hub must know now.

    Raises:
        ClinicError: the hub is not registered, or its file is damaged.
        KeyFileError: a key file is missing, damaged, or accessible to other users.
    """
    hub = load_hub(hub_file(folder.hubs, name))
    if not hub.assignments:
        raise ClinicError(f"hub {name} is assigned to no subject: invite it, or register it")
    registration = _describe(hub, KeyStore(folder.keys), folder.load_or_create_signing_keys(), BACKUP_INTERVAL_H, now_s)
    return hub.assignments[-1].subject, registration


def erase_subject(subject: str, keys: KeyStore, store: Store, projections: Engine, now_us: int, actor: Actor) -> int:
    """Erase a subject: its blocks, its key pairs and its opened data. Hubs are told to delete what they hold of it.

    Its blocks cannot be opened from any copy, since no key is left; returns the number of destroyed pairs. If a later step
    fails, the command can be repeated, and the next start of the clinic repeats it (`repeat_erasures`). The audit log names the
    destroyed pairs, then the number of deleted blocks, then each hub that has destroyed its keys (`cloud.statuses`).

    Raises:
        ClinicError, TransientError, PermanentError: keys or a database could not be changed.
    """
    recipients = keys.fingerprints(subject)
    objects = tuple(object_id("recipient", recipient) for recipient in recipients[-OBJECTS_LIMIT:])
    destroyed = AuditEvent(actor, Action.DESTROY_KEY, Category.KEYS, subject, objects, Purpose.SUBJECT_REQUEST)
    with AuditLog(store, lambda: now_us).logging(*[destroyed][: len(recipients)]):
        n = keys.destroy(subject)
    projections_database.erase_subject(projections, subject)
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
    return load_hub(path) if path.exists() else RegisteredHub(name, device, ())


def _save(folder: ClinicFolder, hub: RegisteredHub, subject: str, backup_interval_h: int, now_s: int) -> Registration:
    folder.create()
    signing = folder.load_or_create_signing_keys()
    keys = KeyStore(folder.keys)
    if keys.public(subject) is None:
        keys.create(subject)
    save_hub(folder.hubs, hub)
    return _describe(hub, keys, signing, backup_interval_h, now_s)


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
        command=signing.command.public,
    )

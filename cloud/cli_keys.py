"""The operator's commands about keys: register a hub, back keys up and restore them, erase a subject."""

import argparse
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cloud.audit_actors import operator
from cloud.audit_log import logging_in
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_backup import BACKUP_SUFFIX, create_recovery_key, delete_expired, restore_backup, write_backup
from cloud.key_store import KeyStore
from cloud.projections_database import open_projections
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, erase_subject, register_hub
from cloud.registry import Registry, end_assignments, format_time
from cloud.store import Store
from cloud.store.erasure import list_erasures
from cloud.store.holds import refuse_held
from cloud.subjects import check_consents, check_name, opened_store
from config.argument_types import parse_time
from sync.audit import Action, AuditEvent, Category, object_id
from sync.registration import MAX_BACKUP_INTERVAL_H

AddCommand = Callable[..., argparse.ArgumentParser]
AddOptions = Callable[[argparse.ArgumentParser], None]

_BACKUP_NAME: Final = "%Y-%m-%dT%H%M%SZ"


def add_key_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the commands to the parser. All but `create-recovery-key` write to the audit log, which is in the clinic's store."""
    register = add_command("register", "register a hub for a subject, and write the registration file that the hub needs")
    add_data_options(register)
    _add_register_options(register)
    register.set_defaults(run=lambda options: _run_register(folder_of(options), options))

    rotate = add_command("rotate-key", "give a subject a new key pair; its hubs wrap for it after their next renewal")
    add_data_options(rotate)
    rotate.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym")
    rotate.set_defaults(run=lambda options: _run_rotate(folder_of(options), options.subject))

    erase = add_command("erase", "erase a subject for ever: destroy its keys, and delete its blocks and its decrypted data")
    add_data_options(erase)
    erase.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym; it is never used again")
    erase.set_defaults(run=lambda options: _run_erase(folder_of(options), options.subject))

    erasures = add_command("erasures", "list the erased subjects, and which of their hubs have destroyed their keys")
    add_data_options(erasures)
    erasures.set_defaults(run=lambda options: _run_erasures(folder_of(options)))

    recovery = add_command("create-recovery-key", "create the key pair by which backups of the keys are encrypted and restored")
    recovery.add_argument(
        "--private", type=Path, required=True, metavar="FILE", help="new file on a medium that you keep offline"
    )
    recovery.add_argument("--public", type=Path, required=True, metavar="FILE", help="new file for backup-keys")
    recovery.set_defaults(run=lambda options: _run_create_recovery_key(options.private, options.public))

    backup = add_command("backup-keys", "write an encrypted backup of all keys, which can be restored for 30 days")
    add_data_options(backup)
    backup.add_argument("--recovery", type=Path, required=True, metavar="FILE", help="the recovery public key")
    backup.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the backups; expired ones in it are deleted"
    )
    backup.set_defaults(run=lambda options: _run_backup(folder_of(options), options.recovery, options.out))

    restore = add_command("restore-keys", "bring back the keys of a backup that are missing, except those of erased subjects")
    add_data_options(restore)
    restore.add_argument("--recovery", type=Path, required=True, metavar="FILE", help="the recovery private key")
    restore.add_argument("backup", type=Path, metavar="BACKUP", help="the file that backup-keys wrote")
    restore.set_defaults(run=lambda options: _run_restore(folder_of(options), options.recovery, options.backup))


def _add_register_options(register: argparse.ArgumentParser) -> None:
    register.add_argument("--hub", required=True, metavar="NAME", help="the hub's name: `hub` in its settings")
    register.add_argument(
        "--hub-key", type=Path, required=True, metavar="FILE", help="the hub's device.pub, which pulsegate identity names"
    )
    register.add_argument(
        "--command-key",
        type=Path,
        metavar="FILE",
        help="the hub's command.pub, which lies beside it; without it the hub can be sent no commands",
    )
    register.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym: `subject` in its settings")
    register.add_argument(
        "--from",
        dest="from_s",
        type=_parse_seconds,
        metavar="TIME",
        help="when the hub goes to this patient, such as 2026-11-30T08:00:00Z (default: now)",
    )
    register.add_argument(
        "--backup-hours",
        type=_parse_hours,
        default=BACKUP_INTERVAL_H,
        metavar="N",
        help="interval of your backups of the store: hubs keep what is acknowledged at least so long (default: %(default)s)",
    )
    register.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the registration file to write, and to bring to the hub"
    )


def _run_register(folder: ClinicFolder, options: argparse.Namespace) -> int:
    request = RegistrationRequest(
        options.hub, options.hub_key, options.subject, options.from_s, options.backup_hours, options.command_key
    )
    request.check_names()
    folder.create()
    check_consents(folder, request.subject)
    objects = (object_id("hub", request.hub),)
    events = [AuditEvent(operator(), Action.REGISTER, Category.REGISTRATION, request.subject, objects)]
    if KeyStore(folder.keys).public(request.subject) is None:
        events.append(AuditEvent(operator(), Action.CREATE_KEY, Category.KEYS, request.subject))
    with logging_in(folder, *events):
        registration = register_hub(folder, request, int(time.time()))
    with _reporting_os_errors("the registration", options.out):
        registration.save(options.out)
    _print(f"registered hub {options.hub} for {options.subject}: bring {options.out} to the hub")
    return 0


def _run_rotate(folder: ClinicFolder, subject: str) -> int:
    keys = KeyStore(folder.keys)
    if keys.public(subject) is None:
        raise ClinicError(f"{subject} has no key pair: check the name; register or invite a hub for the subject first")
    with logging_in(folder, AuditEvent(operator(), Action.CREATE_KEY, Category.KEYS, subject)):
        public = keys.create(subject)
    _print(f"{subject} has the new key pair {public.fingerprint.hex()}; the earlier one stays for what is wrapped for it")
    _print("its hubs use the new one after their next renewal, at once after pulsegate renew, or by a new registration file")
    return 0


def _run_erase(folder: ClinicFolder, subject: str) -> int:
    check_name(subject)
    if not folder.path.is_dir():
        raise ClinicError(f"no clinic in {folder.path}: give the folder that pulsegate-cloud dev was started with")
    with contextlib.closing(Store.open(folder.blocks)) as store:
        refuse_held(store, subject, operator(), time.time_ns() // 1000)
        engine = open_projections(folder.projections)
        try:
            n = erase_subject(subject, KeyStore(folder.keys), store, engine, time.time_ns() // 1000, operator())
        finally:
            engine.dispose()
    if n == 0:
        _print(f"erased {subject}, of whom there was no key: check the name, or that it was erased before")
    else:
        _print(f"erased {subject}: {n} key pairs destroyed; backups of the keys hold them until they expire")
    for hub in end_assignments(folder.hubs, subject, int(time.time())):
        _print(f"hub {hub} is assigned to no subject now")
    _print("each of its hubs confirms when it next sends: see pulsegate-cloud erasures")
    return 0


def _run_erasures(folder: ClinicFolder) -> int:
    registry = Registry(folder.hubs, time.monotonic)
    with opened_store(folder) as store, store.transaction() as connection:
        erasures = list_erasures(connection)
    for subject, (at_us, confirmed) in sorted(erasures.items()):
        _print(f"{subject} was erased {format_time(at_us // 1_000_000)}")
        assigned = {hub for hub in registry.hubs() if subject in {found.subject for found in registry.assignments(hub)}}
        for hub in sorted(assigned | confirmed.keys()):
            since = f"destroyed its keys, as it said {format_time(confirmed[hub] // 1_000_000)}" if hub in confirmed else ""
            _print(f"  hub {hub} {since or 'has not confirmed it: if it never returns, destroy its storage'}")
    return 0


def _run_create_recovery_key(private: Path, public: Path) -> int:
    with _reporting_os_errors("the recovery key", public):
        create_recovery_key(private, public)
    _print(f"keep {private} offline: with it and a backup, all keys can be restored")
    return 0


def _run_backup(folder: ClinicFolder, recovery: Path, out: Path) -> int:
    now_s = int(time.time())
    path = out / f"{datetime.fromtimestamp(now_s, UTC).strftime(_BACKUP_NAME)}{BACKUP_SUFFIX}"
    event = AuditEvent(operator(), Action.BACK_UP_KEYS, Category.KEYS, objects=(object_id("file", path.name),))
    with logging_in(folder, event), _reporting_os_errors("the backup", path):
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_backup(path, KeyStore(folder.keys), folder.load_or_create_signing_keys(), recovery, now_s)
        n = delete_expired(out, now_s)
    _print(f"wrote {path}; {n} expired backups deleted")
    return 0


def _run_restore(folder: ClinicFolder, recovery: Path, backup: Path) -> int:
    folder.create()
    keys = KeyStore(folder.keys)
    _note_erased(folder, keys)
    event = AuditEvent(operator(), Action.RESTORE_KEYS, Category.KEYS, objects=(_describe_backup(backup),))
    with logging_in(folder, event):
        restored = restore_backup(backup, folder.path, keys, recovery, now_s=int(time.time()))
    _print(f"restored the keys of {restored.subjects} subjects; {restored.erased} were erased and are left out")
    return 0


def _describe_backup(backup: Path) -> str:
    """Return how the audit log names a backup: by the name that `backup-keys` gave it. A person may have chosen any other."""
    try:
        datetime.strptime(backup.name, f"{_BACKUP_NAME}{BACKUP_SUFFIX}").replace(tzinfo=UTC)
    except ValueError:
        return object_id("file", f"sha256-{hashlib.sha256(backup.name.encode()).hexdigest()[:16]}")
    return object_id("file", backup.name)


def _note_erased(folder: ClinicFolder, keys: KeyStore) -> None:
    """Note whom the store knows as erased: the notes may have been lost with the keys, and no backup may bring those back."""
    if isinstance(folder.blocks, Path) and not folder.blocks.exists():
        return
    with contextlib.closing(Store.open(folder.blocks)) as store:
        for subject in sorted(store.erased_subjects() - keys.erased()):
            keys.destroy(subject)


def folder_of(options: argparse.Namespace) -> ClinicFolder:
    """Return the clinic that the options of `add_data_options` name."""
    return ClinicFolder(options.data, options.store, options.projections)


@contextlib.contextmanager
def _reporting_os_errors(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ClinicError(f"cannot write {what} {path} ({error.strerror}): choose a folder that you can write to") from error


def _parse_seconds(text: str) -> int:
    return int(parse_time(text).timestamp())


def _parse_hours(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BACKUP_INTERVAL_H:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours from 1 to {MAX_BACKUP_INTERVAL_H}")
    return int(text)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")

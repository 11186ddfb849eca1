"""The operator's commands about persons: give one a certificate to look at the page, list them, and revoke it."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from cloud.audit_actors import operator
from cloud.audit_log import logging_in
from cloud.cli_keys import folder_of
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.site import Authority, Kind
from cloud.staff_files import make_password, make_pkcs12, read_request
from config.files import replacing
from sync.audit import Action, AuditEvent, Category, object_id
from sync.key_files import create_secret_file

AddCommand = Callable[..., argparse.ArgumentParser]
AddOptions = Callable[[argparse.ArgumentParser], None]


def add_user_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the commands to the parser of `pulsegate-cloud user`."""

    def add(name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = add_command(name, summary)
        add_data_options(command)
        command.set_defaults(run=run)
        return command

    new = add("add", "give a person a certificate to look at the page, for 90 days; again for a renewal", _run_add)
    new.add_argument("name", metavar="NAME", help="the person's user name, as the audit log shows it")
    new.add_argument("--out", type=Path, required=True, metavar="FILE", help="new file: PKCS#12, or PEM with --csr")
    new.add_argument(
        "--csr", type=Path, metavar="FILE", help="certificate request of a key that the person keeps; its name is not used"
    )
    add("list", "list all persons, and until when they may look", _run_list)
    revoke = add("revoke", "refuse all certificates of a person from now on; open pages end within a minute", _run_revoke)
    revoke.add_argument("name", metavar="NAME", help="whose certificates, or the serial number of one, as list shows it")


def _run_add(options: argparse.Namespace) -> int:
    authority = _load(options)
    try:
        _check_new(options.out)
        if options.csr is not None:
            _sign_request(authority, options)
        else:
            _make_key(authority, options)
    except OSError as error:
        raise ClinicError(f"cannot use {error.filename} ({error.strerror}): check the path") from error
    return 0


def _check_new(path: Path) -> None:
    """Raise ClinicError if a file cannot be created here: a certificate that nobody gets must not be issued."""
    if path.exists():
        raise ClinicError(f"{path} exists: give the path of a new file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ClinicError(f"cannot write to {path.parent}: give the path of a new file in a folder that you may write to")


def _sign_request(authority: Authority, options: argparse.Namespace) -> None:
    key = read_request(options.csr.read_bytes())
    with _logging(options, Action.ISSUE_CERTIFICATE):
        chain = authority.issue_staff(options.name, key, _now_s())
    with replacing(options.out) as draft:
        draft.write_bytes(chain)
    _print(f"wrote the certificate of {options.name} to {options.out}: it is valid for 90 days")


def _make_key(authority: Authority, options: argparse.Namespace) -> None:
    key, password = ec.generate_private_key(ec.SECP256R1()), make_password()
    with _logging(options, Action.ISSUE_CERTIFICATE):
        chain = authority.issue_staff(options.name, key.public_key(), _now_s())
    create_secret_file(options.out, make_pkcs12(options.name, key, chain, password))
    _print(f"wrote key and certificate of {options.name} to {options.out}: they are valid for 90 days")
    _print(f"password of the file: {password}")
    _print("It is shown only now. Give file and password to the person on two different ways, then delete the file.")


def _run_list(options: argparse.Namespace) -> int:
    now_s = _now_s()
    for one in _load(options).list_issued(Kind.STAFF):
        until = datetime.fromtimestamp(one.expires_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
        state = "revoked" if one.revoked_s is not None else "expired" if one.expires_s <= now_s else "valid"
        _print(f"{one.name}  {state:7}  until {until}  {one.serial:x}")
    return 0


def _run_revoke(options: argparse.Namespace) -> int:
    authority = _load(options)
    with _logging(options, Action.REVOKE):
        n = authority.revoke(Kind.STAFF, options.name, _now_s())
    _print(f"revoked {n} certificates of {options.name}: the page refuses them, and open pages end within a minute")
    return 0


def _logging(options: argparse.Namespace, action: Action) -> AbstractContextManager[None]:
    objects = (object_id(Kind.STAFF, options.name),)
    return logging_in(folder_of(options), AuditEvent(operator(), action, Category.CERTIFICATES, None, objects))


def _load(options: argparse.Namespace) -> Authority:
    return Authority.load(ClinicFolder(options.data).site)


def _now_s() -> int:
    return int(time.time())


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")

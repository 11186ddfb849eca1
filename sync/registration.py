"""The hub's registration file: which clinic it trusts, and for whom it seals. The operator brings it from the clinic.

It holds no secret. `pulsegate-cloud register` writes it.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from config.files import replacing
from sync.errors import PermanentError
from sync.key_files import PUBLIC_MODE
from sync.recipients import RecipientPublicKey
from sync.signing import Use, VerifyingKey
from sync.wire import FORMAT, is_name

MAX_BACKUP_INTERVAL_H: Final = 24 * 365
"""A longer interval between two backups of the clinic is a mistake in the file."""
_HEADING: Final = "# Registration of a pulsegate hub at its clinic, written by pulsegate-cloud register. It holds no secret.\n"
T = TypeVar("T")


class RegistrationError(PermanentError):
    """The registration file is missing, damaged, or of another hub. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What the hub knows of its clinic.

    `site` is the clinic's name; `acknowledgement` and `receipt` verify its messages, `audit` the heads of its audit log,
    and `command` its commands (None: written by a clinic that had no such key).
    `recipients` are, for each subject of this hub, the key that data keys are wrapped for. The clinic backs its store up every
    `backup_interval_h` hours, and wrote the file at `registered_s` (seconds since 1970): a hub clock that shows an earlier time
    is wrong.
    """

    hub: str
    site: str
    acknowledgement: VerifyingKey
    receipt: VerifyingKey
    backup_interval_h: int
    registered_s: int
    recipients: Mapping[str, RecipientPublicKey]
    audit: VerifyingKey | None = None
    command: VerifyingKey | None = None

    @classmethod
    def load(cls, path: Path, hub: str) -> "Registration":
        """Read a file that `save` wrote.

        Raises:
            RegistrationError: the file is missing, damaged, of another version, or of another hub.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _not_toml(path, error) from error
        except OSError as error:
            raise RegistrationError(
                f"cannot read the registration {path}: {error.strerror}; register this hub: run pulsegate identity here, "
                "then pulsegate-cloud register at the clinic, and bring the file that it writes"
            ) from error
        return cls.parse(text, path, hub)

    @classmethod
    def parse(cls, text: str, path: Path, hub: str) -> "Registration":
        """Read the text of a registration; `path` names it in errors.

        Raises:
            RegistrationError: it is damaged, of another version, or of another hub.
        """
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _not_toml(path, error) from error
        registration = _Parser(path, table).parse()
        if registration.hub != hub:
            raise RegistrationError(
                f"the registration {path} is for hub {registration.hub}, not {hub}: bring the file of this hub, or set `hub`"
            )
        return registration

    def save(self, path: Path) -> None:
        """Write the file; a file of that name is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        with replacing(path, durable=True, mode=PUBLIC_MODE) as draft:
            draft.write_text(self.to_text(), encoding="utf-8")

    def to_text(self) -> str:
        """Return the content of the file."""
        lines = [
            f"version = {FORMAT}",
            f'hub = "{self.hub}"',
            f'site = "{self.site}"',
            f"registered = {datetime.fromtimestamp(self.registered_s, UTC):%Y-%m-%dT%H:%M:%SZ}",
            f"backup_interval_h = {self.backup_interval_h}",
            f'acknowledgement_key = "{self.acknowledgement.to_bytes().hex()}"',
            f'receipt_key = "{self.receipt.to_bytes().hex()}"',
        ]
        added = [key for key in (self.audit, self.command) if key is not None]
        lines += [f'{key.use}_key = "{key.to_bytes().hex()}"' for key in added]
        for subject, recipient in self.recipients.items():
            lines += ["", "[[subject]]", f'name = "{subject}"', f'recipient = "{recipient.to_bytes().hex()}"']
        return _HEADING + "\n".join(lines) + "\n"


def _not_toml(path: Path, error: ValueError) -> RegistrationError:
    return RegistrationError(f"the registration {path} is not valid TOML ({error}): copy it from the clinic again")


class _Parser:
    """Checks the fields of a registration's TOML table."""

    def __init__(self, path: Path, table: Mapping[str, Any]) -> None:
        self._path, self._table = path, table

    def parse(self) -> Registration:
        self._check("version", self._table.get("version") == FORMAT, f"{FORMAT}: update the older of hub and clinic")
        hours = self._table.get("backup_interval_h")
        is_valid = type(hours) is int and 1 <= hours <= MAX_BACKUP_INTERVAL_H
        self._check("backup_interval_h", is_valid, f"hours from 1 to {MAX_BACKUP_INTERVAL_H}")
        registered = self._table.get("registered")
        is_time = isinstance(registered, datetime) and registered.tzinfo is not None
        self._check("registered", is_time, "a time with a zone, such as 2026-11-30T08:00:00Z")
        return Registration(
            hub=self._name(self._table, "hub"),
            site=self._name(self._table, "site"),
            acknowledgement=self._key(
                self._table, "acknowledgement_key", lambda data: VerifyingKey.from_bytes(Use.ACKNOWLEDGEMENT, data)
            ),
            receipt=self._key(self._table, "receipt_key", lambda data: VerifyingKey.from_bytes(Use.RECEIPT, data)),
            backup_interval_h=cast("int", hours),
            registered_s=int(cast("datetime", registered).timestamp()),
            recipients=self._recipients(),
            audit=self._optional_key(Use.AUDIT),
            command=self._optional_key(Use.COMMAND),
        )

    def _optional_key(self, use: Use) -> VerifyingKey | None:
        name = f"{use}_key"
        if name not in self._table:
            return None
        return self._key(self._table, name, lambda data: VerifyingKey.from_bytes(use, data))

    def _recipients(self) -> dict[str, RecipientPublicKey]:
        subjects = self._table.get("subject")
        is_valid = isinstance(subjects, list) and subjects and all(isinstance(subject, dict) for subject in subjects)
        self._check("subject", bool(is_valid), "at least one [[subject]] table")
        recipients = {
            self._name(subject, "name"): self._key(subject, "recipient", RecipientPublicKey.from_bytes)
            for subject in subjects or ()
        }
        self._check("subject", len(recipients) == len(subjects or ()), "tables with different names")
        return recipients

    def _name(self, table: Mapping[str, Any], key: str) -> str:
        value = table.get(key)
        self._check(key, is_name(value), "a name of 1 to 64 letters, digits, '.', '_' and '-'")
        return str(value)

    def _key(self, table: Mapping[str, Any], key: str, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(bytes.fromhex(table[key]))
        except (KeyError, TypeError, ValueError) as error:
            raise self._error(key, "a public key in hexadecimal digits") from error

    def _check(self, key: str, is_valid: bool, allowed: str) -> None:
        if not is_valid:
            raise self._error(key, allowed)

    def _error(self, key: str, allowed: str) -> RegistrationError:
        return RegistrationError(
            f"the registration {self._path} is damaged: {key} must be {allowed}; copy it from the clinic again"
        )

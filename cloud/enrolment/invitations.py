"""Invitations: each admits one device once, within a day.

folder/DIGEST.json   for whom the invitation is, and until when; DIGEST is SHA-256 of the secret in hexadecimal digits
folder/DIGEST.end    how it ended: the public key of the device that used it, or that it was cancelled

The second file is created complete and never replaced, so of two that end an invitation at the same time one fails. The device
that used it may repeat its request: it may not have received the answer.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.errors import ClinicError
from sync.invitation import Invitation
from sync.key_files import KeyFileError, create_secret_file
from sync.signing import VerifyingKey

LIFE_S: Final = 24 * 3600
"""Long enough for a visit at the patient's home the next day, short for a code on a paper that lies about."""
ID_CHARACTERS: Final = 8
"""Digits of the digest that name an invitation in lists: a site never has so many open that two agree."""
_CANCELLED: Final = "cancelled"


class RefusedCodeError(ClinicError):
    """An invitation that admits no more: `reason` is `expired`, `used` or `cancelled`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the invitation is {reason}: invite the hub again")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StoredInvitation:
    """Which hub an invitation admits, and for which subject it seals; times in seconds since 1970.

    `end` is how it ended: the device's public key in hexadecimal digits, or `cancelled`; None while it is open.
    """

    digest: str
    hub: str
    subject: str
    created_s: int
    expires_s: int
    end: str | None

    @property
    def id(self) -> str:
        return self.digest[:ID_CHARACTERS]

    def state(self, now_s: int) -> str:
        """Return `open`, `used`, `cancelled` or `expired`."""
        if self.end is not None:
            return _CANCELLED if self.end == _CANCELLED else "used"
        return "open" if now_s < self.expires_s else "expired"


class Invitations:
    """The invitations in a folder. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, code: Invitation, hub: str, subject: str, now_s: int) -> StoredInvitation:
        """Store an invitation: the digest of its secret, not the secret.

        Raises:
            ClinicError: it cannot be written.
        """
        stored = StoredInvitation(_digest(code.secret), hub, subject, now_s, now_s + LIFE_S, None)
        content = {"hub": hub, "subject": subject, "created_s": stored.created_s, "expires_s": stored.expires_s}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            create_secret_file(self._path(stored.digest), json.dumps(content).encode())
        except (OSError, KeyFileError) as error:
            raise ClinicError(f"cannot write an invitation to {self._folder}: check the folder and the disk") from error
        return stored

    def find(self, secret: bytes) -> StoredInvitation | None:
        """Return the invitation with a secret; None if there is none."""
        digest = _digest(secret)
        return self._read(digest) if self._path(digest).exists() else None

    def list(self) -> "list[StoredInvitation]":
        """Return all invitations, oldest first."""
        found = [self._read(path.stem) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda invitation: (invitation.created_s, invitation.digest))

    def claim(self, invitation: StoredInvitation, device: VerifyingKey, now_s: int) -> None:
        """Use an invitation up for a device. The same device may repeat it until it expires: it may have missed the answer.

        Raises:
            RefusedCodeError: it has expired, was cancelled, or another device has used it.
            ClinicError: the use cannot be written.
        """
        if now_s >= invitation.expires_s:
            raise RefusedCodeError("expired")
        end = self._end(invitation.digest, device.to_bytes().hex())
        if end == _CANCELLED:
            raise RefusedCodeError(_CANCELLED)
        if end != device.to_bytes().hex():
            raise RefusedCodeError("used")

    def cancel(self, id_: str) -> StoredInvitation:
        """End an invitation that was not used; it is named by the beginning of its digest.

        Raises:
            ClinicError: no invitation or several have this id, it was used, or the file cannot be written.
        """
        found = [invitation for invitation in self.list() if id_ and invitation.digest.startswith(id_)]
        if len(found) != 1:
            raise ClinicError(f"{len(found)} invitations have the id {id_!r}: give one that pulsegate-cloud invitations lists")
        if self._end(found[0].digest, _CANCELLED) != _CANCELLED:
            raise ClinicError(
                f"the invitation of hub {found[0].hub} was used already: revoke the hub instead, pulsegate-cloud site revoke"
            )
        return found[0]

    def _end(self, digest: str, end: str) -> str:
        """Write how an invitation ended, unless it has ended; return how it ended."""
        path = self._path(digest).with_suffix(".end")
        try:
            create_secret_file(path, end.encode())
        except KeyFileError as error:
            if not path.exists():
                raise ClinicError(f"cannot write to {self._folder}: check the folder and the disk") from error
        return path.read_text(encoding="ascii")

    def _read(self, digest: str) -> StoredInvitation:
        path = self._path(digest)
        end = path.with_suffix(".end")
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            return StoredInvitation(digest, **content, end=end.read_text(encoding="ascii") if end.exists() else None)
        except (OSError, ValueError, TypeError) as error:
            raise ClinicError(f"cannot read the invitation {path}: delete it, and invite the hub again") from error

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()

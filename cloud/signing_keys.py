"""The signing keys of the clinic: for acknowledgements, where messages arrive, for receipts, where blocks are opened, for the
heads of its audit log, and for commands to hubs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cloud.errors import ClinicError
from sync.signing import SigningKey, Use

USES: Final = (Use.ACKNOWLEDGEMENT, Use.RECEIPT, Use.AUDIT, Use.COMMAND)
"""The uses of the keys, in the order of the fields of `SigningKeys`."""
PUBLIC_AUDIT_FILE: Final = "audit.pub"
_ADDED: Final = (Use.AUDIT, Use.COMMAND)
"""Uses that clinics of earlier versions have no key for."""


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The private keys with which the clinic signs what it sends to hubs, and the heads of its audit log."""

    acknowledgement: SigningKey
    receipt: SigningKey
    audit: SigningKey
    command: SigningKey

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the key files.

        Raises:
            KeyFileError: a file is missing, damaged, or accessible to other users.
        """
        return cls(*(SigningKey.load(key_file(folder, use), use) for use in USES))

    @classmethod
    def load_or_create(cls, folder: Path, *, may_create: bool) -> Self:
        """Read the key files; create missing ones if `may_create`: hubs trust the keys that they were registered with.

        Missing keys for `_ADDED` are always created. The public audit key is written for ingest, which may run as another user.

        Raises:
            ClinicError: a file is missing and must not be created.
            KeyFileError: a file is damaged, accessible to other users, or cannot be created.
        """
        for use in USES:
            path = key_file(folder, use)
            if path.exists():
                continue
            if not may_create and use not in _ADDED:
                raise ClinicError(
                    f"{path} is missing, and hubs are registered with it: restore it with pulsegate-cloud restore-keys, "
                    "or from your own copy"
                )
            SigningKey.generate(use).create(path)
        keys = cls.load(folder)
        try:
            keys.audit.public.save(folder / PUBLIC_AUDIT_FILE)
        except OSError as error:
            raise ClinicError(f"cannot write {folder / PUBLIC_AUDIT_FILE} ({error.strerror}): check the folder") from error
        return keys


def key_file(folder: Path, use: Use) -> Path:
    """Return the path of a signing key."""
    return folder / f"{use}.key"

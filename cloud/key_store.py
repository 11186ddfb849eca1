"""The clinic's key store: the recipient key pairs of its subjects, one folder a subject, one file a pair.

    folder/<subject>/<number>.key
    folder/<subject>/erased         the subject was erased and gets no pair again

Destroying a subject's pairs makes its blocks unreadable in every copy of every database. Backups of the key store expire
(`cloud.key_backup`).
"""

from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from config.files import destroy_file, sync_path
from sync.key_files import KeyFileError
from sync.recipients import RecipientKeyPair, RecipientPublicKey
from sync.wire import is_name

_ERASED: Final = "erased"


class KeyStore:
    """The recipients of all subjects. A pair that is created or destroyed by another process is noticed at its next use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pairs: dict[Path, RecipientKeyPair] = {}

    def subjects(self) -> tuple[str, ...]:
        """Return the subjects that have a pair."""
        return tuple(sorted({path.parent.name for path in self._paths()}))

    def recipient(self, fingerprint: bytes) -> RecipientKeyPair | None:
        """Return the pair with this fingerprint; None if it does not exist, or was destroyed.

        Raises:
            KeyFileError: a key file is damaged, or accessible to other users.
        """
        return next((pair for pair in self._load(self._paths()) if pair.public.fingerprint == fingerprint), None)

    def public(self, subject: str) -> RecipientPublicKey | None:
        """Return the newest public key of a subject; None if it has none.

        Raises:
            KeyFileError: a key file is damaged, or accessible to other users.
        """
        pairs = self._load(self._paths_of(subject))
        return pairs[-1].public if pairs else None

    def pairs(self, subject: str) -> list[RecipientKeyPair]:
        """Return all pairs of a subject, oldest first.

        Raises:
            KeyFileError: a key file is damaged, or accessible to other users.
        """
        return self._load(self._paths_of(subject))

    def fingerprints(self, subject: str) -> list[str]:
        """Return the fingerprints of a subject's pairs in hexadecimal digits, oldest first; `unreadable` for a damaged file."""
        found = list[str]()
        for path in self._paths_of(subject):
            try:
                found += [pair.public.fingerprint.hex() for pair in self._load([path])]
            except KeyFileError:
                found.append("unreadable")
        return found

    def create(self, subject: str) -> RecipientPublicKey:
        """Create a pair for a subject; an earlier one stays, for the keys that are wrapped for it.

        Raises:
            KeyFileError, ClinicError: the file cannot be created.
        """
        pair = RecipientKeyPair.generate()
        self.add(subject, pair)
        return pair.public

    def add(self, subject: str, pair: RecipientKeyPair) -> None:
        """Keep a pair for a subject.

        Raises:
            KeyFileError, ClinicError: the file cannot be created.
        """
        if subject in self.erased():
            raise ClinicError(f"{subject} was erased: give the patient another pseudonym")
        numbers = [int(path.stem) for path in self._paths_of(subject)]
        try:
            self._make_folder(subject)
        except OSError as error:
            raise ClinicError(f"cannot create a folder in {self._folder} ({error.strerror}): check it and the disk") from error
        pair.create(self._folder / subject / f"{max(numbers, default=0) + 1}.key")

    def destroy(self, subject: str) -> int:
        """Note that a subject was erased, then overwrite and delete all its pairs; returns their number.

        Raises:
            ClinicError: not a name, or a file cannot be deleted.
        """
        if not is_name(subject):
            raise ClinicError("a subject has a name of 1 to 64 letters, digits, '.', '_' and '-': correct it")
        paths = self._paths_of(subject)
        folder = self._folder / subject
        try:
            self._make_folder(subject)
            (folder / _ERASED).touch(mode=0o600)
            for path in (folder, self._folder):  # a power cut must not leave an overwritten pair without the note
                sync_path(path)
            for path in paths:
                destroy_file(path)
                self._pairs.pop(path, None)
            sync_path(folder)
        except OSError as error:
            raise ClinicError(
                f"cannot destroy the keys of {subject} ({error.strerror}): check the folder {self._folder}"
            ) from error
        return len(paths)

    def erased(self) -> frozenset[str]:
        """Return the subjects that were erased."""
        return frozenset(path.parent.name for path in self._folder.glob(f"*/{_ERASED}"))

    def _make_folder(self, subject: str) -> None:
        """Create the folder of a subject. Other users may not list the subjects either."""
        for folder in (self._folder, self._folder / subject):  # `parents=True` would give the first one another mode
            folder.mkdir(mode=0o700, exist_ok=True)

    def _paths(self) -> list[Path]:
        return [path for folder in sorted(self._folder.glob("*/")) for path in self._paths_of(folder.name)]

    def _paths_of(self, subject: str) -> list[Path]:
        if not is_name(subject):
            return []
        return sorted(
            (path for path in (self._folder / subject).glob("*.key") if path.stem.isdecimal()), key=lambda p: int(p.stem)
        )

    def _load(self, paths: list[Path]) -> list[RecipientKeyPair]:
        for path in paths:
            if path not in self._pairs:
                try:
                    self._pairs[path] = RecipientKeyPair.load(path)
                except KeyFileError:
                    if path.parent.name not in self.erased():  # another process is destroying it
                        raise
        return [self._pairs[path] for path in paths if path in self._pairs]

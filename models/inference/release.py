"""Reads the signed set of model files. Each file is read once and verified; exactly the verified bytes are used.

`manifest.json` lists every file with its size and SHA-256, the oldest agent version that may run the models, the release number
(which only rises) and the id of the signing key. `manifest.sig` is the Ed25519 signature (64 bytes as one line of base64) over
`DOMAIN` and the exact bytes of the manifest. The manifest is not parsed before its signature has been verified.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from config.version import VERSION
from models.inference.pinned_keys import PINNED_KEYS
from models.inference.session import ModelError

RELEASE_DIR: Final = Path(__file__).parents[1] / "release"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"

DOMAIN: Final = b"pulsegate model release 1\0"
"""Prefix of the signed bytes: a signature made for another purpose is not valid for a release. The 1 is the version of the
format."""

MAX_MANIFEST_BYTES: Final = 1 << 16
"""Enough for some 500 files."""
MAX_FILE_BYTES: Final = 1 << 22
"""The largest model may have 250 kB; a card with a table row for each of thousands of records has 1 MB."""
MAX_RELEASE_NUMBER: Final = (1 << 31) - 1

_SIGNATURE_BYTES: Final = 89
"""64 bytes in base64 and a line feed."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""A plain file name: no folder separator, no parent folder, no leading dot."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")

Cause = Literal["altered", "older", "agent"]
"""altered: not what a pinned key signed; older: this hub has run a newer release; agent: needs a newer agent."""


class ReleaseError(ModelError):
    """The released files are refused.

    Attributes:
        cause: the reason in one word. The message gives the details and the remedy in one line.
        measured: numbers behind the refusal, for the alert.
    """

    def __init__(self, cause: Cause, message: str, measured: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.cause: Final = cause
        self.measured: Final = dict(measured or {})


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """What the manifest states about one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose manifest signature has been verified. Made by `open_release`."""

    folder: Path
    number: int
    minimum_agent: str
    key_id: str
    files: Mapping[str, ManifestEntry]

    def read_file(self, file: str) -> bytes:
        """Read one file once, check it against the manifest, and return its bytes.

        Build the model from these bytes and do not read the file again: only they are known to be what was signed.

        Raises:
            ReleaseError: the release has no such file, or the file is missing, altered or not a regular file.
        """
        entry = self.files.get(file)
        if entry is None:
            raise ReleaseError("altered", f"{file} is not part of model release {self.number}. Reinstall pulsegate.")
        data = read_regular_file(self.folder / file, entry.size)
        found = hashlib.sha256(data).hexdigest()
        if (len(data), found) != (entry.size, entry.sha256):
            raise ReleaseError(
                "altered",
                f"{file} is not the released file (SHA-256 {found[:12]}…, manifest {entry.sha256[:12]}…). Reinstall pulsegate.",
            )
        return data


def open_release(
    folder: Path = RELEASE_DIR, *, keys: Mapping[str, str] = PINNED_KEYS, newest_seen: int = 0, agent: str = VERSION
) -> Release:
    """Verify the manifest of the release in a folder; the files themselves are verified when they are read.

    Args:
        folder: holds manifest, signature and files.
        keys: the public keys that may have signed it, hexadecimal, by key id.
        newest_seen: the number of the newest release that this hub has run; an older one is refused.
        agent: the version of the agent that is to run the models.

    Raises:
        ReleaseError: not signed with one of the keys, malformed, older than `newest_seen`, or for a newer agent.
    """
    manifest = read_regular_file(folder / MANIFEST, MAX_MANIFEST_BYTES)
    signature = _decode_signature(read_regular_file(folder / SIGNATURE, _SIGNATURE_BYTES))
    signer = next((name for name, public in keys.items() if _is_signed_by(public, signature, manifest)), None)
    if signer is None:
        raise ReleaseError(
            "altered",
            f"{SIGNATURE} does not verify: {MANIFEST} was not signed with a key that this agent accepts. Reinstall pulsegate.",
        )
    try:
        release = _parse_manifest(folder, manifest)
    except (ValueError, RecursionError) as error:
        raise ReleaseError("altered", f"the models' {MANIFEST} is malformed ({error}). Reinstall pulsegate.") from error
    if release.key_id != signer:
        raise ReleaseError(
            "altered", f"the models' {MANIFEST} names a different key from the one that signed it. Reinstall pulsegate."
        )
    if release.number < newest_seen:
        raise ReleaseError(
            "older",
            f"model release {release.number} is older than release {newest_seen}, which this hub has run. Update pulsegate.",
            {"release": release.number, "newest_release": newest_seen},
        )
    if parse_version(agent) < parse_version(release.minimum_agent):
        raise ReleaseError(
            "agent",
            f"model release {release.number} needs pulsegate {release.minimum_agent}, this is {agent}. Update pulsegate.",
            {"release": release.number},
        )
    return release


def read_release_file(file: str) -> bytes:
    """Return the verified bytes of one file of the release that ships with this package.

    Raises:
        ReleaseError: the release or the file is refused.
    """
    return open_release().read_file(file)


def key_id(public: bytes) -> str:
    """Return the id of a public key (32 bytes): the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def parse_version(text: str) -> tuple[int, ...]:
    """Parse a version into four numbers that compare in version order.

    Raises:
        ValueError: the text is not one to four numbers separated by dots.
    """
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a version")
    parts = [int(part) for part in text.split(".")]
    return (*parts, *[0] * (4 - len(parts)))


def is_release_file_name(name: str) -> bool:
    """Return whether a release may contain a file of this name."""
    return _FILE_NAME.fullmatch(name) is not None and name not in {MANIFEST, SIGNATURE}


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file, opening it once. Symbolic links are not followed, and larger files are not read.

    Raises:
        ReleaseError: missing, not readable, larger than `max_bytes`, or a link, pipe, device or folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ReleaseError("altered", f"{path.name} is not a regular file. Reinstall pulsegate.")
            if status.st_size > max_bytes:
                raise ReleaseError("altered", f"{path.name} is larger than {max_bytes} bytes. Reinstall pulsegate.")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ReleaseError("altered", f"{path.name} cannot be read ({error.strerror}). Reinstall pulsegate.") from error


def _decode_signature(line: bytes) -> bytes:
    """Decode the signature line; only the canonical form is accepted, because base64 alone ignores some changed bits."""
    try:
        signature = base64.b64decode(line.removesuffix(b"\n"), validate=True)
    except binascii.Error:
        signature = b""
    if base64.b64encode(signature) + b"\n" != line or len(signature) != 64:
        raise ReleaseError("altered", f"the models' {SIGNATURE} is not a signature. Reinstall pulsegate.")
    return signature


def _is_signed_by(public: str, signature: bytes, manifest: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, DOMAIN + manifest)
    except InvalidSignature:
        return False
    return True


def _parse_manifest(folder: Path, manifest: bytes) -> Release:
    """Parse the manifest; a ValueError says what is wrong with it."""
    match json.loads(manifest):
        case {"release": number, "minimum_agent": str() as minimum, "key": str() as key, "files": dict() as files}:
            if not _is_positive_int(number, MAX_RELEASE_NUMBER):
                raise ValueError(f"release is not an integer from 1 to {MAX_RELEASE_NUMBER}")
            parse_version(minimum)
            entries = {name: _parse_entry(name, entry) for name, entry in files.items()}
            return Release(folder, number, minimum, key, MappingProxyType(entries))
        case _:
            raise ValueError("release, minimum_agent, key or files is missing or has the wrong type")


def _parse_entry(name: str, entry: Any) -> ManifestEntry:
    if not is_release_file_name(name):
        raise ValueError(f"{name[:40]!r} is not a plain file name")
    match entry:
        case {"size": size, "sha256": str() as sha256} if _is_positive_int(size, MAX_FILE_BYTES) and _SHA256.fullmatch(sha256):
            return ManifestEntry(size, sha256)
        case _:
            raise ValueError(f"size or SHA-256 of {name} is missing, out of range or has the wrong type")


def _is_positive_int(value: object, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest

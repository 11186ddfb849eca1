"""The signed set of model files: read once, verified, and used as read.

`manifest.json` lists every file with its size and SHA-256, the oldest agent that may run them, the release's number, which
only rises, and the key that signed it. `manifest.sig` is the Ed25519 signature (64 bytes as one line of base64) over
`DOMAIN` and the manifest's very bytes. No byte of a manifest is interpreted before its signature has been verified.
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
from models.inference.pinned_keys import PINNED
from models.inference.session import ModelError

RELEASED: Final = Path(__file__).parents[1] / "release"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"

DOMAIN: Final = b"pulsegate model release 1\0"
"""Before the signed bytes, so that a signature made for anything else is none for a release. The number is the form's."""

LARGEST_MANIFEST: Final = 1 << 16
"""Bytes: some 500 files."""
LARGEST_FILE: Final = 1 << 22
"""Bytes. The largest model may have 250 kB; a card with a table row for each of thousands of records has 1 MB."""
LARGEST_NUMBER: Final = (1 << 31) - 1

_SIGNATURE_BYTES: Final = 89
"""64 bytes in base64, and the end of the line."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""A plain file name: no folder, no parent, nothing hidden."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")

Cause = Literal["altered", "older", "agent"]
"""Not what a pinned key signed; older than one that this hub has run; meant for a newer agent."""


class ReleaseError(ModelError):
    """The released files are refused; `cause` says why in one word, the message in a line with what to do."""

    def __init__(self, cause: Cause, message: str, measured: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.cause: Final = cause
        self.measured: Final = dict(measured or {})


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest states of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """A manifest whose signature was verified. Made by `open_release`."""

    folder: Path
    number: int
    minimum_agent: str
    key: str
    files: Mapping[str, Entry]

    def bytes(self, file: str) -> bytes:
        """The bytes of one file, read once and checked: what is built from them is what was signed.

        Raises:
            ReleaseError: the release has no such file, or the one in the folder is missing, altered or no plain file.
        """
        entry = self.files.get(file)
        if entry is None:
            raise ReleaseError("altered", f"{file} is no part of model release {self.number}. Reinstall pulsegate.")
        data = read_plain(self.folder / file, entry.size)
        found = hashlib.sha256(data).hexdigest()
        if (len(data), found) != (entry.size, entry.sha256):
            raise ReleaseError(
                "altered",
                f"{file} is not the released file (SHA-256 {found[:12]}…, manifest {entry.sha256[:12]}…). Reinstall pulsegate.",
            )
        return data


def open_release(
    folder: Path = RELEASED, *, keys: Mapping[str, str] = PINNED, newest_seen: int = 0, agent: str = VERSION
) -> Release:
    """The release in a folder, its manifest verified; the files are as they are read.

    Args:
        folder: with manifest, signature and files.
        keys: the public keys that may have signed it, hexadecimal, by id.
        newest_seen: the number of the newest release that this hub has run; an older one is refused.
        agent: the version of the agent that is to run it.

    Raises:
        ReleaseError: not signed by one of the keys, malformed, older than seen, or for a newer agent.
    """
    manifest = read_plain(folder / MANIFEST, LARGEST_MANIFEST)
    signature = _signature(read_plain(folder / SIGNATURE, _SIGNATURE_BYTES))
    signer = next((name for name, public in keys.items() if _has_signed(public, signature, manifest)), None)
    if signer is None:
        raise ReleaseError(
            "altered", f"by {SIGNATURE}, {MANIFEST} was not signed with a key of this agent's. Reinstall pulsegate."
        )
    try:
        release = _parsed(folder, manifest)
    except (ValueError, RecursionError) as error:
        raise ReleaseError("altered", f"the models' {MANIFEST} is malformed ({error}). Reinstall pulsegate.") from error
    if release.key != signer:
        raise ReleaseError("altered", f"the models' {MANIFEST} names another key than signed it. Reinstall pulsegate.")
    if release.number < newest_seen:
        raise ReleaseError(
            "older",
            f"model release {release.number} is older than release {newest_seen}, which this hub has run. Update pulsegate.",
            {"release": release.number, "newest_release": newest_seen},
        )
    if version_of(agent) < version_of(release.minimum_agent):
        raise ReleaseError(
            "agent",
            f"model release {release.number} needs pulsegate {release.minimum_agent}, this is {agent}. Update pulsegate.",
            {"release": release.number},
        )
    return release


def released(file: str) -> bytes:
    """The bytes of one file of the release that this package came with.

    Raises:
        ReleaseError: the release or the file is refused.
    """
    return open_release().bytes(file)


def key_id(public: bytes) -> str:
    """The id of a public key (32 bytes): 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def version_of(text: str) -> tuple[int, ...]:
    """A version as numbers to compare.

    Raises:
        ValueError: it is not one to four numbers with dots between.
    """
    if not _VERSION.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no version")
    parts = [int(part) for part in text.split(".")]
    return (*parts, *[0] * (4 - len(parts)))


def is_file_name(name: str) -> bool:
    """Whether a release may have a file of this name."""
    return _NAME.fullmatch(name) is not None and name not in {MANIFEST, SIGNATURE}


def read_plain(path: Path, largest: int) -> bytes:
    """A plain file's bytes, opened once; no symbolic link is followed, and nothing larger is read.

    Raises:
        ReleaseError: missing, not readable, too large, or a link, pipe, device or folder.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ReleaseError("altered", f"{path.name} is no plain file. Reinstall pulsegate.")
            if status.st_size > largest:
                raise ReleaseError("altered", f"{path.name} is larger than {largest} bytes. Reinstall pulsegate.")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(largest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ReleaseError("altered", f"{path.name} cannot be read ({error.strerror}). Reinstall pulsegate.") from error


def _signature(line: bytes) -> bytes:
    """Only the one canonical form passes: base64 itself would ignore some changed bits."""
    try:
        signature = base64.b64decode(line.removesuffix(b"\n"), validate=True)
    except binascii.Error:
        signature = b""
    if base64.b64encode(signature) + b"\n" != line or len(signature) != 64:
        raise ReleaseError("altered", f"the models' {SIGNATURE} is no signature. Reinstall pulsegate.")
    return signature


def _has_signed(public: str, signature: bytes, manifest: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, DOMAIN + manifest)
    except InvalidSignature:
        return False
    return True


def _parsed(folder: Path, manifest: bytes) -> Release:
    """The manifest's content; ValueError says what is wrong with it."""
    match json.loads(manifest):
        case {"release": number, "minimum_agent": str() as minimum, "key": str() as key, "files": dict() as files}:
            if not _is_count(number, LARGEST_NUMBER):
                raise ValueError("release is no number")
            version_of(minimum)
            entries = {name: _entry(name, entry) for name, entry in files.items()}
            return Release(folder, number, minimum, key, MappingProxyType(entries))
        case _:
            raise ValueError("release, minimum_agent, key or files is missing or of another type")


def _entry(name: str, entry: Any) -> Entry:
    if not is_file_name(name):
        raise ValueError(f"{name[:40]!r} is no plain file name")
    match entry:
        case {"size": size, "sha256": str() as sha256} if _is_count(size, LARGEST_FILE) and _SHA256.fullmatch(sha256):
            return Entry(size, sha256)
        case _:
            raise ValueError(f"size or SHA-256 of {name} is missing, too large or of another type")


def _is_count(value: object, largest: int) -> bool:
    return type(value) is int and 1 <= value <= largest

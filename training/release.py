"""Sign the released models: `python -m training.release --key PATH`, or create a key: `--new-key PATH`.

Signing is a separate step, done by the person who holds the private key. The key is stored outside every checkout, and only its
owner may read it. The passphrase is typed on the terminal or read from a file descriptor; it is never an argument.
"""

import argparse
import base64
import getpass
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from config.files import replacing
from config.version import VERSION
from models.inference.pinned_keys import PINNED_KEYS
from models.inference.release import (
    DOMAIN,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_RELEASE_NUMBER,
    RELEASE_DIR,
    SIGNATURE,
    Release,
    is_release_file_name,
    key_id,
    open_release,
    parse_version,
    read_regular_file,
)
from models.inference.session import ModelError, ModelSession

CHECKOUT: Final = Path(__file__).resolve().parents[1]
MODEL: Final = ".onnx"
CARDS: Final = (".json", ".md")
_MAX_KEY_BYTES: Final = 1 << 14
_NUMBER: Final = re.compile(rb'"release"\s*:\s*([0-9]{1,10})\b')

AskPassphrase = Callable[[str], bytes]


class SigningError(Exception):
    """Nothing was signed. The message says why and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Sign the release or create a key; return exit status 0, 1 or 2."""
    chosen = _arguments(argv)
    ask_passphrase = _read_from_descriptor(chosen.passphrase_fd) if chosen.passphrase_fd is not None else _ask_on_terminal
    try:
        if chosen.new_key:
            line = create_key(chosen.new_key, ask_passphrase("New passphrase: "))
            print(f"pin this line in models/inference/pinned_keys.py:\n{line}")
            return 0
        release = sign(chosen.folder, load_key(chosen.key, ask_passphrase), chosen.release, chosen.minimum_agent)
    except (SigningError, ModelError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"signed model release {release.number} with key {release.key_id}: {', '.join(release.files)}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="release", description=__doc__)
    action = options.add_mutually_exclusive_group(required=True)
    action.add_argument("--key", type=Path, help="private key (PEM) to sign with")
    action.add_argument("--new-key", type=Path, metavar="PATH", help="create a private key there")
    options.add_argument("--release", type=int, metavar="N", help="number of this release (default: one more than the last)")
    options.add_argument(
        "--minimum-agent", default=VERSION, metavar="X.Y.Z", help="oldest agent that may run the release (default: %(default)s)"
    )
    options.add_argument(
        "--folder", type=Path, default=RELEASE_DIR, help="folder with the files to sign (default: %(default)s)"
    )
    options.add_argument("--passphrase-fd", type=int, metavar="FD", help="read the passphrase from this file descriptor")
    return options.parse_args(argv)


def sign(
    folder: Path,
    key: Ed25519PrivateKey,
    number: int | None = None,
    minimum_agent: str = VERSION,
    pinned: Mapping[str, str] = PINNED_KEYS,
) -> Release:
    """Write manifest and signature for all files in the folder, and verify both as an agent would.

    Raises:
        SigningError: the number is not higher than the last, the key is not pinned, or the folder is not a complete release.
        ModelError: a model cannot be loaded.
    """
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    if pinned.get(key_id(public)) != public.hex():
        raise SigningError(
            f"no agent would accept this key: pin it first in models/inference/pinned_keys.py:\n{_pin_line(public)}"
        )
    last = _last_number(folder)
    number = last + 1 if number is None else number
    if not last < number <= MAX_RELEASE_NUMBER:
        raise SigningError(
            f"the number {number} cannot follow release {last}: choose one from {last + 1} to {MAX_RELEASE_NUMBER}, or leave "
            "--release out"
        )
    try:
        parse_version(minimum_agent)
    except ValueError as error:
        raise SigningError(f"--minimum-agent: {error}") from error
    files = {path.name: _describe_file(path) for path in _files(folder)}
    manifest_content = {"release": number, "minimum_agent": minimum_agent, "key": key_id(public), "files": files}
    manifest = (json.dumps(manifest_content, indent=1) + "\n").encode()
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise SigningError(f"{len(files)} files are too many for a manifest of {MAX_MANIFEST_BYTES} bytes")
    _write_atomically(folder / MANIFEST, manifest)
    _write_atomically(folder / SIGNATURE, base64.b64encode(key.sign(DOMAIN + manifest)) + b"\n")
    release = open_release(folder, keys=pinned, newest_seen=number, agent=minimum_agent)
    for file in release.files:
        release.read_file(file)
    return release


def load_key(path: Path, ask_passphrase: AskPassphrase) -> Ed25519PrivateKey:
    """Load the private key from a PEM file.

    Raises:
        SigningError: the file is inside a checkout, open to other users, or not an Ed25519 key; or the passphrase is wrong.
    """
    _reject_checkout(path)
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise SigningError(f"the key {path} is open to other users (mode {mode:04o}): run chmod 600 on it")
            pem = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SigningError(f"cannot read the key {path} ({error.strerror}): name the file with the private key") from error
    try:
        key = load_pem_private_key(pem, ask_passphrase(f"Passphrase of {path.name}: ") if b"ENCRYPTED" in pem else None)
    except ValueError as error:
        raise SigningError(f"{path} is not a PEM private key, or the passphrase is wrong: check both") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{path} is not an Ed25519 key: create one with --new-key")
    return key


def create_key(path: Path, passphrase: bytes) -> str:
    """Create a private key (mode 0600, encrypted unless the passphrase is empty) and return the line that pins its public half.

    Raises:
        SigningError: the file is inside a checkout, exists already, or cannot be written.
    """
    _reject_checkout(path)
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SigningError(
            f"cannot create the key {path} ({error.strerror}): name a new file in a folder that you can write to"
        ) from error
    return _pin_line(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def _pin_line(public: bytes) -> str:
    return f'    "{key_id(public)}": "{public.hex()}",  # since {datetime.now(UTC):%Y-%m-%d}'


def _reject_checkout(path: Path) -> None:
    resolved = path.resolve()
    if resolved.is_relative_to(CHECKOUT) or any((folder / ".git").exists() for folder in resolved.parents):
        raise SigningError(f"{path} is inside a checkout, where a private key must never be stored: move it to another folder")


def _last_number(folder: Path) -> int:
    """Return the number in the existing manifest, signed or not; 0 without a manifest."""
    path = folder / MANIFEST
    if not path.exists():
        return 0
    found = _NUMBER.search(read_regular_file(path, MAX_MANIFEST_BYTES))
    if found is None:
        raise SigningError(f"{path} contains no release number: restore it from version control, because the number must rise")
    return int(found[1])


def _files(folder: Path) -> list[Path]:
    """Return the files of all models and cards, by name. Each model must have both cards."""
    if not folder.is_dir():
        raise SigningError(f"{folder} is not a folder: run make train first")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {MODEL, *CARDS} and path.name != MANIFEST)
    models = [Path(name).stem for name in names if name.endswith(MODEL)]
    if not models:
        raise SigningError(f"{folder} contains no model: run make train first")
    expected = sorted(stem + suffix for stem in models for suffix in (MODEL, *CARDS))
    unexpected = sorted(set(expected) ^ set(names))
    if unexpected:
        raise SigningError(
            f"each model needs its two cards, and {folder} must contain nothing else: check {', '.join(unexpected)}"
        )
    return [folder / name for name in names]


def _describe_file(path: Path) -> dict[str, object]:
    """Return size and SHA-256 of a file; a model must also load."""
    if not is_release_file_name(path.name):
        raise SigningError(f"{path.name} is not a valid name for a released file: use letters, digits, '_', '-' and '.'")
    data = read_regular_file(path, MAX_FILE_BYTES)
    if path.suffix == MODEL:
        ModelSession(path.stem, data)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _write_atomically(path: Path, content: bytes) -> None:
    with replacing(path, mode=0o644) as draft:
        draft.write_bytes(content)


def _ask_on_terminal(prompt: str) -> bytes:
    return getpass.getpass(prompt).encode() if sys.stdin.isatty() else b""


def _read_from_descriptor(descriptor: int) -> AskPassphrase:
    def read(_prompt: str) -> bytes:
        try:
            with os.fdopen(descriptor, "rb") as file:
                return file.readline(1024).rstrip(b"\n")
        except OSError as error:
            raise SigningError(
                f"cannot read the passphrase from descriptor {descriptor} ({error.strerror}): pass an open one"
            ) from error

    return read


if __name__ == "__main__":
    sys.exit(main())

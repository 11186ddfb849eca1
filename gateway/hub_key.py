"""Where the hub key lies: in a plain file, or in the same file sealed under a systemd credential or a passphrase.

The file `hub.key` says itself which of the three it is, so that one atomic replacement changes it. In a plain file it is 32
bytes. Otherwise it has a title line and a line of hexadecimal digits: the deterministic CBOR of a list

    credential    [salt, sealed]
    passphrase    [salt, iterations, lanes, memory (KiB), sealed]

`sealed` is nonce | ciphertext | tag of AES-256-GCM-SIV; its associated data are the title, a line feed, and the CBOR of the
list without its last item. The key for it is HKDF-SHA-256 of the credential, or Argon2id of the passphrase, with the salt.
"""

import getpass
import os
import sys
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sync.cbor import decode_cbor, encode_cbor
from sync.data_keys import KEY_BYTES
from sync.errors import PermanentError
from sync.key_files import check_private_file
from sync.keys import HubKey
from sync.seal import NONCE_BYTES, TAG_BYTES, random_nonce
from sync.wire import is_bytes

HUB_KEY_FILE: Final = "hub.key"
"""The file in the data folder."""
CREDENTIAL: Final = "pulsegate.hub-key"
"""The systemd credential under which a hub key is sealed: at least 32 random bytes."""
PASSPHRASE_CREDENTIAL: Final = "pulsegate.passphrase"  # noqa: S105 - a name
"""The systemd credential with the passphrase, for an agent that starts without a person."""
MIN_CREDENTIAL_BYTES: Final = 32
"""The strength of the key that it seals, if it is random."""
MAX_SECRET_BYTES: Final = 4096
"""A longer credential is another file by mistake."""
MIN_PASSPHRASE_CHARACTERS: Final = 15
"""NIST SP 800-63B-4, section 3.1.1.2: the shortest password that is the only factor."""
SALT_BYTES: Final = 16
"""RFC 9106, section 3.1: 16 bytes are recommended for passwords."""
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_LIMIT_BYTES: Final = 1024
_SEALED_BYTES: Final = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_INFO: Final = b"pulsegate hub key"


class HubKeyError(PermanentError):
    """The hub key cannot be opened: what it is sealed under is missing or wrong. The message says what to do."""


class Place(StrEnum):
    """Where the hub key lies: what a thief of the data folder needs besides."""

    FILE = "file"
    CREDENTIAL = "credential"
    PASSPHRASE = "passphrase"  # noqa: S105 - not one


class Argon2Parameters(NamedTuple):
    """Parameters of Argon2id."""

    iterations: int
    lanes: int
    memory_kib: int


ARGON2: Final = Argon2Parameters(3, 4, 64 * 1024)
"""RFC 9106, section 4: the second recommended option, for machines without 2 GiB to spare. A Raspberry Pi has 512 MB, which the
agent does not use yet when it opens the key; it frees the 64 MiB at once."""
STRONGEST_ARGON2: Final = Argon2Parameters(16, 16, 256 * 1024)
"""A file that asks for more was changed: it would keep the agent from starting."""
ReadSecret = Callable[[Place], bytes]
"""Returns the credential or the passphrase that a hub key is sealed under."""


def unlock_hub_key(data: Path) -> HubKey | None:
    """Return the hub key with which the other key files of a data folder are sealed.

    None if it lies in a plain file, as they do, or does not exist.

    Raises:
        HubKeyError: the credential or the passphrase is missing or wrong.
        KeyFileError: the file is accessible to other users.
    """
    path = data / HUB_KEY_FILE
    if not path.exists() or find_place(path) == Place.FILE:
        return None
    return open_hub_key(path, read_secret_of_system)


def read_hub_key(source: BinaryIO) -> HubKey:
    """Read the hub key that the agent gives to its renewal.

    Raises:
        HubKeyError: there are not 32 bytes.
    """
    secret = source.read(KEY_BYTES)
    if len(secret) != KEY_BYTES:
        raise HubKeyError(f"no hub key on standard input, but {len(secret)} bytes: leave --hub-key-stdin to the agent")
    return HubKey(secret)


def load_hub_key(data: Path) -> HubKey:
    """Return the hub key of a data folder, wherever it lies; without one, create a plain file.

    Raises:
        HubKeyError: the credential or the passphrase is missing or wrong.
        KeyFileError, SealError: the file is accessible to other users, damaged, or can be neither read nor created.
    """
    return unlock_hub_key(data) or HubKey.load_or_create(data / HUB_KEY_FILE)


def find_place(path: Path) -> Place:
    """Return where the hub key lies, by the first line of its file.

    Raises:
        HubKeyError: the file cannot be read, or is of a newer version.
    """
    content = _read(path)
    for place in (Place.CREDENTIAL, Place.PASSPHRASE):
        if content.startswith(_title(place).encode() + b"\n"):
            return place
    if content.startswith(_INFO) and len(content) != KEY_BYTES:
        raise HubKeyError(f"the hub key file {path} has a form that this version does not know: update pulsegate")
    return Place.FILE


def open_hub_key(path: Path, read_secret: ReadSecret) -> HubKey:
    """Open a hub key file of any of the three forms. `read_secret` is called for the form that needs it.

    Raises:
        HubKeyError: the credential or the passphrase is missing or wrong, or the file is damaged.
        KeyFileError, SealError: the file is accessible to other users, or of another length.
    """
    place = find_place(path)
    if place == Place.FILE:
        return HubKey.load_or_create(path)
    check_private_file(path)
    try:
        items = decode_cbor(bytes.fromhex(_read(path).split(b"\n")[1].decode()), limit_bytes=_LIMIT_BYTES)
        salt, parameters, sealed = _check_items(items, place)
    except (ValueError, TypeError) as error:
        raise HubKeyError(f"the hub key file {path} is damaged: restore it from a backup") from error
    key = _derive_key(place, read_secret(place), salt, parameters)
    try:
        secret = AESGCMSIV(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated(place, items[:-1]))
    except (InvalidTag, ValueError) as error:
        raise HubKeyError(f"the {place} does not open {path}: it is not the right one, or the file was changed") from error
    return HubKey(secret)


def seal_hub_key(key: HubKey, place: Place, secret: bytes) -> bytes:
    """Return the content of a hub key file for a place. `secret` is the credential or passphrase; a plain file has none."""
    if place == Place.FILE:
        return key.secret
    salt, nonce = os.urandom(SALT_BYTES), random_nonce()
    parameters = list(ARGON2) if place == Place.PASSPHRASE else []
    items = [salt, *parameters]
    cipher = AESGCMSIV(_derive_key(place, secret, salt, ARGON2))
    sealed = nonce + cipher.encrypt(nonce, key.secret, _associated(place, items))
    return f"{_title(place)}\n{encode_cbor([*items, sealed]).hex()}\n".encode()


def read_secret_of_system(place: Place) -> bytes:
    """Return the credential of this service; or the passphrase, from a credential or else from the terminal.

    Raises:
        HubKeyError: there is none.
    """
    if place == Place.CREDENTIAL:
        secret = read_credential(CREDENTIAL)
        if secret is None:
            raise HubKeyError(
                f"the hub key is sealed under the systemd credential {CREDENTIAL}, which this process has not got: start it by"
                f" the unit that loads it, or by systemd-run -p LoadCredentialEncrypted={CREDENTIAL} (docs/keys.md)"
            )
        if len(secret) < MIN_CREDENTIAL_BYTES:
            raise HubKeyError(
                f"the credential {CREDENTIAL} has {len(secret)} bytes: make one of {MIN_CREDENTIAL_BYTES} random ones"
            )
        return secret
    secret = read_credential(PASSPHRASE_CREDENTIAL)
    return (ask_passphrase("passphrase of this hub: ") if secret is None else _decode(secret)).encode()


def read_new_passphrase() -> bytes:
    """Read a new passphrase: twice at the terminal, or from the credential.

    Raises:
        HubKeyError: it is too short, the two differ, or there is no terminal.
    """
    secret = read_credential(PASSPHRASE_CREDENTIAL)
    if secret is not None:
        first = again = _decode(secret)
    else:
        first, again = ask_passphrase("new passphrase: "), ask_passphrase("the same again: ")
    if first != again:
        raise HubKeyError("the two passphrases differ: nothing was changed; try again")
    if len(first) < MIN_PASSPHRASE_CHARACTERS:
        raise HubKeyError(f"a passphrase has at least {MIN_PASSPHRASE_CHARACTERS} characters, such as five random words")
    return first.encode()


def read_credential(name: str) -> bytes | None:
    """Return a systemd credential of this process (systemd.exec(5), CREDENTIALS_DIRECTORY); None if it has none of this name.

    Raises:
        HubKeyError: it cannot be read, or is too long.
    """
    folder = os.environ.get(_CREDENTIALS)
    if folder is None or not (Path(folder) / name).exists():
        return None
    secret = _read(Path(folder) / name)
    if len(secret) > MAX_SECRET_BYTES:
        raise HubKeyError(f"the credential {name} has {len(secret)} bytes, over the limit of {MAX_SECRET_BYTES}: make another")
    return secret


def ask_passphrase(prompt: str) -> str:
    """Ask at the terminal, without showing what is typed.

    Raises:
        HubKeyError: there is no terminal, or it was closed.
    """
    if not sys.stdin.isatty():
        raise HubKeyError(
            f"the hub key is sealed under a passphrase, and there is no terminal: load it as the systemd credential"
            f" {PASSPHRASE_CREDENTIAL}, or run this at a terminal"
        )
    try:
        return _normalize(getpass.getpass(prompt))
    except EOFError as error:
        raise HubKeyError("no passphrase was typed: try again") from error


def _decode(secret: bytes) -> str:
    try:
        return _normalize(secret.decode().removesuffix("\n"))
    except UnicodeDecodeError as error:
        raise HubKeyError(f"the credential {PASSPHRASE_CREDENTIAL} is not UTF-8: make another") from error


def _normalize(passphrase: str) -> str:
    """The same text for each keyboard (RFC 8265, section 4.2.1)."""
    return unicodedata.normalize("NFC", passphrase)


def _check_items(items: object, place: Place) -> tuple[bytes, Argon2Parameters, bytes]:
    """Return salt, parameters and sealed key. Raises ValueError or TypeError if they are not as `seal_hub_key` writes them."""
    n_parameters = len(ARGON2) if place == Place.PASSPHRASE else 0
    if not isinstance(items, list) or len(items) != 2 + n_parameters:
        raise ValueError("not the list of such a file")
    salt, *parameters, sealed = items
    bounds = zip(ARGON2, parameters, STRONGEST_ARGON2, strict=False)
    if not (is_bytes(salt, SALT_BYTES) and is_bytes(sealed, _SEALED_BYTES)):
        raise ValueError("not of the lengths of such a file")
    if not all(type(value) is int and low <= value <= high for low, value, high in bounds):
        raise ValueError("parameters that this version does not use")
    return salt, Argon2Parameters(*parameters) if parameters else ARGON2, sealed


def _derive_key(place: Place, secret: bytes, salt: bytes, parameters: Argon2Parameters) -> bytes:
    if place == Place.CREDENTIAL:
        return HKDF(SHA256(), KEY_BYTES, salt, _INFO).derive(secret)
    iterations, lanes, memory_kib = parameters
    return Argon2id(salt=salt, length=KEY_BYTES, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(secret)


def _associated(place: Place, items: list[object]) -> bytes:
    return _title(place).encode() + b"\n" + encode_cbor(items)


def _title(place: Place) -> str:
    return f"pulsegate hub key sealed under a {place}, version 1"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HubKeyError(f"cannot read {path}: {error.strerror}; run this as the agent's user") from error

"""Seals the other private keys of a hub with the hub key, where that does not lie in a plain file, and the other way round.

Each file is replaced atomically, and either form is read wherever the hub key is at hand: a process may be killed in between.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from config.files import replace_secret
from config.identity import IDENTITY_FILE
from config.settings import Settings
from gateway.audit_log import AUDIT_KEY_FILE
from gateway.enrolment.identity import FOLDER, encode_tls_key
from gateway.startup import COMMAND_KEY_FILE, DEVICE_KEY_FILE
from sync.errors import PermanentError
from sync.key_files import KeyFileError, check_private_file, is_sealed_file, seal_file_content, unseal_file_content
from sync.keys import HubKey

KEY_FILES: Final = (DEVICE_KEY_FILE, COMMAND_KEY_FILE, AUDIT_KEY_FILE)
"""The private keys in the data folder besides the hub key. The TLS key lies with its certificate."""
_PEM_END: Final = b"-----END "
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED"


def seal_files(settings: Settings, hub_key: HubKey) -> None:
    """Seal every private key file that is not sealed yet.

    Raises:
        KeyFileError: a file is damaged, accessible to other users, or cannot be replaced.
    """
    for path in find_key_files(settings):
        if not is_sealed_file(path):
            _replace(path, lambda content: seal_file_content(content, hub_key))
    _encrypt_tls_key(settings, hub_key, is_encrypted=True)


def unseal_files(settings: Settings, hub_key: HubKey) -> None:
    """Write every sealed private key file in plain.

    Raises:
        KeyFileError: a file is damaged, sealed with another hub key, accessible to other users, or cannot be replaced.
    """
    for path in find_key_files(settings):
        if is_sealed_file(path):
            _replace(path, lambda content: unseal_file_content(content, hub_key))
    _encrypt_tls_key(settings, hub_key, is_encrypted=False)


def find_key_files(settings: Settings) -> Iterator[Path]:
    """Yield the key files of this hub that exist, without the hub key and the file of the TLS key."""
    for name in KEY_FILES:
        path = settings.data / name
        if path.exists():
            check_private_file(path)
            yield path


def find_tls_key(settings: Settings) -> Path | None:
    """Return the file with the TLS key and its certificate; None if the hub is not enrolled."""
    path = (settings.clinic.broker.identity or settings.data / FOLDER) / IDENTITY_FILE
    return path if path.exists() else None


def _encrypt_tls_key(settings: Settings, hub_key: HubKey, *, is_encrypted: bool) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415  1 MB, and rarely needed

    path = find_tls_key(settings)
    if path is None:
        return
    check_private_file(path)

    def change(content: bytes) -> bytes:
        end = content.index(b"\n", content.index(_PEM_END)) + 1
        password = hub_key.tls_password() if content.startswith(_ENCRYPTED) else None
        key = load_pem_private_key(content[:end], password)
        if not isinstance(key, EllipticCurvePrivateKey):
            raise ValueError("not a key of an elliptic curve")  # noqa: TRY004 - as the other ways of damage
        return encode_tls_key(key, hub_key if is_encrypted else None) + content[end:]

    if path.read_bytes().startswith(_ENCRYPTED) != is_encrypted:
        _replace(path, change)


def _replace(path: Path, change: Callable[[bytes], bytes]) -> None:
    try:
        replace_secret(path, change(path.read_bytes()))
    except OSError as error:
        raise KeyFileError(f"cannot replace {path} ({error.strerror}): check the disk, then run this again") from error
    except (ValueError, TypeError, PermanentError) as error:
        raise KeyFileError(f"{path} is damaged, or sealed with another hub key: restore it from a backup") from error

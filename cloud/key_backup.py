"""Encrypted backups of the key store. They expire: 30 days after a subject was erased, no valid backup holds its keys.

    file = title line, then one line of hexadecimal digits: CBOR [created_s, expires_s, HPKE encapsulation and ciphertext]

A backup is encrypted for the recovery key, which is kept offline and has no other use: no data key is wrapped for it. `restore`
refuses an expired backup, and leaves out the subjects that were erased since. A file that was copied elsewhere and the recovery
key together can still be decrypted by other means: delete expired copies, and keep the recovery key offline.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from cloud.errors import ClinicError
from cloud.key_store import KeyStore
from cloud.signing_keys import USES, SigningKeys, key_file
from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.key_files import (
    KeyFileError,
    create_private_file,
    create_secret_file,
    load_private_file,
    load_public_file,
    write_public_file,
)
from sync.recipients import RecipientKeyPair, RecipientPublicKey
from sync.signing import SigningKey, Use
from sync.wire import FORMAT, is_count, is_name

LIFETIME_S: Final = 30 * 86_400
"""How long a backup may be restored: an erased subject is unreadable everywhere after this time."""
BACKUP_SUFFIX: Final = ".backup"
LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Largest backup: a key pair takes 100 bytes, so this is enough for half a million subjects."""
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LABEL: Final = "pulsegate key store backup"
_TITLE: Final = f"pulsegate key store backup, version {FORMAT}"
_PRIVATE_TITLE: Final = f"pulsegate recovery private key, version {FORMAT}"
_PUBLIC_TITLE: Final = f"pulsegate recovery public key, version {FORMAT}"


@dataclass(frozen=True, slots=True)
class RestoredKeys:
    """How many subjects' keys a restore brought back, and how many it left out because the subjects were erased."""

    subjects: int
    erased: int


def create_recovery_key(private: Path, public: Path) -> None:
    """Create a recovery key: the private file belongs on a medium that is kept offline, the public one with the clinic.

    Raises:
        KeyFileError: the private file exists, or cannot be written.
        OSError: the public file cannot be written.
    """
    pair = RecipientKeyPair.generate()
    create_private_file(private, _PRIVATE_TITLE, pair.to_bytes())
    write_public_file(public, _PUBLIC_TITLE, pair.public.to_bytes())


def write_backup(path: Path, keys: KeyStore, signing: SigningKeys, recovery: Path, now_s: int) -> None:
    """Encrypt all keys of the clinic into a new file.

    Raises:
        KeyFileError: the recovery key cannot be read, or the backup exists or cannot be written.
    """
    public = load_public_file(recovery, _PUBLIC_TITLE, RecipientPublicKey.from_bytes)
    content = {
        "subjects": {subject: [pair.to_bytes() for pair in keys.pairs(subject)] for subject in keys.subjects()},
        "signing": {str(key.use): key.to_bytes() for key in (getattr(signing, use) for use in USES)},
    }
    expires_s = now_s + LIFETIME_S
    recipient = MLKEM768X25519PublicKey(public.mlkem, public.x25519)
    sealed = _SUITE.encrypt(encode_cbor(content), recipient, encode_cbor([_LABEL, FORMAT, now_s, expires_s]))
    create_secret_file(path, f"{_TITLE}\n{encode_cbor([now_s, expires_s, sealed]).hex()}\n".encode())


def restore_backup(path: Path, folder: Path, keys: KeyStore, recovery: Path, *, now_s: int) -> RestoredKeys:
    """Bring back the keys of a backup that are missing; existing ones stay, and erased subjects are left out.

    Raises:
        ClinicError: the backup has expired, is damaged, or is for another recovery key.
        KeyFileError: a key file cannot be read or written.
    """
    created_s, expires_s, sealed = load_private_file(path, _TITLE, _parse_outer)
    if not created_s <= now_s <= expires_s:
        raise ClinicError(
            f"the backup {path} may no longer be restored: it expired, or the clock is wrong; give a newer backup"
        )
    pair = load_private_file(recovery, _PRIVATE_TITLE, RecipientKeyPair.from_bytes)
    try:
        info = encode_cbor([_LABEL, FORMAT, created_s, expires_s])
        content = decode_cbor(
            _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(pair.mlkem, pair.x25519), info), limit_bytes=LIMIT_BYTES
        )
    except (InvalidTag, ValueError) as error:
        raise ClinicError(f"cannot open the backup {path}: it is damaged, or encrypted for another recovery key") from error
    gone = keys.erased()
    restored = {subject: pairs for subject, pairs in content["subjects"].items() if subject not in gone}
    for subject, pairs in restored.items():
        _add_missing(keys, subject, pairs)
    for name, scalar in content["signing"].items():
        if not key_file(folder, Use(name)).exists():
            SigningKey.from_bytes(Use(name), scalar).create(key_file(folder, Use(name)))
    return RestoredKeys(len(restored), len(content["subjects"]) - len(restored))


def delete_expired(folder: Path, now_s: int) -> int:
    """Delete the expired backups of a folder; returns their number. A damaged file stays, and is not restorable either.

    Raises:
        OSError: a file cannot be deleted.
    """
    n = 0
    for path in sorted(folder.glob(f"*{BACKUP_SUFFIX}")):
        try:
            _, expires_s, _ = load_private_file(path, _TITLE, _parse_outer)
        except KeyFileError:
            continue
        if expires_s < now_s:
            path.unlink()
            n += 1
    return n


def _add_missing(keys: KeyStore, subject: str, pairs: Iterable[bytes]) -> None:
    known = {pair.public.fingerprint for pair in keys.pairs(subject)}
    for data in pairs:
        pair = RecipientKeyPair.from_bytes(data)
        if is_name(subject) and pair.public.fingerprint not in known:
            keys.add(subject, pair)


def _parse_outer(data: bytes) -> tuple[int, int, bytes]:
    try:
        outer: Any = decode_cbor(data, limit_bytes=LIMIT_BYTES)
    except CborError as error:
        raise ValueError("not a backup") from error
    if not isinstance(outer, list) or len(outer) != 3 or not (is_count(outer[0]) and is_count(outer[1])):
        raise ValueError("not a backup")
    if not isinstance(outer[2], bytes):
        raise ValueError("not a backup")  # noqa: TRY004 - a parser of key files raises ValueError
    return outer[0], outer[1], outer[2]

"""Writes the files by which a client or a server proves who it is and knows others: `identity.pem` and `roots.pem`."""

from pathlib import Path
from typing import Final

from config.files import replacing

IDENTITY_FILE: Final = "identity.pem"
"""A private key, its certificate and the issuing CA. One file, so that a reader never finds a key without its certificate."""
ROOTS_FILE: Final = "roots.pem"
"""The roots of the site: one, or two while a new root replaces an older one."""
_PUBLIC_MODE: Final = 0o644


def write_identity(folder: Path, key: bytes, chain: bytes, roots: bytes) -> None:
    """Write or replace both files, atomically each; the folder is created if it is missing. All arguments are PEM.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content, mode in ((ROOTS_FILE, roots, _PUBLIC_MODE), (IDENTITY_FILE, key + chain, 0o600)):
        with replacing(folder / name, durable=True, mode=mode) as draft:
            draft.write_bytes(content)

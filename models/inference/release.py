"""The released files: read once, checked, and used as read."""

import hashlib
import json
from importlib import resources

from models.inference.session import ModelError


def released(file: str) -> bytes:
    """The bytes of one released file, read once and checked against size and SHA-256 in the manifest.

    Raises:
        ModelError: the file or the manifest is missing or damaged, or they do not belong together.
    """
    folder = resources.files("models") / "release"
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        entry = manifest["files"][file]
        data = (folder / file).read_bytes()
        expected = (int(entry["size"]), str(entry["sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} or its manifest is missing or damaged ({error}). Reinstall pulsegate.") from error
    found = (len(data), hashlib.sha256(data).hexdigest())
    if found != expected:
        raise ModelError(
            f"{file} is not the released file (SHA-256 {found[1][:12]}…, manifest {expected[1][:12]}…). Reinstall pulsegate."
        )
    return data

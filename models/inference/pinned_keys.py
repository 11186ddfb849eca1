"""The public keys whose model releases this agent accepts.

Several, so that a key can be replaced: pin the new one, let every hub have that version, then sign with it, then remove the
old one. `python -m models.training.release --new-key PATH` makes a key and prints its line; see docs/model-release.md.
"""

from collections.abc import Mapping
from typing import Final

PINNED: Final[Mapping[str, str]] = {
    "b9a3cf80aebb3ae6": "4e48c513bbef786823bdce111d36864e9913465f1ba1330cd31c325a3e1a74b4",  # since 2026-11-24
}
"""Ed25519 public keys, hexadecimal, by their ids: the first 16 hexadecimal digits of the key's SHA-256."""

"""The public keys whose model releases this agent accepts.

Several, so that a key can be replaced: pin the new one, let every hub have that version, then sign with it, then remove the
old one. `python -m training.release --new-key PATH` makes a key and prints its line; see docs/model-release.md.
"""

from collections.abc import Mapping
from typing import Final

PINNED: Final[Mapping[str, str]] = {
    "4af47bded1321f01": "b8698da1fa95986e3b600ac37275d008084e4d1b7608d1e67ff66151a80801e1",  # since 2026-11-25
}
"""Ed25519 public keys, hexadecimal, by their ids: the first 16 hexadecimal digits of the key's SHA-256."""

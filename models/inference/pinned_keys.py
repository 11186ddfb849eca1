"""The public keys whose model releases this agent accepts.

There may be several, because replacing a key takes three steps: pin the new key and update every hub; sign with the new key;
then remove the old key. `python -m training.release --new-key PATH` makes a key and prints its line; see
docs/model-release.md.
"""

from collections.abc import Mapping
from typing import Final

PINNED_KEYS: Final[Mapping[str, str]] = {
    "4af47bded1321f01": "b8698da1fa95986e3b600ac37275d008084e4d1b7608d1e67ff66151a80801e1",  # since 2026-11-25
}
"""Ed25519 public keys in hexadecimal, by key id: the first 16 hexadecimal digits of the key's SHA-256."""

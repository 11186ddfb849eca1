"""The public keys whose model releases this agent accepts.

There may be several, because replacing a key takes three steps: pin the new key and update every hub; sign with the new key;
then remove the old key. `python -m training.release --new-key PATH` generates a key and prints its line; see
docs/model-release.md.
"""

from collections.abc import Mapping
from typing import Final

PINNED_KEYS: Final[Mapping[str, str]] = {
    "bee102ffd65ea5af": "c424afb854f5651b1f3f41ad2dc625cfd4dfc5eff837b65fbb17cc3c5be14f05",  # since 2026-11-29
    "46b6020143959916": "b345b46e852e38c1883dd454a73ea74dfebb56c30c71b99ba0f230c13eb3ed41",  # since 2026-12-01
}
"""Ed25519 public keys in hexadecimal, by key id: the first 16 hexadecimal digits of the key's SHA-256."""

"""The nonces of renewals: each for one hub, for a minute, once. Only the process that made one accepts it.

expiry (u64, seconds of a monotonic clock) | 16 random bytes | first 16 bytes of HMAC-SHA-256 over the two and the hub
"""

import hashlib
import hmac
import secrets
import threading
from typing import Final

from sync.enrolment import RENEWAL_NONCE_BYTES

LIFE_S: Final = 60
"""A hub signs and sends its request within seconds; over 2G a new connection takes ten."""
_EXPIRY_BYTES: Final = 8
_TAG_BYTES: Final = 16
_KEY_BYTES: Final = 32


class RenewalNonces:
    """Makes nonces without storing them; those that were used are remembered until they expire."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._used: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def make(self, hub: str, now_s: float) -> bytes:
        """Return a nonce for a hub, whether the hub exists or not."""
        random_length = RENEWAL_NONCE_BYTES - _EXPIRY_BYTES - _TAG_BYTES
        body = (int(now_s) + LIFE_S).to_bytes(_EXPIRY_BYTES, "big") + secrets.token_bytes(random_length)
        return body + self._tag(body, hub)

    def is_valid(self, nonce: bytes, hub: str, now_s: float) -> bool:
        """Whether this process made the nonce for this hub, and it has not expired. It may have been used."""
        body, tag = nonce[:-_TAG_BYTES], nonce[-_TAG_BYTES:]
        is_ours = hmac.compare_digest(tag, self._tag(body, hub))
        return is_ours and now_s < _expiry_s(nonce)

    def use(self, nonce: bytes, now_s: float) -> bool:
        """Use a valid nonce up; return False if it was used before."""
        with self._lock:
            self._used = {used: expiry_s for used, expiry_s in self._used.items() if now_s < expiry_s}
            is_new = nonce not in self._used
            self._used[nonce] = _expiry_s(nonce)
        return is_new

    def _tag(self, body: bytes, hub: str) -> bytes:
        return hmac.digest(self._key, body + hub.encode(), hashlib.sha256)[:_TAG_BYTES]


def _expiry_s(nonce: bytes) -> int:
    return int.from_bytes(nonce[:_EXPIRY_BYTES], "big")

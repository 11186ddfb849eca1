"""The device keys of a hub: the present one, and those of earlier enrolments, which verify what they signed in their time."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sync.data_keys import KeyStatement
from sync.signing import SignatureError, Use, VerifyingKey

CLOCK_TOLERANCE_S: Final = 3600
"""How far a hub's clock may be ahead when an assignment or a device key ends. Clocks that are set by the network are right
within seconds; an hour more of the same patient does no harm."""
_SECONDS_PER_DAY: Final = 86_400
_CACHED_STATEMENTS: Final = 4096
"""Statements whose signature is known to be right: one a patient and day, so those of a hundred patients for a month."""


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A device key, and until when it was the hub's (seconds since 1970); None for the present one."""

    key: VerifyingKey
    until_s: int | None = None

    def may_sign(self, day: int) -> bool:
        """Whether the key may have signed for a UTC day (days since 1970)."""
        return self.until_s is None or day <= (self.until_s + CLOCK_TOLERANCE_S) // _SECONDS_PER_DAY


def is_signed(statement: KeyStatement, hub: str, keys: Iterable[DeviceKey]) -> bool:
    """Whether a device key of the hub signed a statement in its time."""
    return any(key.may_sign(statement.day) and _is_signed(statement, hub, key.key.to_bytes()) for key in keys)


@lru_cache(maxsize=_CACHED_STATEMENTS)
def _is_signed(statement: KeyStatement, hub: str, device: bytes) -> bool:
    """Whether a device key signed a statement. A hub repeats its statements until they are acknowledged."""
    try:
        statement.verify(hub, VerifyingKey.from_bytes(Use.DEVICE, device))
    except SignatureError:
        return False
    return True

"""What an emulated sensor sent and what the hub confirmed, and the audit of it against what was stored."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class SentValue:
    """A value that was handed to the radio. Times are those of the event loop, in seconds.

    `confirmed_s` is None for a notification, and for an indication that the hub did not confirm.
    """

    sent_s: float
    characteristic: str
    payload: bytes
    is_indication: bool
    confirmed_s: float | None = None


@dataclass(slots=True)
class SentValues:
    """Everything that one sensor sent, oldest first, and what a hub wrote to it (characteristic, value)."""

    values: list[SentValue] = field(default_factory=list)
    writes: list[tuple[str, bytes]] = field(default_factory=list)

    def confirmed(self, characteristic: str) -> list[bytes]:
        """Return the indicated values of a characteristic that were confirmed, with repetitions."""
        return [each.payload for each in self.values if each.characteristic == characteristic and each.confirmed_s is not None]

    def sent(self, characteristic: str) -> list[bytes]:
        """Return all values of a characteristic that were sent, with repetitions."""
        return [each.payload for each in self.values if each.characteristic == characteristic]


@dataclass(frozen=True, slots=True)
class ValueAudit:
    """Payloads that were confirmed and not stored, stored more than once, and stored although they were never sent."""

    missing: frozenset[bytes]
    stored_twice: frozenset[bytes]
    invented: frozenset[bytes]

    @property
    def passed(self) -> bool:
        return not (self.missing or self.stored_twice or self.invented)


def audit_values(sent: SentValues, characteristic: str, stored: Iterable[bytes]) -> ValueAudit:
    """Compare what a sensor indicated with the payloads that were stored. Each confirmed payload must be stored once.

    A payload that was sent but not confirmed may be stored: the confirmation can be lost, not the value. A payload that was
    sent repeatedly is the same stored result each time, so it too must be stored once.
    """
    counts = Counter(stored)
    return ValueAudit(
        missing=frozenset(sent.confirmed(characteristic)) - counts.keys(),
        stored_twice=frozenset(payload for payload, count in counts.items() if count > 1),
        invented=frozenset(counts.keys() - set(sent.sent(characteristic))),
    )

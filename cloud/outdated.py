"""What the clinic takes of a hub whose agent is older than this clinic. `docs/protocol.md`, "Versions", is the reference."""

from dataclasses import dataclass
from typing import Final

from sync.versions import ACCEPTED_REVISIONS, FIRST_REVISION, REVISION

GRACE_S: Final = 90 * 86_400
"""How long everything is taken of an outdated hub of the revision before. In three months a clinic can reach every patient. An
agent that is not updated gets no security fixes either, so that the time must end."""
_US_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """What holds for a hub: `update_by_s` is the end of its grace period, in seconds since 1970, None if it is not outdated.

    After the end `is_refused`: only its alerts and statuses are taken. `revision` is that of its agent.
    """

    revision: int
    update_by_s: int | None
    is_refused: bool


def find_policy(revision: int | None, outdated_us: int | None, now_us: int) -> VersionPolicy:
    """Return what holds for a hub: the first two are of its row in `hub_states`. Everything is taken of a newer hub."""
    revision = FIRST_REVISION if revision is None else revision
    if outdated_us is None or revision >= REVISION:
        return VersionPolicy(revision, None, is_refused=False)
    grace_s = GRACE_S if revision in ACCEPTED_REVISIONS else 0
    update_by_s = outdated_us // _US_PER_S + grace_s
    return VersionPolicy(revision, update_by_s, is_refused=now_us >= update_by_s * _US_PER_S)

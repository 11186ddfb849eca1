"""Findings of rules and models. Times are stream seconds: seconds since the first sample of the stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

INCONCLUSIVE: Final = ("noise", "gaps", "lead_off", "too_short", "out_of_distribution", "disagreement")
"""Reasons for which a finding is inconclusive."""

EPISODES: Final[Mapping[str, str]] = {"asystole": "pause", "no_beats": "pause", "vf": "vt"}
"""Kinds that may continue an episode of another kind, with the same onset: a pause becomes an asystole, and what seemed to be a
tachycardia a fibrillation."""

STALE_REASON: Final = "stale.no_newer_value"
"""The reason key of an episode of which no newer value has come."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule or model reports about a stretch of signal.

    A finding is reported when its criterion is first met, with `end_s` None because it is ongoing. It is reported again with
    the same kind and onset when it ends. An episode that changes its kind (`EPISODES`) keeps its onset.

    Attributes:
        kind: for example `af` or `pause`.
        onset_s, end_s: the stretch in stream seconds; `end_s` is None while the finding is ongoing.
        source: the model with its version, or the rule.
        probability: of the finding, if a model reports it.
        measured: the numbers behind the finding, in the units that their keys name.
        inconclusive: why nothing can be stated about the stretch, one of `INCONCLUSIVE`; None for a conclusive finding.
        lost: with an end: only the signal ended there. Whether the episode goes on is not known.
        reasons: keys of further reasons, beside the criterion of the kind.
        recovered: the end of an episode that was lost before: a newer value is within the limits. It raises no alert.
    """

    kind: str
    onset_s: float
    end_s: float | None
    source: str
    probability: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    inconclusive: str | None = None
    lost: bool = False
    reasons: tuple[str, ...] = ()
    recovered: bool = False

    @property
    def episode(self) -> tuple[str, float]:
        """What identifies the episode: the kind that it began with, or could have begun with, and its onset."""
        return EPISODES.get(self.kind, self.kind), self.onset_s

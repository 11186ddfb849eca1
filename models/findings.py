"""Findings of rules and models. Times are stream seconds: seconds since the first sample of the stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

INCONCLUSIVE: Final = ("noise", "gaps", "lead_off", "too_short", "out_of_distribution", "disagreement")
"""Reasons for which a finding is inconclusive."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule or model reports about a stretch of signal.

    A finding is reported when its criterion is first met, with `end_s` None because it is ongoing. It is reported again with
    the same kind and onset when it ends.

    Attributes:
        kind: for example `af` or `pause`.
        onset_s, end_s: the stretch in stream seconds; `end_s` is None while the finding is ongoing.
        source: the model with its version, or the rule.
        probability: of the finding, if a model reports it.
        measured: the numbers behind the finding, in the units that their keys name.
        inconclusive: why nothing can be stated about the stretch, one of `INCONCLUSIVE`; None for a conclusive finding.
    """

    kind: str
    onset_s: float
    end_s: float | None
    source: str
    probability: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    inconclusive: str | None = None

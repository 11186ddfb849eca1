"""What rules and models say, in stream seconds: seconds since the first sample of the stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

INCONCLUSIVE: Final = ("noise", "gaps", "lead_off", "too_short", "out_of_distribution", "disagreement")
"""Why a model abstains."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement about a stretch of ECG.

    It is yielded when its criterion is first met (`end_s` is None: it goes on) and again, with the same kind and onset, when
    it ends. `measured` holds the numbers behind it, in the units their keys name. `inconclusive` says why nothing can be said
    about the stretch: one of `INCONCLUSIVE`.
    """

    kind: str
    onset_s: float
    end_s: float | None
    source: str
    probability: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    inconclusive: str | None = None

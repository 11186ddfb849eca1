"""How far noise raises the threshold of the QRS detector for a candidate with an unknown shape, or one that comes early."""

from typing import Final

from models.signal.shape import QRS_CORRELATION

MIN_CORRELATION: Final = 0.2
DISSIMILARITY_FACTOR: Final = 1.0
"""If the correlation with the known shapes is at most `MIN_CORRELATION`, the threshold is raised by this share of itself; if it
is at least `QRS_CORRELATION`, the threshold is not raised. Muscle noise at 12 dB has correlations of 0.25 to 0.6."""

EARLY_RR_SHARE: Final = 0.9
EARLINESS_FACTOR: Final = 2.0
"""The threshold is raised for a candidate that comes before `EARLY_RR_SHARE` of the median RR interval has passed: the earlier
it comes, the more, and at most by `EARLINESS_FACTOR` times the noise-to-beat ratio."""

DOUBT_NOISE_RATIOS: Final = (0.13, 0.17)
"""Noise-to-beat ratios at which a candidate's shape and timing start to raise the threshold, and at which they count fully. In
most clean records, P and T waves alone cause a ratio of 0.1."""


def raise_threshold(
    threshold: float, noise: float, beat: float, correlation: float | None, rr: float | None, median_rr: float
) -> float:
    """Return the threshold for a candidate.

    Args:
        threshold: that of a candidate without doubt, in units of the envelope.
        noise: the noise level, in the same units.
        beat: the median height of the last beats, in the same units.
        correlation: of the candidate with the known shapes; None if it was not compared.
        rr: samples since the last beat; None if the rhythm is not known yet.
        median_rr: median RR interval in samples.
    """
    low, high = DOUBT_NOISE_RATIOS
    if noise <= low * beat:
        return threshold
    doubt = min((noise / beat - low) / (high - low), 1.0)
    if correlation is not None:
        dissimilarity = min(max((QRS_CORRELATION - correlation) / (QRS_CORRELATION - MIN_CORRELATION), 0.0), 1.0)
        threshold *= 1 + DISSIMILARITY_FACTOR * dissimilarity * doubt
    if rr is not None:
        early = max(1 - rr / (EARLY_RR_SHARE * median_rr), 0.0)
        threshold *= 1 + EARLINESS_FACTOR * min(noise / beat, 1.0) * early * doubt
    return threshold

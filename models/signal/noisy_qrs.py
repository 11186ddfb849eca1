"""QRS detection with a beat classifier, a network that classifies peak candidates in noise.

In noise, beats and bursts of muscle noise are equally high and may look alike. A network that sees the last second separates
them better than any threshold, and locates the R peak where the highest point is noise. When the classifier is asked:

- in noise: about every candidate that is not far below the threshold;
- in mild noise, and after it has long agreed with the thresholds: about candidates that height and timing leave in doubt;
- in a clean signal: only about early candidates, because a noise burst starts with those. There the detector errs once in a
  thousand beats, and the classifier can only reject a beat.

A beat with a probability below `CERTAIN_PROBABILITY` is held back until the next beat is due; if that one arrives on time, the
doubtful one is discarded.

The noise constants are noise-to-beat ratios (noise level over median beat height). `models.signal.qrs` states how the constants
were chosen.
"""

from math import inf
from typing import Final, NamedTuple

from models.signal.beat_classifier import (
    MAX_R_PEAK_OFFSET_SAMPLES,
    SAMPLES_AFTER,
    SAMPLES_BEFORE,
    BeatClassifier,
    CandidateFeatures,
    input_vector,
)
from models.signal.candidates import PeakCandidate, RPeak
from models.signal.filters import RingBuffer
from models.signal.peak import R_PEAK_SEARCH_SAMPLES
from models.signal.qrs import (
    LOW_BEAT_SHARE,
    MAX_HEIGHT_RATIO,
    REFRACTORY_SAMPLES,
    SHAPE_TRUST_SLOPE,
    THRESHOLD_BEAT_SHARE,
    THRESHOLD_NOISE_FACTOR,
    TRUST_SHAPE_NOISE_RATIO,
    QrsDetector,
)
from models.signal.shape import BAND_MARGIN, HISTORY_BEATS, MAX_SHIFT_SAMPLES, QrsShape

MAX_CLEAN_NOISE_RATIO: Final = 0.13
"""Largest noise-to-beat ratio of a clean signal. Above it the classifier decides on doubtful candidates, and the detector
itself starts to raise its threshold (`doubt.DOUBT_NOISE_RATIOS`)."""

MAX_MILD_NOISE_RATIO: Final = 0.15
"""Largest noise-to-beat ratio of mild noise, in which a candidate is not doubtful if height and timing agree. Most records that
look clean have less."""

AGREEMENTS_FOR_MILD: Final = 40
"""Noise counts as mild after this many consecutive classifications that agree with the height threshold and are certain. The
noise then consists of tall T waves; muscle noise at 12 dB hardly ever produces so many agreements."""

MAX_VERY_CLEAN_NOISE_RATIO: Final = 0.1
"""Largest noise-to-beat ratio at which an early candidate of full height (`FULL_HEIGHT_SHARE`) is accepted unclassified. P and
T waves alone reach this ratio; above it, bursts of muscle noise are as high as beats."""

EARLY_THRESHOLD_SHARE: Final = 0.7
"""In mild noise, the classifier is not asked about an early candidate below this share of the threshold."""

BEAT_PROBABILITY: Final = 0.5
"""Probability at and above which a candidate is a beat."""

CERTAIN_PROBABILITY: Final = 0.8
"""Probability below which a beat stays pending, because a candidate within the refractory period may be more probable."""

ON_TIME_TOLERANCE: Final = 0.15
"""A beat is on time if its RR interval, without the doubtful beat, differs from the running median by at most this share of the
median. It then refutes the doubtful beat."""

SEARCHBACK_PROBABILITY: Final = 0.2
"""Probability at and above which a search-back may still accept a candidate."""

VETO_PROBABILITY: Final = 0.05
"""Probability below which a beat of a clean signal is rejected."""

MIN_THRESHOLD_SHARE: Final = 0.5
"""A candidate below this share of the threshold is not a beat in any noise; the classifier is not asked."""

MAX_SUBSAMPLED_NOISE_RATIO: Final = 0.2
LEARN_EVERY_N_BEATS: Final = 16
"""Up to this noise-to-beat ratio, the detector learns from one in `LEARN_EVERY_N_BEATS` beats. Shape and noise of a nearly
clean signal change only within minutes, and learning from a beat takes as much time as a classification."""

LEARN_EVERY_N_CLEAN_BEATS: Final = 64
"""The detector learns from one in this many beats of a clean signal; the result hardly depends on the value."""

EARLY_SHORT_RR_SHARE: Final = 0.9
"""A candidate is early if it comes before this share of the second shortest of the last RR intervals. In an irregular rhythm
that interval is short, so few beats count as early."""

VERY_EARLY_RR_SHARE: Final = 0.5
"""A candidate is very early if it comes before this share of the running median RR interval; few beats do."""

FULL_HEIGHT_SHARE: Final = 0.9
"""An early candidate of a very clean signal is a beat if it reaches this share of the median beat height and is not very early:
the network rejected none of 1,200 such candidates in mitdb."""

_NEAR_CANDIDATE: Final = slice(SAMPLES_BEFORE - MAX_SHIFT_SAMPLES, SAMPLES_BEFORE + MAX_SHIFT_SAMPLES + 1)
"""The part of the matched filter's output in which a candidate's height is measured."""


class SubsampledQrsShape(QrsShape):
    """A `QrsShape` that learns from every beat in noise, but from few beats of a nearly clean signal once enough is known."""

    def __init__(self, every_n_clean_beats: int = LEARN_EVERY_N_CLEAN_BEATS) -> None:
        """Learn from one in `every_n_clean_beats` beats of a clean signal."""
        super().__init__()
        self._every_n_clean_beats = every_n_clean_beats
        self._offered = 0

    def should_learn(self, noise: float) -> bool:
        self._offered += 1
        every_n_noisy_beats = LEARN_EVERY_N_BEATS if noise <= MAX_SUBSAMPLED_NOISE_RATIO else 1
        every_n_beats = self._every_n_clean_beats if noise <= MAX_CLEAN_NOISE_RATIO else every_n_noisy_beats
        return self._offered <= HISTORY_BEATS or self._offered % every_n_beats == 0


class DoubtfulBeat(NamedTuple):
    """A beat with a probability below `CERTAIN_PROBABILITY`.

    Attributes:
        beat: the doubtful beat.
        previous: the beat before it.
        median_rr: the median RR interval at that time, in samples.
    """

    beat: PeakCandidate
    previous: PeakCandidate
    median_rr: float

    @property
    def pending_until(self) -> float:
        """Latest sample number at which the next beat would still be on time."""
        return self.previous.sample + self.median_rr + ON_TIME_TOLERANCE * self.median_rr

    def is_refuted_by(self, candidate: PeakCandidate) -> bool:
        """Return whether `candidate`, which is certainly a beat, would be on time if the doubtful beat did not exist."""
        return (
            self.previous.sample + self.median_rr - ON_TIME_TOLERANCE * self.median_rr <= candidate.sample <= self.pending_until
        )


class NoisyQrsDetector(QrsDetector):
    """A `QrsDetector` that asks a beat classifier. The classifier's input does not depend on the chunk size."""

    def __init__(self, signal: RingBuffer, classifier: BeatClassifier) -> None:
        super().__init__(signal)
        self._classifier = classifier
        self._shape = SubsampledQrsShape()
        self._agreements = 0
        """Consecutive classifications that agreed with the height threshold."""
        self._doubtful: DoubtfulBeat | None = None
        """The last beat with a probability below `CERTAIN_PROBABILITY`."""

    @property
    def horizon(self) -> int:
        held = self._find_held_beat()
        decided = super().horizon
        return (
            (min(decided, held.beat.sample - R_PEAK_SEARCH_SAMPLES) if held else decided)
            - MAX_R_PEAK_OFFSET_SAMPLES
            + R_PEAK_SEARCH_SAMPLES
        )

    def finish(self) -> list[RPeak]:
        beats = super().finish()
        self._doubtful = None
        return beats + self._take_beats()

    def _measure(self, candidate: PeakCandidate) -> PeakCandidate:
        """Return the candidate with its classification, where height and timing leave doubt."""
        if self._learning:
            return candidate
        noise = self._noise / self._median_height
        since = candidate.sample - self._last_beat.sample if self._last_beat else inf
        early = since < EARLY_SHORT_RR_SHARE * self._short_rr
        if noise <= MAX_CLEAN_NOISE_RATIO and not early:
            return candidate
        threshold_ratio = candidate.height / (THRESHOLD_NOISE_FACTOR * self._noise + THRESHOLD_BEAT_SHARE * self._median_height)
        if threshold_ratio < MIN_THRESHOLD_SHARE:
            return candidate
        if noise <= MAX_CLEAN_NOISE_RATIO:
            low = noise > MAX_VERY_CLEAN_NOISE_RATIO or candidate.height < FULL_HEIGHT_SHARE * self._median_height
            doubtful = threshold_ratio >= 1.0 and (low or since < VERY_EARLY_RR_SHARE * self._median_rr)
        elif noise > MAX_MILD_NOISE_RATIO and self._agreements < AGREEMENTS_FOR_MILD:
            doubtful = True
        elif early:
            doubtful = threshold_ratio >= EARLY_THRESHOLD_SHARE
        else:
            doubtful = candidate.height < LOW_BEAT_SHARE * self._tall_height
        if not doubtful:
            return candidate
        classified = self._classify(candidate)
        if classified.classification and noise > MAX_CLEAN_NOISE_RATIO:
            probability = classified.classification.probability
            agree = probability >= CERTAIN_PROBABILITY if threshold_ratio >= 1.0 else probability < SEARCHBACK_PROBABILITY
            self._agreements = self._agreements + 1 if agree else 0
        return classified

    def _is_noisy(self) -> bool:
        return self._noise > MAX_CLEAN_NOISE_RATIO * self._median_height

    def _classify(self, candidate: PeakCandidate) -> PeakCandidate:
        """Return the candidate with its classification and, in noise, its height measured by the matched filter."""
        context = self._signal.edge_padded(
            candidate.sample - SAMPLES_BEFORE - BAND_MARGIN, candidate.sample + SAMPLES_AFTER + 1, self._stretch_start
        )
        rows = self._shape.classifier_rows(context)
        if rows is None:
            return super()._measure(candidate)
        trust = min(max(SHAPE_TRUST_SLOPE * (self._noise_ratio() - TRUST_SHAPE_NOISE_RATIO), 0.0), 1.0)
        matched = max(0.0, *rows[1, _NEAR_CANDIDATE].tolist()) * self._template_height
        height = (1 - trust) * candidate.height + trust * matched
        return PeakCandidate(
            candidate.sample, candidate.envelope, height, None, self._classifier(input_vector(rows, self._features(candidate)))
        )

    def _features(self, candidate: PeakCandidate) -> CandidateFeatures:
        last, median = self._last_beat, self._median_height
        previous, since = (last.height / median, candidate.sample - last.sample) if last else (1.0, inf)
        noise = self._noise_ratio()
        return CandidateFeatures(
            candidate.height / median, noise, previous, self._tall_height / median, since, self._rr_intervals
        )

    def _decide_on_beat(self, candidate: PeakCandidate) -> None:
        if candidate.classification is None:
            QrsDetector._decide_on_beat(self, candidate)  # faster than super()
        elif self._is_noisy():
            self._decide_by_probability(candidate, candidate.classification.probability)
        elif candidate.classification.probability < VETO_PROBABILITY:
            self._update_noise(candidate)
        else:
            super()._decide_on_beat(candidate)

    def _decide_by_probability(self, candidate: PeakCandidate, probability: float) -> None:
        """Decide on a candidate in noise by the classifier's probability."""
        pending = self._pending
        if pending and pending.classification and candidate.sample - pending.sample < REFRACTORY_SAMPLES:
            if probability <= pending.classification.probability:
                self._update_noise(candidate)
                return
            self._update_noise(pending)
            self._pending = None
        self._commit()
        if self._last_beat and candidate.sample - self._last_beat.sample < REFRACTORY_SAMPLES:
            return
        is_p_wave = probability >= SEARCHBACK_PROBABILITY and self._is_p_wave(candidate)
        if probability < BEAT_PROBABILITY or is_p_wave:
            self._update_noise(candidate)
            if probability >= SEARCHBACK_PROBABILITY and not is_p_wave:
                self._searchback_candidates.append(candidate)
            return
        beat = (
            candidate
            if candidate.height >= self._median_height / MAX_HEIGHT_RATIO
            else candidate._replace(height=self._median_height / MAX_HEIGHT_RATIO)
        )
        if probability < CERTAIN_PROBABILITY:
            self._pending = beat
            return
        if self._doubtful and self._doubtful.beat is self._last_beat and self._doubtful.is_refuted_by(candidate):
            self._retract(self._doubtful)
        self._accept(beat)

    def _commit(self) -> None:
        beat, previous, median_rr = self._pending, self._last_beat, self._median_rr
        super()._commit()
        if (
            beat
            and beat.classification
            and beat.classification.probability < CERTAIN_PROBABILITY
            and previous
            and self._is_noisy()
        ):
            self._doubtful = DoubtfulBeat(beat, previous, median_rr)

    def _find_held_beat(self) -> DoubtfulBeat | None:
        """Return the last beat if it is doubtful and the next beat may still refute it; it is not reported before that."""
        doubtful = self._doubtful
        return doubtful if doubtful and doubtful.beat is self._last_beat and self._position <= doubtful.pending_until else None

    def _retract(self, doubtful: DoubtfulBeat) -> None:
        """Discard a doubtful beat that the next beat refuted."""
        self._unreported.pop()
        self._rr_intervals.pop()
        self._last_beat = doubtful.previous

    def _take_beats(self) -> list[RPeak]:
        if not self._doubtful or not self._find_held_beat():
            return super()._take_beats()
        *beats, held = self._unreported
        self._unreported = [held]
        return beats

"""Streaming QRS detection at 125 Hz, derived from Pan & Tompkins (IEEE Trans. Biomed. Eng. 32, 1985).

The envelope of the QRS band has one peak per heart beat. A peak is a beat if it exceeds a threshold: a multiple of the noise
plus a share of the median height of the last eight beats. Lower peaks are kept for a search-back, which runs when a beat is
overdue. Every decision depends on sample numbers only: neither chunk sizes nor the polarity of the lead change the result.

How the constants were chosen: some 70 constants of this detector (here and in `noisy_qrs`, `doubt`, `shape`, `envelope` and
`peak`) were chosen by its scores on the MIT-BIH Arrhythmia Database (mitdb), as recorded and with added noise. Its figures on
mitdb are therefore development figures, not an independent test. A docstring cites a source where the value has one.

A noise-to-beat ratio is the noise level divided by the median height of the last eight beats.
"""

from math import inf
from typing import Final

from models.signal.beat_classifier import MAX_R_PEAK_OFFSET_SAMPLES
from models.signal.candidates import PeakCandidate, RPeak
from models.signal.doubt import raise_threshold
from models.signal.envelope import ENVELOPE_MARGIN
from models.signal.envelope_peaks import LOOKAHEAD_SAMPLES, MAX_ENVELOPE_MV, MIN_ENVELOPE_MV, EnvelopePeaks
from models.signal.filters import RingBuffer, Samples, median, median_of_sorted
from models.signal.latest import Latest
from models.signal.learning import (
    DECAY_AFTER_SAMPLES,
    DECAY_FACTOR,
    LEARNING_SAMPLES,
    MAX_LEARNING_SAMPLES,
    WATCH_NOISE_RATIO,
    FastRhythmWatch,
    Level,
    learn_level,
)
from models.signal.peak import FAST_RR_SAMPLES, R_PEAK_CONTEXT_SAMPLES, R_PEAK_SEARCH_SAMPLES, locate_r_peak
from models.signal.resample import RATE_HZ
from models.signal.shape import CONTEXT_SAMPLES, TEMPLATE_WEIGHT, BeatSignal, QrsShape, interval_before
from models.signal.waves import (
    MAX_P_ENVELOPE_MV,
    MAX_T_NOISE_SHARE,
    MAX_T_WAVE_SAMPLES,
    MIN_T_WAVE_SAMPLES,
    P_WAVE_SAMPLES,
    T_WAVE_HEIGHT_SHARE,
    T_WAVE_SAMPLES,
    KnownBeat,
    is_p_wave,
    is_t_wave,
    measure_steepness,
)


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


REFRACTORY_SAMPLES: Final = _samples(0.19)
"""The refractory period, in which the ventricles cannot be excited again: 0.2 s (Pan & Tompkins, section III), less one sample
by which noise moves the peaks of the envelope, so that every beat of 300/min is found."""

MIN_R_PEAK_SPACING_SAMPLES: Final = REFRACTORY_SAMPLES / 2
"""Smallest distance between two reported R peaks, in samples."""

LOW_BEAT_SHARE: Final = 0.8
"""A beat below this share of a tall beat (the third highest of the last eight) stays pending until a P wave is ruled out."""

THRESHOLD_NOISE_FACTOR: Final = 1.75
THRESHOLD_BEAT_SHARE: Final = 0.1
"""The threshold is this multiple of the noise plus this share of the median beat height."""

TRUST_SHAPE_NOISE_RATIO: Final = 0.13
SHAPE_TRUST_SLOPE: Final = 6.0
"""Noise-to-beat ratio above which the matched filter measures a candidate's height instead of the envelope, and the increase of
the filter's weight per unit of the ratio."""

LOCATE_BY_SHAPE_NOISE_RATIO: Final = 0.25
"""Noise-to-beat ratio from which the matched filter locates the R peak, because the highest point may be noise."""

SEARCHBACK_NOISE_FACTOR: Final = 1.0
SEARCHBACK_BEAT_SHARE: Final = 0.1
"""The threshold of the search-back: this multiple of the noise plus this share of the median beat height."""

SEARCHBACK_RR_FACTOR: Final = 1.66
"""A beat is overdue after this many median RR intervals: Pan & Tompkins, section III."""

MAX_SEARCHBACK_WAIT_SAMPLES: Final = _samples(2.5)
"""Longest time until a beat is overdue: longer than an RR interval at 30/min, shorter than a pause that raises an alert."""

MAX_HEIGHT_RATIO: Final = 3.0
"""Heights above this multiple of the median are limited to it: an artefact must not raise the threshold above real beats."""

_HISTORY_BEATS: Final = 8
"""Beats in the running medians of height and RR interval."""

_R_PEAK_CONTEXT: Final = slice(CONTEXT_SAMPLES - R_PEAK_CONTEXT_SAMPLES, CONTEXT_SAMPLES + R_PEAK_CONTEXT_SAMPLES + 1)
"""The part of these samples in which the R peak is located."""


class QrsDetector:
    """Detects R peaks in 125 Hz samples, one gap-free stretch at a time. Learnt heights and shapes are kept across gaps."""

    def __init__(self, signal: RingBuffer) -> None:
        """Read samples from `signal`, which keeps at least `BUFFER_SAMPLES`; the caller appends samples to it before `push`."""
        self._signal = signal
        self._heights: Latest[float] = Latest(_HISTORY_BEATS)
        self._rr_intervals: Latest[int] = Latest(_HISTORY_BEATS)
        self._median_rr = RATE_HZ
        """Running median of the RR intervals, in samples; one second while there is none."""
        self._short_rr = self._median_rr
        """Second shortest of the last RR intervals, in samples; the median until there are `_HISTORY_BEATS`."""
        self._unreported: list[RPeak] = []
        """Accepted beats that have not been reported yet."""
        self._last_r_peak = -inf
        """Sample number of the last R peak."""
        self._last_amplitude_mv = 0.0
        self._median_height = self._tall_height = 0.0
        """Median and third highest of the last beat heights."""
        self._noise = 0.0
        self._shape = QrsShape()
        self._template_height = 0.0
        """Running mean of the envelope's height at beats; it corresponds to a matched filter output of 1."""
        self._known_steepness = 0.0
        """Running mean of the steepness of beats over their height in the envelope."""
        self.start(0)

    def start(self, index: int) -> None:
        """Start a gap-free stretch whose first sample has number `index`."""
        self._peaks = EnvelopePeaks(self._signal, index)
        self._stretch_start = self._position = self._no_beat_since = index
        self._learning = not self._heights
        self._learning_until: float = inf
        self._last_beat: PeakCandidate | None = None
        self._pending: PeakCandidate | None = None
        self._searchback_candidates: list[PeakCandidate] = []
        self._searchback_at: float = inf
        self._overdue = False
        self._watch = FastRhythmWatch(self._context)

    @property
    def horizon(self) -> int:
        """Sample number before which every beat has been reported; rarely, a search-back in falling noise finds another."""
        threshold = 0.0 if self._learning else self._searchback_threshold()
        undecided = [candidate.sample for candidate in self._searchback_candidates if candidate.height >= threshold]
        if self._pending:
            undecided.append(self._pending.sample)
        return min([self._position, *undecided]) - R_PEAK_SEARCH_SAMPLES

    def push(self) -> list[RPeak]:
        """Process the samples appended since the last call (at most 2 s); return the beats that can now be reported."""
        self._peaks.extend(self._signal.end - ENVELOPE_MARGIN)
        self._process_until(self._peaks.envelope.end - LOOKAHEAD_SAMPLES)
        return self._take_beats()

    def finish(self) -> list[RPeak]:
        """End the stretch and return the remaining beats."""
        self._peaks.extend(self._signal.end)
        self._process_until(self._peaks.envelope.end)
        learnt_enough = not self._learning
        if not learnt_enough:
            self._finish_learning(self._position)
        self._commit()
        self._searchback_candidates = []
        if not learnt_enough:
            self._heights.clear()
            self._learning = True
        return self._take_beats()

    def _take_beats(self) -> list[RPeak]:
        beats, self._unreported = self._unreported, []
        return beats

    def _process_until(self, end: int) -> None:
        """Decide on all candidates before sample `end`."""
        if end <= self._position:
            return
        for candidate in self._peaks.find(self._position, end):
            self._advance(candidate.sample)
            self._decide(self._measure(candidate))
        self._position = end
        self._advance(end)

    def _add_height(self, height: float) -> None:
        self._heights.append(height)
        ordered = sorted(self._heights)
        self._median_height = median_of_sorted(ordered)
        self._tall_height = ordered[-3:][0]

    def _noise_ratio(self) -> float:
        return self._noise / self._median_height

    def _context(self, index: int) -> Samples:
        """Return `CONTEXT_SAMPLES` samples on each side of sample `index`, padded at the ends of the stretch."""
        return self._signal.edge_padded(index - CONTEXT_SAMPLES, index + CONTEXT_SAMPLES + 1, self._stretch_start)

    def _measure(self, candidate: PeakCandidate) -> PeakCandidate:
        """Return the candidate with its height measured by the matched filter, if the noise is high enough for that."""
        noise = self._noise / self._median_height if not self._learning else 0.0
        if noise <= TRUST_SHAPE_NOISE_RATIO:
            return candidate
        match = self._shape.match(self._context(candidate.sample))
        if match is None:
            return candidate
        trust = min(SHAPE_TRUST_SLOPE * (noise - TRUST_SHAPE_NOISE_RATIO), 1.0)
        height = (1 - trust) * candidate.height + trust * match.height * self._template_height
        return PeakCandidate(candidate.sample, candidate.envelope, height, match)

    def _threshold(self, candidate: PeakCandidate) -> float:
        noise, beat = self._noise, self._median_height
        threshold = (
            self._searchback_threshold() if self._overdue else THRESHOLD_NOISE_FACTOR * noise + THRESHOLD_BEAT_SHARE * beat
        )
        correlation = candidate.match.correlation if candidate.match else None
        has_rhythm = len(self._rr_intervals) == _HISTORY_BEATS
        rr = candidate.sample - self._last_beat.sample if self._last_beat and has_rhythm else None
        return raise_threshold(threshold, noise, beat, correlation, rr, self._median_rr)

    def _searchback_threshold(self) -> float:
        return SEARCHBACK_NOISE_FACTOR * self._noise + SEARCHBACK_BEAT_SHARE * self._median_height

    def _advance(self, index: int) -> None:
        """Advance time to sample `index`: do everything that was due by then, regardless of the chunk size."""
        while self._learning:
            if index < self._learning_until:
                return
            self._finish_learning(int(self._learning_until))
        if self._pending and index > self._pending.sample + P_WAVE_SAMPLES:
            self._commit()
        while index > self._searchback_at and not self._pending:
            self._search_back()
        if index > self._no_beat_since + DECAY_AFTER_SAMPLES and not self._learning and not self._pending:
            self._decay_threshold()

    def _finish_learning(self, end: int) -> None:
        """Take the highest candidate so far as the expected beat height, and decide on all candidates by it."""
        candidates = self._searchback_candidates
        if not candidates:
            return
        level = learn_level(candidates, self._peaks.envelope[candidates[0].sample : end], self._context)
        if level is None:
            self._learning_until = end + LEARNING_SAMPLES
            if end >= candidates[0].sample + MAX_LEARNING_SAMPLES:
                self._searchback_candidates, self._learning_until = [], inf
            return
        self._searchback_candidates, self._learning = [], False
        self._adopt(level)
        for candidate in candidates:
            self._advance(candidate.sample)
            self._decide(candidate)

    def _adopt(self, level: Level | None) -> None:
        """Expect beats of this level, if there is one."""
        if level:
            self._heights.clear()
            self._add_height(min(level.height, MAX_ENVELOPE_MV))
            self._noise = level.noise

    def _decay_threshold(self) -> None:
        """Lower the expected beat height after a long time without a beat, but keep it above the noise in that time."""
        expected = self._median_height / DECAY_FACTOR
        recent = self._peaks.envelope[self._no_beat_since : self._no_beat_since + DECAY_AFTER_SAMPLES]
        self._heights.clear()
        self._searchback_candidates = []
        self._no_beat_since += DECAY_AFTER_SAMPLES
        if expected > MIN_ENVELOPE_MV:
            self._add_height(expected)
            self._noise = max(2 * median(recent), expected / DECAY_FACTOR)
        else:
            self._learning, self._learning_until = True, inf

    def _decide(self, candidate: PeakCandidate) -> None:
        """Keep the candidate while learning; otherwise count it as a T wave, or decide whether it is a beat."""
        if not self._learning and self._noise > WATCH_NOISE_RATIO * self._median_height:
            self._adopt(self._watch.on_candidate(candidate))
        before = self._pending or self._last_beat
        if self._learning:
            self._learn_from(candidate)
        elif before and self._is_tall_t_wave(candidate, before):
            self._update_noise(candidate._replace(height=min(candidate.height, MAX_T_NOISE_SHARE * self._median_height)))
        else:
            self._decide_on_beat(candidate)

    def _learn_from(self, candidate: PeakCandidate) -> None:
        """Keep the candidate until enough are known; P waves of a standstill teach nothing."""
        if self._is_p_wave(candidate):
            return
        if not self._searchback_candidates:
            self._learning_until = candidate.sample + LEARNING_SAMPLES
            self._no_beat_since = candidate.sample
        self._searchback_candidates.append(candidate)

    def _decide_on_beat(self, candidate: PeakCandidate) -> None:
        """Accept the candidate as a beat, keep it pending, or count it as noise."""
        if self._pending and candidate.height > self._pending.height:
            self._update_noise(self._pending)
            self._pending = None
        if self._pending:
            self._commit()
        since = candidate.sample - self._last_beat.sample if self._last_beat else inf
        if since < REFRACTORY_SAMPLES:
            return
        if self._last_beat and since < T_WAVE_SAMPLES and candidate.height < T_WAVE_HEIGHT_SHARE * self._last_beat.height:
            self._update_noise(candidate)
        elif candidate.height < self._threshold(candidate):
            self._update_noise(candidate)
            self._searchback_candidates.append(candidate)
        elif self._is_p_wave(candidate):
            self._update_noise(candidate)
        elif candidate.height < LOW_BEAT_SHARE * self._tall_height:
            self._pending = candidate
        else:
            self._accept(candidate)

    def _is_tall_t_wave(self, candidate: PeakCandidate, beat: PeakCandidate) -> bool:
        """Return whether a candidate is the T wave of `beat`, although it is too high for one by its height."""
        since = candidate.sample - beat.sample
        return (
            MIN_T_WAVE_SAMPLES <= since < MAX_T_WAVE_SAMPLES
            and (candidate.classification is None or since < T_WAVE_SAMPLES)
            and candidate.height >= T_WAVE_HEIGHT_SHARE * beat.height
            and is_t_wave(since, self._steepness(candidate), self._steepness(beat))
        )

    def _is_p_wave(self, candidate: PeakCandidate) -> bool:
        """Return whether a candidate that is high enough for a beat is a P wave."""
        if candidate.envelope >= MAX_P_ENVELOPE_MV:
            return False
        context, since = self._context(candidate.sample), candidate.sample - self._last_r_peak
        match = candidate.match or self._shape.match(context)
        known, in_pause = KnownBeat(self._shape.height_mv, self._known_steepness), since >= MAX_SEARCHBACK_WAIT_SAMPLES
        return match is not None and is_p_wave(candidate.envelope, context, match, known, since, in_pause)

    def _steepness(self, candidate: PeakCandidate) -> float:
        return measure_steepness(self._context(candidate.sample))

    def _update_noise(self, candidate: PeakCandidate) -> None:
        """Update the noise level with a candidate that is not a beat."""
        self._noise += (candidate.height - self._noise) / _HISTORY_BEATS

    def _commit(self) -> None:
        """Accept the pending candidate, if there is one."""
        if self._pending:
            self._accept(self._pending)

    def _search_back(self) -> None:
        """Accept the highest candidate since the last beat, if it reaches the threshold of the search-back."""
        threshold = self._searchback_threshold()
        high = [candidate for candidate in self._searchback_candidates if candidate.height >= threshold]
        best = max((c for c in high if not self._is_p_wave(c)), key=lambda candidate: candidate.height, default=None)
        if best is None:
            self._searchback_candidates = [c for c in self._searchback_candidates if c.height < threshold]
            self._overdue = True
            self._searchback_at = inf
            return
        later = [candidate for candidate in self._searchback_candidates if candidate.sample >= best.sample + REFRACTORY_SAMPLES]
        self._noise = max(0.0, self._noise - (best.height - self._noise) / (_HISTORY_BEATS - 1))  # undo `_update_noise`
        self._accept(best)
        self._searchback_candidates = later

    def _accept(self, beat: PeakCandidate) -> None:
        self._watch.on_beat()
        self._unreported.append(self._locate(beat))
        most = min(MAX_HEIGHT_RATIO * self._median_height, MAX_ENVELOPE_MV)
        height = min(beat.envelope, most)
        before = self._template_height or height
        self._template_height = before + TEMPLATE_WEIGHT * (height - before)
        if self._last_beat:
            self._rr_intervals.append(beat.sample - self._last_beat.sample)
            ordered = sorted(self._rr_intervals)
            self._median_rr = median_of_sorted(ordered)
            self._short_rr = ordered[1] if len(ordered) == _HISTORY_BEATS else self._median_rr
        self._add_height(min(beat.height, most))
        self._last_beat, self._pending = beat, None
        self._searchback_candidates = []
        self._no_beat_since = beat.sample
        self._overdue = False
        self._searchback_at = beat.sample + min(SEARCHBACK_RR_FACTOR * self._median_rr, MAX_SEARCHBACK_WAIT_SAMPLES)

    def _locate(self, beat: PeakCandidate) -> RPeak:
        """Return the R peak of a beat, and queue the beat for learning its shape; in noise, the shape locates the peak."""
        context = self._context(beat.sample)
        usual = self._last_amplitude_mv if self._median_rr <= FAST_RR_SAMPLES else 0.0
        offset, amplitude = locate_r_peak(context[_R_PEAK_CONTEXT], usual)
        self._last_amplitude_mv = amplitude
        noise, match = self._noise / self._median_height, beat.match
        by_shape = noise >= LOCATE_BY_SHAPE_NOISE_RATIO
        if by_shape and not match:
            match = self._shape.match(context)
        if self._shape.should_learn(noise):
            steepness = self._steepness(beat) / beat.envelope
            before = self._known_steepness or steepness
            self._known_steepness = before + TEMPLATE_WEIGHT * (steepness - before)
            last = self._last_beat.sample if self._last_beat else None
            interval = interval_before(self._signal, last, beat.sample, self._stretch_start)
            self._shape.add(BeatSignal(context.copy(), interval.copy(), match, offset, noise))
        if beat.classification:
            offset = min(max(beat.classification.r_peak_offset, -MAX_R_PEAK_OFFSET_SAMPLES), MAX_R_PEAK_OFFSET_SAMPLES)
        elif by_shape and match:
            from_match = self._shape.r_peak_offset(match)
            offset = offset if from_match is None else match.shift + from_match
        self._last_r_peak = max(beat.sample + offset, self._last_r_peak + MIN_R_PEAK_SPACING_SAMPLES)
        return RPeak(self._last_r_peak, amplitude)

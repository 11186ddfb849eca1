"""Streaming QRS detection at 125 Hz, in the tradition of Pan & Tompkins (IEEE Trans. Biomed. Eng. 32, 1985).

The envelope of the QRS band has one peak a heart beat. A peak is a beat when it stands out of the noise and reaches a share
of the usual beat, the median of the last eight. What stays below is kept for a search back when a beat is overdue.
Every decision depends on sample numbers alone, so chunks do not matter. Polarity does not either.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import Final

import numpy as np

from models.signal.candidate import Verdict
from models.signal.filters import Fir, Samples, Tape, bandpass, hann
from models.signal.filters import median as middle
from models.signal.resample import RATE_HZ
from models.signal.shape import AROUND, GUARD, MARGIN, RECENT, BeatSignal, Match, QrsShape, summit


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


QRS_BAND: Final = bandpass(8.0, 22.0, RATE_HZ, half=_samples(0.096))
"""Most of a QRS complex, little of P and T waves, wander and muscle noise."""

SMOOTHING: Final = hann(_samples(0.184))
"""Joins the lobes of one complex; half its height is 92 ms wide, as a QRS is."""

PEAK_BAND: Final = bandpass(3.0, 25.0, RATE_HZ, half=_samples(0.128))
"""What an R peak is found in: low enough for the summit of a wide complex, without wander."""

_PEAK_MARGIN: Final = PEAK_BAND.size // 2

PEAK_REACH: Final = _samples(0.064)
"""How far the R peak may lie from the envelope's."""

AHEAD: Final = _samples(0.08)
"""An envelope peak has no higher one this close to it. Every beat waits so long; with the filters' delays 0.33 s in all."""

REFRACTORY: Final = _samples(0.2)
"""The ventricles cannot be excited again so soon: Pan & Tompkins, section III."""

T_WAVE: Final = _samples(0.36)
"""So soon after a beat, a peak under half of its height is its T wave: Pan & Tompkins, section III."""

T_WAVE_SHARE: Final = 0.5

PR: Final = _samples(0.24)
"""A low beat gives way to a higher peak within this time: it was a tall P wave. Longer than the normal 0.2 s from P's beginning
to QRS's, since a first-degree block is common."""

LOW_BEAT: Final = 0.8
"""Share of a tall beat (the third of the last eight) under which a beat waits for what follows."""

NOISE_FACTOR: Final = 1.75
BEAT_SHARE: Final = 0.1
"""The threshold is so many times the noise plus this share of the usual beat."""

TRUST_FROM: Final = 0.13
TRUST_SLOPE: Final = 6.0
"""Noise, as a share of a beat, from which on a peak is measured by the patient's own QRS shape instead of the envelope, and how
fast the one takes over from the other."""

LIKE_NONE: Final = 0.2
LIKE_QRS: Final = 0.8
UNLIKE: Final = 1.0
"""Correlation with the known shapes: below the first the threshold rises by this share of it, above the second it does not.
Muscle noise at 12 dB has 0.25 to 0.6, beats in it 0.8 and more."""

EARLY: Final = 0.9
EARLY_FACTOR: Final = 2.0
"""The threshold rises the sooner before so many usual intervals a peak comes: this many times the noise's share of a beat."""

DOUBT: Final = (0.13, 0.17)
"""Noise, as a share of a beat, from which on shape and time of a peak count, and from which on fully. P and T waves
make up 0.1 of it in most clean records."""

LOCATED_BY_SHAPE: Final = 0.25
"""Noise, as a share of a beat, from which on the R peak is found by the shape: the highest point may be noise."""

OVERDUE_NOISE_FACTOR: Final = 1.0
OVERDUE_BEAT_SHARE: Final = 0.1
"""The threshold when a beat is overdue."""

OVERDUE: Final = 1.66
"""In usual intervals, when a beat is overdue: Pan & Tompkins, section III."""

LONGEST_WAIT: Final = _samples(2.5)
"""A beat is overdue then at the latest: longer than an interval at 30/min, shorter than the pause that raises an alert."""

LEARNING: Final = _samples(2.0)
"""From the first bump: one interval at 30/min."""

FORGETTING: Final = _samples(4.0)
"""Without a beat for so long, lower ones are expected: the electrode moved, or the last beats were artefacts."""

LARGEST_FALL: Final = 4.0
"""By this factor, each time. A standstill's P waves are lower still."""

LARGEST_RISE: Final = 3.0
"""A beat counts as at most so many usual ones: artefacts must not deafen the detector."""

FLOOR_MV: Final = 0.01
CEILING_MV: Final = 1.5
"""Envelopes of the smallest and of the largest beats: a QRS of 0.1 mV stands out of ADC noise, none is higher than 5 mV."""

_MEMORY: Final = 8
"""Beats and intervals that make the usual ones."""

_KEPT: Final = _samples(12.0)


@dataclass(frozen=True, slots=True)
class Peak:
    """An R peak: where, in samples at 125 Hz, and how many mV over the baseline (negative in an inverted lead)."""

    index: float
    amplitude_mv: float


@dataclass(frozen=True, slots=True)
class Bump:
    """A local maximum of the envelope, its height measured by the envelope or the QRS shape, how it compares to that, and
    what a network says of it (`models.signal.judged`).
    """

    index: int
    height: float
    match: Match | None = None
    verdict: Verdict | None = None


class QrsDetector:
    """Finds R peaks in 125 Hz samples, stretch by stretch; what it learns of the heart outlasts the gaps."""

    def __init__(self) -> None:
        self._heights: deque[float] = deque(maxlen=_MEMORY)
        self._intervals: deque[int] = deque(maxlen=_MEMORY)
        self._usual = self._tall = 0.0
        """The median and the third of the heights."""
        self._noise = 0.0
        self._shape = QrsShape()
        self._matched_height = 0.0
        self.start(0)

    def start(self, index: int) -> None:
        """Begin a gap-free stretch, whose first sample is number `index`."""
        self._band_fir, self._envelope_fir = Fir(QRS_BAND), Fir(SMOOTHING)
        self._signal, self._envelope = Tape(_KEPT, index), Tape(_KEPT, index)
        self._begin = self._front = self._quiet_since = index
        self._learning = not self._heights
        self._learnt_at: float = inf
        self._last: Bump | None = None
        self._waiting: Bump | None = None
        self._passed_over: list[Bump] = []
        self._overdue_at: float = inf
        self._overdue = False

    @property
    def horizon(self) -> int:
        """Every beat before this sample has been reported."""
        threshold = 0.0 if self._learning else self._overdue_threshold()
        undecided = [bump.index for bump in self._passed_over if bump.height >= threshold]
        if self._waiting:
            undecided.append(self._waiting.index)
        return min([self._front, *undecided]) - PEAK_REACH

    def push(self, x: Samples) -> list[Peak]:
        """The beats decided by these samples (at most 10 s of them), in order."""
        self._signal.extend(x)
        band = self._band_fir.push(x)
        self._envelope.extend(self._envelope_fir.push(np.abs(band)))
        return self._decide(self._envelope.end - AHEAD)

    def finish(self) -> list[Peak]:
        """The rest: the stretch ends here."""
        band = self._band_fir.finish()
        self._envelope.extend(self._envelope_fir.push(np.abs(band)))
        self._envelope.extend(self._envelope_fir.finish())
        beats = self._decide(self._envelope.end)
        learnt_enough = not self._learning
        rest = [*(() if learnt_enough else self._learn(self._front)), *self._settle()]
        self._passed_over = []
        if not learnt_enough:
            self._heights.clear()
            self._learning = True
        return beats + rest

    def _decide(self, front: int) -> list[Peak]:
        """Go on to sample `front`."""
        if front <= self._front:
            return []
        beats: list[Peak] = []
        for bump in self._bumps(self._front, front):
            beats += self._reach(bump.index)
            beats += self._judge(self._measured(bump))
        self._front = front
        beats += self._reach(front)
        return beats

    def _bumps(self, start: int, stop: int) -> Iterator[Bump]:
        first = max(start - 1 - AHEAD, self._begin)
        envelope = self._envelope[first : stop + AHEAD + 1]
        rising = envelope[1:] > envelope[:-1]
        tops = (rising[:-1] & (envelope[1:-1] >= FLOOR_MV) & ~rising[1:]).nonzero()[0].tolist()
        heights = envelope.tolist() if tops else []
        for before in tops:
            top = before + 1
            if start <= top + first < stop and heights[top] >= max(heights[max(top - AHEAD, 0) : top + AHEAD + 1]):
                yield Bump(top + first, heights[top])

    def _remember(self, height: float) -> None:
        self._heights.append(height)
        ordered = sorted(self._heights)
        self._usual = 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])
        self._tall = ordered[-3:][0]

    def _noise_share(self) -> float:
        return self._noise / self._usual

    def _doubt(self) -> float:
        """From 0 in a clean signal, where any shape at any time is the heart's, to 1 in noise."""
        low, high = DOUBT
        return min(max((self._noise_share() - low) / (high - low), 0.0), 1.0)

    def _around(self, index: int, reach: int) -> Samples:
        """The samples so far on either side of one, continued at the ends of the stretch."""
        first, end = index - reach, index + reach + 1
        if self._signal.first <= first and end <= self._signal.end:
            return self._signal[first:end]
        return self._signal.at(np.clip(np.arange(first, end), self._begin, self._signal.end - 1))

    def _measured(self, bump: Bump) -> Bump:
        """In noise, how much of the patient's own QRS complex is in a bump says more than its height."""
        if self._learning or self._noise_share() <= TRUST_FROM:
            return bump
        match = self._shape.match(self._around(bump.index, AROUND + MARGIN))
        if match is None:
            return bump
        trust = min(max(TRUST_SLOPE * (self._noise_share() - TRUST_FROM), 0.0), 1.0)
        return Bump(bump.index, (1 - trust) * bump.height + trust * match.height * self._matched_height, match)

    def _threshold(self, bump: Bump) -> float:
        threshold = self._overdue_threshold()
        if not self._overdue:
            threshold = NOISE_FACTOR * self._noise + BEAT_SHARE * self._usual
        if bump.match:
            strange = min(max((LIKE_QRS - bump.match.likeness) / (LIKE_QRS - LIKE_NONE), 0.0), 1.0)
            threshold *= 1 + UNLIKE * strange * self._doubt()
        if self._last and len(self._intervals) == _MEMORY:
            early = max(1 - (bump.index - self._last.index) / (EARLY * median(self._intervals)), 0.0)
            threshold *= 1 + EARLY_FACTOR * min(self._noise_share(), 1.0) * early * self._doubt()
        return threshold

    def _overdue_threshold(self) -> float:
        return OVERDUE_NOISE_FACTOR * self._noise + OVERDUE_BEAT_SHARE * self._usual

    def _reach(self, index: int) -> Iterator[Peak]:
        """Time passes until sample `index`: what was due by then is done."""
        if self._learning:
            if index < self._learnt_at:
                return
            yield from self._learn(int(self._learnt_at))
        if self._waiting and index > self._waiting.index + PR:
            yield from self._settle()
        while index > self._overdue_at and not self._waiting:
            yield from self._search_back()
        if index > self._quiet_since + FORGETTING and not self._learning:
            self._forget()

    def _learn(self, end: int) -> Iterator[Peak]:
        """Take the highest bump so far as the usual beat, and judge them all by it."""
        bumps, self._passed_over = self._passed_over, []
        if not bumps:
            return
        self._learning = False
        self._remember(min(max(bump.height for bump in bumps), CEILING_MV))
        background = middle(self._envelope[bumps[0].index : end])
        self._noise = max(background, self._usual / 8)
        for bump in bumps:
            yield from self._reach(bump.index)
            yield from self._judge(bump)

    def _forget(self) -> None:
        """No beat for long: expect lower ones, but still higher than what is there between them."""
        usual = self._usual / LARGEST_FALL
        quiet = self._envelope[self._quiet_since : self._quiet_since + FORGETTING]
        self._heights.clear()
        self._passed_over = []
        self._quiet_since += FORGETTING
        if usual > FLOOR_MV:
            self._remember(usual)
            self._noise = max(2 * middle(quiet), usual / LARGEST_FALL)
        else:
            self._learning, self._learnt_at = True, inf

    def _judge(self, bump: Bump) -> Iterator[Peak]:
        if self._learning:
            if not self._passed_over:
                self._learnt_at = bump.index + LEARNING
                self._quiet_since = bump.index
            self._passed_over.append(bump)
            return
        if self._waiting and bump.height > self._waiting.height:
            self._noted(self._waiting)
            self._waiting = None
        yield from self._settle()
        since = bump.index - self._last.index if self._last else inf
        if since < REFRACTORY:
            return
        if self._last and since < T_WAVE and bump.height < T_WAVE_SHARE * self._last.height:
            self._noted(bump)
        elif bump.height < self._threshold(bump):
            self._noted(bump)
            self._passed_over.append(bump)
        elif bump.height < LOW_BEAT * self._tall:
            self._waiting = bump
        else:
            yield self._accept(bump)

    def _noted(self, bump: Bump) -> None:
        """Not a beat: it belongs to the noise."""
        self._noise += (bump.height - self._noise) / _MEMORY

    def _settle(self) -> Iterator[Peak]:
        """Nothing higher followed the bump that waits: it is a beat."""
        if self._waiting:
            yield self._accept(self._waiting)

    def _search_back(self) -> Iterator[Peak]:
        best = max(self._passed_over, key=lambda bump: bump.height, default=None)
        if best is None or best.height < self._overdue_threshold():
            self._overdue = True
            self._overdue_at = inf
            return
        later = [bump for bump in self._passed_over if bump.index >= best.index + REFRACTORY]
        self._noise = max(0.0, self._noise - (best.height - self._noise) / (_MEMORY - 1))  # it was no noise after all
        yield self._accept(best)
        self._passed_over = later

    def _accept(self, beat: Bump) -> Peak:
        peak = self._located(beat)
        self._learn_height(beat)
        if self._last:
            self._intervals.append(beat.index - self._last.index)
        self._remember(min(beat.height, LARGEST_RISE * self._usual, CEILING_MV))
        self._last, self._waiting = beat, None
        self._passed_over = []
        self._quiet_since = beat.index
        self._overdue = False
        usual = median(self._intervals) if self._intervals else RATE_HZ
        self._overdue_at = beat.index + min(OVERDUE * usual, LONGEST_WAIT)
        return peak

    def _learn_height(self, beat: Bump) -> None:
        """The envelope's height at beats: what the shape's output of 1 stands for."""
        (envelope,) = self._envelope[beat.index : beat.index + 1].tolist() or (beat.height,)
        height = min(envelope, LARGEST_RISE * self._usual, CEILING_MV)
        before = self._matched_height or height
        self._matched_height = before + RECENT * (height - before)

    def _located(self, beat: Bump) -> Peak:
        """The R peak of a beat, which is kept to learn its shape from; in noise, it is where the shape fits."""
        place, amplitude = self._highest(beat.index)
        noise, match = self._noise_share(), beat.match
        around = self._around(beat.index, AROUND + MARGIN)
        by_shape = noise >= LOCATED_BY_SHAPE
        if by_shape and not match:
            match = self._shape.match(around)
        start = self._last.index + GUARD - MARGIN if self._last else beat.index
        between = self._signal[start : beat.index - GUARD + MARGIN + 1]
        self._shape.add(BeatSignal(around.copy(), between.copy(), match, place, noise))
        offset = self._shape.offset(match) if by_shape and match else None
        if match and offset is not None:
            place = match.shift + offset
        return Peak(beat.index + place, amplitude)

    def _highest(self, index: int) -> tuple[float, float]:
        """The highest point around the envelope's peak, between samples by a parabola: where, and its height in mV."""
        signal = self._around(index, PEAK_REACH + _PEAK_MARGIN)
        height = np.abs(np.correlate(signal, PEAK_BAND, "valid"))
        top = int(height.argmax())
        values = signal.tolist()
        baseline = sorted(values)[len(values) // 2]
        return top - PEAK_REACH + summit(height, top), values[top + _PEAK_MARGIN] - baseline

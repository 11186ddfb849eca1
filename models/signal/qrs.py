"""Streaming QRS detection at 125 Hz, in the tradition of Pan & Tompkins (IEEE Trans. Biomed. Eng. 32, 1985).

The envelope of the QRS band has one peak a heart beat. A peak is a beat when it stands out of the noise and reaches a share
of the usual beat, the median of the last eight. What stays below is kept for a search back when a beat is overdue.
Every decision depends on sample numbers alone, so chunks do not matter. Polarity does not either.
"""

from collections import deque
from math import inf
from typing import Final, NamedTuple

from models.signal.candidate import FARTHEST, Verdict
from models.signal.envelope import ENVELOPE_MARGIN, envelope
from models.signal.filters import Samples, Tape, median, middle
from models.signal.peak import PEAK_NEEDS, PEAK_REACH, highest
from models.signal.resample import RATE_HZ
from models.signal.shape import AROUND, GUARD, LIKE_QRS, MARGIN, RECENT, BeatSignal, Match, QrsShape


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


AHEAD: Final = _samples(0.08)
"""An envelope peak has no higher one this close to it. Every beat waits so long; with the filters' delays 0.33 s in all."""

REFRACTORY: Final = _samples(0.2)
"""The ventricles cannot be excited again so soon: Pan & Tompkins, section III."""

APART: Final = REFRACTORY / 2
"""Samples between R peaks at least, wherever in their bumps they are placed."""

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
UNLIKE: Final = 1.0
"""Correlation with the known shapes: below the first the threshold rises by this share of it, from `LIKE_QRS` on it does not.
Muscle noise at 12 dB has 0.25 to 0.6."""

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

KEPT: Final = _samples(17.0)
"""Samples that a decision may need."""

_LEARNT_BETWEEN: Final = _samples(12.0)
"""So much of a long interval tells what lies between beats: it is still kept when the beat is decided, for any chunks."""

_REACH: Final = AROUND + MARGIN
"""Samples on either side of an envelope's peak from which its R peak is found and its shape is learnt."""

_PEAK: Final = slice(_REACH - PEAK_NEEDS, _REACH + PEAK_NEEDS + 1)
"""Those among them from which the R peak is found."""


class Peak(NamedTuple):
    """An R peak: where, in samples at 125 Hz, and how many mV over the baseline (negative in an inverted lead)."""

    at: float
    amplitude_mv: float


class Bump(NamedTuple):
    """A local maximum of the envelope, its height measured by the envelope or the QRS shape, how it compares to that, and
    what a network says of it (`models.signal.judged`).
    """

    at: int
    envelope: float
    height: float
    match: Match | None = None
    verdict: Verdict | None = None


class QrsDetector:
    """Finds R peaks in 125 Hz samples, stretch by stretch; what it learns of the heart outlasts the gaps."""

    def __init__(self, signal: Tape) -> None:
        """`signal` is where samples are before they come; it keeps `KEPT` at least."""
        self._signal = signal
        self._heights: deque[float] = deque(maxlen=_MEMORY)
        self._intervals: deque[int] = deque(maxlen=_MEMORY)
        self._interval = RATE_HZ
        """The median of the intervals, in samples; a second while there is none."""
        self._short = self._interval
        """The second shortest; the median until there are `_MEMORY`."""
        self._beats: list[Peak] = []
        """Decided and not yet reported."""
        self._latest = -inf
        """The last R peak."""
        self._usual = self._tall = 0.0
        """The median and the third of the heights."""
        self._noise = 0.0
        self._shape = QrsShape()
        self._matched_height = 0.0
        """The envelope's height at beats: what the shape's output of 1 stands for."""
        self.start(0)

    def start(self, index: int) -> None:
        """Begin a gap-free stretch, whose first sample is number `index`."""
        self._envelope = Tape(KEPT, index)
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
        """Every beat before this sample has been reported, but for a rare one that search back finds once noise has fallen."""
        threshold = 0.0 if self._learning else self._overdue_threshold()
        undecided = [bump.at for bump in self._passed_over if bump.height >= threshold]
        if self._waiting:
            undecided.append(self._waiting.at)
        return min([self._front, *undecided]) - PEAK_REACH

    def push(self) -> list[Peak]:
        """The beats decided by what came onto the tape since, at most 2 s of it, in order."""
        self._extend_envelope(self._signal.end - ENVELOPE_MARGIN)
        self._decide(self._envelope.end - AHEAD)
        return self._reported()

    def finish(self) -> list[Peak]:
        """The rest: the stretch ends here."""
        self._extend_envelope(self._signal.end)
        self._decide(self._envelope.end)
        learnt_enough = not self._learning
        if not learnt_enough:
            self._learn(self._front)
        self._settle()
        self._passed_over = []
        if not learnt_enough:
            self._heights.clear()
            self._learning = True
        return self._reported()

    def _extend_envelope(self, end: int) -> None:
        """Up to sample `end`; the signal goes on at both ends of the stretch as it begins and ends."""
        start = self._envelope.end
        if start < end:
            first, stop = start - ENVELOPE_MARGIN, end + ENVELOPE_MARGIN
            around = self._signal.continued(first, stop, self._begin)
            self._envelope.extend(envelope(around, self._begin - first, stop - self._signal.end))

    def _reported(self) -> list[Peak]:
        beats, self._beats = self._beats, []
        return beats

    def _decide(self, front: int) -> None:
        """Go on to sample `front`."""
        if front <= self._front:
            return
        for bump in self._bumps(self._front, front):
            self._reach(bump.at)
            self._judge(self._measured(bump))
        self._front = front
        self._reach(front)

    def _bumps(self, start: int, stop: int) -> list[Bump]:
        """The peaks of the envelope from sample `start` to before `stop`; the first and the last of a stretch are none."""
        first, before = max(start - 1 - AHEAD, self._begin), max(start - 1, self._begin)
        heights = self._envelope[first : stop + AHEAD + 1]
        inner = heights[before - first : stop + 1 - first]
        rising = inner[1:] > inner[:-1]
        bumps = []
        for at in (rising[:-1] > rising[1:]).nonzero()[0].tolist():
            top = before - first + at + 1
            height = heights.item(top)
            if height >= FLOOR_MV and heights[max(top - AHEAD, 0) : top + AHEAD + 1].argmax() == min(top, AHEAD):
                bumps.append(Bump(first + top, height, height))
        return bumps

    def _remember(self, height: float) -> None:
        self._heights.append(height)
        ordered = sorted(self._heights)
        self._usual = middle(ordered)
        self._tall = ordered[-3:][0]

    def _noise_share(self) -> float:
        return self._noise / self._usual

    def _around(self, index: int) -> Samples:
        """`_REACH` samples on either side of one, continued at the ends of the stretch."""
        return self._signal.continued(index - _REACH, index + _REACH + 1, self._begin)

    def _measured(self, bump: Bump) -> Bump:
        """In noise, how much of the patient's own QRS complex is in a bump says more than its height."""
        share = self._noise / self._usual if not self._learning else 0.0
        if share <= TRUST_FROM:
            return bump
        match = self._shape.match(self._around(bump.at))
        if match is None:
            return bump
        trust = min(TRUST_SLOPE * (share - TRUST_FROM), 1.0)
        height = (1 - trust) * bump.height + trust * match.height * self._matched_height
        return Bump(bump.at, bump.envelope, height, match)

    def _threshold(self, bump: Bump) -> float:
        noise, usual = self._noise, self._usual
        threshold = self._overdue_threshold() if self._overdue else NOISE_FACTOR * noise + BEAT_SHARE * usual
        low, high = DOUBT
        if noise <= low * usual:
            return threshold
        doubt = min((noise / usual - low) / (high - low), 1.0)
        if bump.match:
            strange = min(max((LIKE_QRS - bump.match.likeness) / (LIKE_QRS - LIKE_NONE), 0.0), 1.0)
            threshold *= 1 + UNLIKE * strange * doubt
        if self._last and len(self._intervals) == _MEMORY:
            early = max(1 - (bump.at - self._last.at) / (EARLY * self._interval), 0.0)
            threshold *= 1 + EARLY_FACTOR * min(self._noise_share(), 1.0) * early * doubt
        return threshold

    def _overdue_threshold(self) -> float:
        return OVERDUE_NOISE_FACTOR * self._noise + OVERDUE_BEAT_SHARE * self._usual

    def _reach(self, index: int) -> None:
        """Time passes until sample `index`: what was due by then is done, whether samples come one by one or many at once."""
        if self._learning:
            if index < self._learnt_at:
                return
            self._learn(int(self._learnt_at))
        if self._waiting and index > self._waiting.at + PR:
            self._settle()
        while index > self._overdue_at and not self._waiting:
            self._search_back()
        if index > self._quiet_since + FORGETTING and not self._learning and not self._waiting:
            self._forget()

    def _learn(self, end: int) -> None:
        """Take the highest bump so far as the usual beat, and judge them all by it."""
        bumps, self._passed_over = self._passed_over, []
        if not bumps:
            return
        self._learning = False
        self._remember(min(max(bump.height for bump in bumps), CEILING_MV))
        background = median(self._envelope[bumps[0].at : end])
        self._noise = max(background, self._usual / 8)
        for bump in bumps:
            self._reach(bump.at)
            self._judge(bump)

    def _forget(self) -> None:
        """No beat for long: expect lower ones, but still higher than what is there between them."""
        usual = self._usual / LARGEST_FALL
        quiet = self._envelope[self._quiet_since : self._quiet_since + FORGETTING]
        self._heights.clear()
        self._passed_over = []
        self._quiet_since += FORGETTING
        if usual > FLOOR_MV:
            self._remember(usual)
            self._noise = max(2 * median(quiet), usual / LARGEST_FALL)
        else:
            self._learning, self._learnt_at = True, inf

    def _judge(self, bump: Bump) -> None:
        if self._learning:
            if not self._passed_over:
                self._learnt_at = bump.at + LEARNING
                self._quiet_since = bump.at
            self._passed_over.append(bump)
            return
        if self._waiting and bump.height > self._waiting.height:
            self._noted(self._waiting)
            self._waiting = None
        if self._waiting:
            self._settle()
        since = bump.at - self._last.at if self._last else inf
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
            self._accept(bump)

    def _noted(self, bump: Bump) -> None:
        """Not a beat: it belongs to the noise."""
        self._noise += (bump.height - self._noise) / _MEMORY

    def _settle(self) -> None:
        """Nothing higher followed the bump that waits: it is a beat."""
        if self._waiting:
            self._accept(self._waiting)

    def _search_back(self) -> None:
        best = max(self._passed_over, key=lambda bump: bump.height, default=None)
        if best is None or best.height < self._overdue_threshold():
            self._overdue = True
            self._overdue_at = inf
            return
        later = [bump for bump in self._passed_over if bump.at >= best.at + REFRACTORY]
        self._noise = max(0.0, self._noise - (best.height - self._noise) / (_MEMORY - 1))  # it was no noise after all
        self._accept(best)
        self._passed_over = later

    def _accept(self, beat: Bump) -> None:
        self._beats.append(self._located(beat))
        most = min(LARGEST_RISE * self._usual, CEILING_MV)
        height = min(beat.envelope, most)
        before = self._matched_height or height
        self._matched_height = before + RECENT * (height - before)
        if self._last:
            self._intervals.append(beat.at - self._last.at)
            ordered = sorted(self._intervals)
            self._interval = middle(ordered)
            self._short = ordered[1] if len(ordered) == _MEMORY else self._interval
        self._remember(min(beat.height, most))
        self._last, self._waiting = beat, None
        self._passed_over = []
        self._quiet_since = beat.at
        self._overdue = False
        self._overdue_at = beat.at + min(OVERDUE * self._interval, LONGEST_WAIT)

    def _between(self, beat: Bump) -> Samples:
        """The signal from the last beat to this one, without both and with `MARGIN` at either end; empty at a start."""
        last = self._last
        start = max(last.at + GUARD - MARGIN, beat.at - _LEARNT_BETWEEN, self._begin) if last else beat.at
        return self._signal[start : beat.at - GUARD + MARGIN + 1]

    def _located(self, beat: Bump) -> Peak:
        """The R peak of a beat, which is kept to learn its shape from; in noise, it is where the shape fits."""
        around = self._around(beat.at)
        place, amplitude = highest(around[_PEAK])
        noise, match = self._noise / self._usual, beat.match
        by_shape = noise >= LOCATED_BY_SHAPE
        if by_shape and not match:
            match = self._shape.match(around)
        if self._shape.wants(noise):
            self._shape.add(BeatSignal(around.copy(), self._between(beat).copy(), match, place, noise))
        if beat.verdict:
            place = min(max(beat.verdict.place, -FARTHEST), FARTHEST)
        elif by_shape and match:
            offset = self._shape.offset(match)
            place = place if offset is None else match.shift + offset
        self._latest = max(beat.at + place, self._latest + APART)
        return Peak(self._latest, amplitude)

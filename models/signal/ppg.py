"""From the samples of a photoplethysmogram (PPG) to pulses, as they come.

A pulse is the steep rise of the systolic wave. Peaks of the slope compete with their neighbours of 1.5 s on either side and
with nothing older, so neither a motion artefact nor a fall of the amplitude deafens the detector for longer than that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

import numpy as np

from models.signal.filters import Fir, Samples, Tape
from models.signal.resample import Resampler, Target

RATE_HZ: Final = 50.0
"""The rate of everything behind the resampler: a pulse's energy ends near 8 Hz."""

PPG: Final = Target("a PPG", RATE_HZ, 10.0, 0.2, 25.0, 500.0)
"""10 Hz is below half of 25 Hz, the slowest camera and wristband."""


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def _slope(sigma_s: float) -> Samples:
    """The derivative of a Gaussian: how fast the signal rises, over about four sigma."""
    half = ceil(3 * sigma_s * RATE_HZ)
    t = np.arange(-half, half + 1) / RATE_HZ
    taps = -t * np.exp(-(t**2) / (2 * sigma_s**2))
    normed: Samples = taps / np.abs(taps).sum()
    return normed


RISE: Final = _slope(0.09)
"""Whether there is a pulse: as long as the systolic rise, so that dicrotic waves and camera noise stay lower."""

UPSTROKE: Final = _slope(0.05)
"""When it comes: the steepest point. Shorter follows camera noise, longer the wave's shape (6.1 ms of error in PP intervals at
the median; the foot by tangents 7.1, the largest acceleration 6.8)."""

APART: Final = _samples(0.24)
"""Two pulses are not closer: 250 a minute."""

LOOK: Final = _samples(1.5)
"""How far on either side a peak is compared: there is a pulse at 40/min."""

DICROTIC: Final = _samples(0.6)
"""So soon after a systolic rise comes the dicrotic one, which is compared with it too: below 40/min no other would be near."""

SHARE: Final = 0.3
"""Of the highest peaks before and after, the lower of the two. On recordings F1 is the same from 0.25 to 0.42. Dicrotic waves
and noise pass below; above, pulses of early beats as in AF are lost (simulated: 5.7 % missed at 0.25, 10 % at 0.42)."""

LOCATE: Final = _samples(0.12)
"""How far the steepest point may lie from the peak of `RISE`."""

HOP: Final = _samples(1.0)
"""Decisions fall at whole seconds since the stretch began, whatever the chunks are."""

VOTE: Final = _samples(4.0)
"""Signal by which the polarity is judged: a pulse at 30/min, and its neighbour."""

FORGETTING: Final = 1 / 15
"""Weight of the newest vote, one a second: an artefact must last some 15 s to turn the polarity."""

TURN: Final = 0.2
"""How clear the votes must be to turn a polarity once found; a clean pulse gives 0.6 to 1."""

KEPT_S: Final = 15.0
"""How much signal is kept: a window of the quality model, and what is still undecided."""


ROUNDING: Final = 1e-9
"""Of the signal's level: what the filters leave of a constant is no pulse."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """The steepest point of a systolic rise, in seconds since the stream's first sample, without the filters' delay.

    `after_gap` marks the first pulse after a start, a gap or a change of polarity: no interval ends at it.
    """

    t_s: float
    after_gap: bool


class PulseDetector:
    """Finds pulses in 50 Hz samples, stretch by stretch; the polarity outlasts the gaps.

    The rise of the systolic wave is steeper and shorter than its fall, so the slope's third moment tells which way is up: light
    that comes back (a camera, most watches) falls in systole, absorbed light (PLETH) rises.
    """

    def __init__(self) -> None:
        self._polarity = self._votes = 0.0
        self.start(0)

    def start(self, index: int) -> None:
        """Begin a gap-free stretch, whose first sample is number `index`."""
        self._rise_fir, self._upstroke_fir = Fir(RISE), Fir(UPSTROKE)
        keep = VOTE + 4 * LOOK
        self._rise, self._upstroke = Tape(keep, index), Tape(keep, index)
        self._begin = self._front = index
        self._next = index + HOP
        self._last: int | None = None
        self._level: float | None = None

    @property
    def horizon(self) -> int:
        """Every pulse before this sample has been reported."""
        return max(self._front - LOCATE, self._begin)

    def push(self, x: Samples) -> list[tuple[float, bool]]:
        """The pulses decided by these samples: where, in samples, and whether an interval must not end there."""
        found: list[tuple[float, bool]] = []
        if self._level is None and x.size:
            self._level = abs(float(x[0]))
        for at in range(0, x.size, HOP):
            piece = x[at : at + HOP]
            self._rise.extend(self._rise_fir.push(piece))
            self._upstroke.extend(self._upstroke_fir.push(piece))
            while self._rise.end >= self._next and self._upstroke.end >= self._next:
                found += self._hop(self._next)
                self._next += HOP
        return found

    def finish(self) -> list[tuple[float, bool]]:
        """The rest: the stretch ends here."""
        self._rise.extend(self._rise_fir.finish())
        self._upstroke.extend(self._upstroke_fir.finish())
        found: list[tuple[float, bool]] = []
        while self._rise.end >= self._next:
            found += self._hop(self._next)
            self._next += HOP
        if not self._polarity and self._rise.end - self._begin >= HOP:
            self._vote(self._rise.end)
        return found + list(self._decide(self._rise.end, self._rise.end))

    def _hop(self, now: int) -> Iterator[tuple[float, bool]]:
        if now - self._begin >= VOTE:
            self._vote(now)
        if self._polarity:
            yield from self._decide(now - LOOK, now)

    def _vote(self, now: int) -> None:
        slope = self._upstroke[max(now - VOTE, self._begin) : now]
        slope = slope - slope.mean()
        power = float((slope**2).mean())
        vote = float(np.clip((slope**3).mean() / power**1.5, -1.0, 1.0)) if power > 0 else 0.0
        if not self._polarity:
            self._polarity, self._votes = (-1.0 if vote < 0 else 1.0), vote
            return
        self._votes += FORGETTING * (vote - self._votes)
        if self._votes * self._polarity < -TURN:
            self._polarity = -self._polarity
            self._last = None

    def _decide(self, front: int, now: int) -> Iterator[tuple[float, bool]]:
        """Judge the peaks up to sample `front`, knowing the slope up to `now`."""
        if front <= self._front:
            return
        first = max(self._front - 1 - LOOK, self._begin)
        rise = self._polarity * self._rise[first:now]
        rising = rise[1:] > rise[:-1]
        for at in (np.flatnonzero(rising[:-1] & ~rising[1:]) + 1).tolist():
            top = at + first
            close = self._last is not None and top - self._last < APART
            if self._front <= top < front and not close and self._is_pulse(rise, at, first, now):
                yield self._locate(top, now), self._last is None
                self._last = top
        self._front = front

    def _is_pulse(self, rise: Samples, at: int, first: int, now: int) -> bool:
        height = rise[at]
        if height <= ROUNDING * (self._level or 0.0) or height < rise[max(at - APART, 0) : at + APART + 1].max():
            return False
        if height < SHARE * rise[max(at - DICROTIC, 0) : at + 1].max():
            return False
        sides = (rise[max(at - LOOK, 0) : at + 1].max(), rise[at : at + LOOK + 1].max())
        top = at + first
        known = [side for side, whole in zip(sides, (top - LOOK >= self._begin, top + LOOK < now), strict=True) if whole]
        return bool(height >= SHARE * (min(known) if known else max(sides)))

    def _locate(self, top: int, now: int) -> float:
        """The highest point of the upstroke's slope near the peak, between samples by a parabola."""
        first = max(top - LOCATE, self._begin)
        slope = self._polarity * self._upstroke[first : min(top + LOCATE + 1, now)]
        at = int(slope.argmax())
        shift = 0.0
        if 0 < at < slope.size - 1:
            before, peak, after = slope[at - 1 : at + 2].tolist()
            shift = 0.5 * (before - after) / (before - 2 * peak + after) if peak > min(before, after) else 0.0
        return first + at + shift


class PpgChain:
    """Resampling to 50 Hz, pulse detection and a tape of the last 15 s. Chunks do not matter, bit for bit.

    A pulse is reported within 3 s; the first four seconds of a stream, which tell its polarity, are reported together.
    """

    def __init__(self, rate_hz: float) -> None:
        """Raises ValueError when the rate is outside 25 to 500 Hz."""
        self._rate_hz = rate_hz
        self._origin_s = 0.0
        self._count = 0
        self._resampler: Resampler | None = Resampler(rate_hz, 0.0, PPG)
        self._detector = PulseDetector()
        self._tape = Tape(round(KEPT_S * RATE_HZ))

    @property
    def end_s(self) -> float:
        """The stream's time right after the last sample that came."""
        return self._origin_s + self._count / self._rate_hz

    @property
    def end(self) -> int:
        """The number at 50 Hz up to which `window` will not change any more."""
        return self._tape.end if self._resampler else max(self._tape.end, floor(self.end_s * RATE_HZ))

    @property
    def horizon_s(self) -> float:
        """Every pulse before this time has been reported."""
        return self._detector.horizon / RATE_HZ if self._resampler else self.end_s

    def push(self, x: Samples) -> list[Pulse]:
        """Consecutive samples in any unit; NaN for one that is missing. The pulses that they decide, in order."""
        pulses: list[Pulse] = []
        for piece in self._pieces(x):
            if np.isnan(piece[0]):
                pulses += self.finish()
                self._count += piece.size
            else:
                pulses += self._extend(piece)
        return pulses

    def gap(self, seconds: float) -> list[Pulse]:
        """Nothing came for so long (not negative): what came before is decided, and time goes on."""
        pulses = self.finish()
        self._origin_s = self.end_s + seconds
        self._count = 0
        return pulses

    def finish(self) -> list[Pulse]:
        """The signal ends here: the pulses that were still undecided."""
        if self._resampler is None:
            return []
        x = self._resampler.finish()
        self._tape.extend(x)
        pulses = _pulses([*self._detector.push(x), *self._detector.finish()])
        self._resampler = None
        return pulses

    def window(self, end: int, size: int) -> Samples:
        """The `size` samples at 50 Hz before number `end`; NaN where there are none, or none any more."""
        out = np.full(size, np.nan)
        first = max(end - size, self._tape.first)
        known = self._tape[first:end]
        if known.size:
            at = first - (end - size)
            out[at : at + known.size] = known
        return out

    def _pieces(self, x: Samples) -> Iterator[Samples]:
        """All valid or all NaN, and short enough for the tape."""
        valid = np.isfinite(x)
        edges = () if valid.all() else np.flatnonzero(valid[1:] != valid[:-1]) + 1
        longest = ceil(self._rate_hz)
        for run in np.split(np.where(valid, x, np.nan), edges):
            for start in range(0, run.size, longest):
                yield run[start : start + longest]

    def _extend(self, x: Samples) -> list[Pulse]:
        if self._resampler is None:
            self._resampler = Resampler(self._rate_hz, self.end_s, PPG)
            self._tape.skip_to(self._resampler.next_index)
            self._detector.start(self._resampler.next_index)
        self._count += x.size
        resampled = self._resampler.push(x)
        self._tape.extend(resampled)
        return _pulses(self._detector.push(resampled))


def _pulses(found: list[tuple[float, bool]]) -> list[Pulse]:
    return [Pulse(index / RATE_HZ, after_gap) for index, after_gap in found]

"""QRS detection with a network that judges in noise what the envelope shows.

Beats of a noisy signal and bursts of muscle noise are as high as each other and may look alike; a network that sees the last
second tells them apart better than any threshold, and finds the R peak where the highest point is noise. In noise it is asked
about every bump of the envelope that is not far too low. In a clean signal, where the detector errs once in a thousand beats,
it is asked only about beats that come early or low, as the first bumps of a burst do, and can only speak against them.
"""

from math import inf
from typing import Final

import numpy as np

from models.signal.candidate import AFTER, BEFORE, Judge, Situation, values
from models.signal.filters import Samples, Tape
from models.signal.qrs import (
    BEAT_SHARE,
    LARGEST_RISE,
    LOW_BEAT,
    NOISE_FACTOR,
    REFRACTORY,
    TRUST_FROM,
    TRUST_SLOPE,
    Bump,
    Peak,
    QrsDetector,
)
from models.signal.shape import MARGIN, MEMORY, SHIFT, BeatSignal, QrsShape

NOISY: Final = 0.13
"""Noise, as a share of a beat, from which on the network decides: where the detector alone begins to doubt (`qrs.DOUBT`)."""

LIKELY: Final = 0.5
"""Probability from which on a bump is a beat."""

SURE: Final = 0.8
"""Below, a beat waits: a bump within the refractory time may be likelier."""

POSSIBLE: Final = 0.2
"""Probability from which on a bump may still be found by search back, or, in a clean signal, is not excluded."""

TOO_LOW: Final = 0.5
"""A bump under this share of the threshold is no beat, and nobody is asked: most bumps of a nearly clean signal are so low."""

ONE_IN: Final = 4
"""Shape and noise of a clean signal change within minutes, and learning from a beat costs as much as a verdict."""

EARLY: Final = 0.85
"""In a clean signal, a beat this share of the usual interval after the one before is early."""

_NEAR: Final = slice(BEFORE - SHIFT, BEFORE + SHIFT + 1)
"""Where the matched filter's output tells a bump's height."""


class _ThriftyShape(QrsShape):
    """Learns from every beat in noise, but from every `ONE_IN`th of a clean signal once enough is known."""

    def __init__(self) -> None:
        super().__init__()
        self._added = 0

    def add(self, beat: BeatSignal) -> None:
        self._added += 1
        if beat.noise > NOISY or self._added <= MEMORY or self._added % ONE_IN == 0:
            super().add(beat)


class JudgedQrsDetector(QrsDetector):
    """A `QrsDetector` that asks a judge. Every bump is judged by the same samples, however the signal is cut into chunks."""

    def __init__(self, signal: Tape, judge: Judge) -> None:
        super().__init__(signal)
        self._ask = judge
        self._shape = _ThriftyShape()

    def _measured(self, bump: Bump) -> Bump:
        if self._learning or self._too_low(bump):
            return bump
        return self._seen(bump) if self._doubtful(bump) else super()._measured(bump)

    def _too_low(self, bump: Bump) -> bool:
        return bump.height < TOO_LOW * (NOISE_FACTOR * self._noise + BEAT_SHARE * self._usual)

    def _noisy(self) -> bool:
        return self._noise_share() > NOISY

    def _doubtful(self, bump: Bump) -> bool:
        """Whether the judge is asked."""
        if self._noisy():
            return True
        if bump.height < self._threshold(bump):
            return False
        return bump.height < LOW_BEAT * self._tall or self._is_early(bump.at)

    def _is_early(self, index: int) -> bool:
        return bool(self._last and self._intervals and index - self._last.at < EARLY * self._interval)

    def _seen(self, bump: Bump) -> Bump:
        """With the verdict, and in noise with the height that the matched filter gives it."""
        rows = self._shape.view(self._window(bump.at))
        if rows is None:
            return super()._measured(bump)
        trust = min(max(TRUST_SLOPE * (self._noise_share() - TRUST_FROM), 0.0), 1.0)
        matched = max(float(rows[1, _NEAR].max()), 0.0) * self._matched_height
        height = (1 - trust) * bump.height + trust * matched
        return Bump(bump.at, bump.envelope, height, None, self._ask(values(rows, self._situation(bump))))

    def _window(self, index: int) -> Samples:
        """The samples that the network sees of a bump and `MARGIN` before, the first one continued to before the stretch."""
        numbers = np.arange(index - BEFORE - MARGIN, index + AFTER + 1)
        return self._signal.at(np.clip(numbers, self._begin, self._signal.end - 1))

    def _situation(self, bump: Bump) -> Situation:
        last, usual = self._last, self._usual
        before, since = (last.height / usual, bump.at - last.at) if last else (1.0, inf)
        return Situation(bump.height / usual, self._noise_share(), before, self._tall / usual, since, self._intervals)

    def _judge(self, bump: Bump) -> None:
        if bump.verdict is None:
            super()._judge(bump)
        elif self._noisy():
            self._follow(bump, bump.verdict.probability)
        elif bump.verdict.probability < POSSIBLE:
            self._noted(bump)
        else:
            super()._judge(bump)

    def _follow(self, bump: Bump, probability: float) -> None:
        """Decide as the judge does."""
        waiting = self._waiting
        if waiting and waiting.verdict and bump.at - waiting.at < REFRACTORY:
            if probability <= waiting.verdict.probability:
                self._noted(bump)
                return
            self._noted(waiting)
            self._waiting = None
        self._settle()
        if self._last and bump.at - self._last.at < REFRACTORY:
            return
        if probability < LIKELY:
            self._noted(bump)
            if probability >= POSSIBLE:
                self._passed_over.append(bump)
            return
        beat = bump._replace(height=max(bump.height, self._usual / LARGEST_RISE))
        if probability < SURE:
            self._waiting = beat
        else:
            self._accept(beat)

    def _located(self, beat: Bump) -> Peak:
        peak = super()._located(beat)
        return Peak(beat.at + beat.verdict.place, peak.amplitude_mv) if beat.verdict else peak

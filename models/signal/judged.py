"""QRS detection with a network that judges in noise what the envelope shows.

Beats of a noisy signal and bursts of muscle noise are as high as each other and may look alike; a network that sees the last
second tells them apart better than any threshold, and finds the R peak where the highest point is noise. In noise it is asked
about every bump of the envelope that is not far too low, in mild noise about those that neither height nor time decides. In a
clean signal, where the detector errs once in a thousand beats, it is asked only about beats that come early, as the first bumps
of a burst do, and can only speak against them.
"""

from math import inf
from typing import Final

from models.signal.candidate import AFTER, BEFORE, Judge, Situation, values
from models.signal.filters import Tape
from models.signal.peak import PEAK_REACH
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
from models.signal.shape import MARGIN, MEMORY, SHIFT, QrsShape

NOISY: Final = 0.13
"""Noise, as a share of a beat, from which on the network decides what is doubtful: where the detector alone begins to doubt
(`qrs.DOUBT`)."""

MILD: Final = 0.15
"""Noise up to which a bump is not doubtful where height and time speak for it, or against it. Most records that look clean have
less."""

CALM: Final = 0.1
"""Noise up to which an early bump of full height is a beat (`FULL`): P and T waves alone make up so much. Above, bursts of
muscle noise are as high."""

CERTAIN: Final = 1.5
HOPELESS: Final = 0.7
"""In mild noise, shares of the threshold: from the first on, a bump that is not early is a beat; under the second, an early one
is none."""

LIKELY: Final = 0.5
"""Probability from which on a bump is a beat."""

SURE: Final = 0.8
"""Below, a beat waits: a bump within the refractory time may be likelier."""

POSSIBLE: Final = 0.2
"""Probability from which on a bump may still be found by search back."""

VETO: Final = 0.05
"""Probability under which a beat of a clean signal is none."""

TOO_LOW: Final = 0.5
"""A bump under this share of the threshold is no beat in any noise, and nobody is asked."""

SETTLED: Final = 0.2
ONE_IN: Final = 16
"""Up to so much noise, one in so many beats is learnt from: shape and noise of a nearly clean signal change within minutes, and
learning from a beat costs as much as a verdict."""

EARLY: Final = 0.9
TOO_SOON: Final = 0.5
"""Shares of the usual interval after the last beat: before the one a bump is early, before the other few beats come."""

FULL: Final = 0.9
"""An early bump of a calm signal that reaches this share of the usual beat, and does not come too soon, is one: of 1,200 in
mitdb the network spoke against none."""

FARTHEST: Final = 18
"""Samples from a bump within which the judge may place the R peak: a burst of noise beside a beat draws the bump to itself."""

APART: Final = REFRACTORY / 2
"""Samples between R peaks at least, wherever the judge places them."""

_NEAR: Final = slice(BEFORE - SHIFT, BEFORE + SHIFT + 1)
"""Where the matched filter's output tells a bump's height."""


class _ThriftyShape(QrsShape):
    """Learns from every beat in noise, but from every `ONE_IN`th of a nearly clean signal once enough is known."""

    def __init__(self) -> None:
        super().__init__()
        self._added = 0

    def wants(self, noise: float) -> bool:
        self._added += 1
        return noise > SETTLED or self._added <= MEMORY or self._added % ONE_IN == 0


class JudgedQrsDetector(QrsDetector):
    """A `QrsDetector` that asks a judge. Every bump is judged by the same samples, however the signal is cut into chunks."""

    def __init__(self, signal: Tape, judge: Judge) -> None:
        super().__init__(signal)
        self._ask = judge
        self._shape = _ThriftyShape()
        self._latest = -inf
        """The last R peak."""

    @property
    def horizon(self) -> int:
        return super().horizon - FARTHEST + PEAK_REACH

    def _measured(self, bump: Bump) -> Bump:
        """With the judge's verdict, where height and time leave a doubt."""
        return bump if self._learning or not self._doubtful(bump) else self._seen(bump)

    def _doubtful(self, bump: Bump) -> bool:
        threshold = NOISE_FACTOR * self._noise + BEAT_SHARE * self._usual
        if bump.height < TOO_LOW * threshold:
            return False
        noise = self._noise / self._usual
        since = (bump.at - self._last.at) / self._interval if self._last else inf
        if noise <= NOISY:
            low = noise > CALM or bump.height < FULL * self._usual
            return since < EARLY and bump.height >= threshold and (low or since < TOO_SOON)
        if noise > MILD:
            return True
        if since < EARLY:
            return bump.height >= HOPELESS * threshold
        return bump.height < max(CERTAIN * threshold, LOW_BEAT * self._tall)

    def _noisy(self) -> bool:
        return self._noise > NOISY * self._usual

    def _seen(self, bump: Bump) -> Bump:
        """With the verdict, and in noise with the height that the matched filter gives it."""
        around = self._signal.continued(bump.at - BEFORE - MARGIN, bump.at + AFTER + 1, self._begin)
        rows = self._shape.view(around)
        if rows is None:
            return super()._measured(bump)
        trust = min(max(TRUST_SLOPE * (self._noise_share() - TRUST_FROM), 0.0), 1.0)
        matched = max(0.0, *rows[1, _NEAR].tolist()) * self._matched_height
        height = (1 - trust) * bump.height + trust * matched
        return Bump(bump.at, bump.envelope, height, None, self._ask(values(rows, self._situation(bump))))

    def _situation(self, bump: Bump) -> Situation:
        last, usual = self._last, self._usual
        before, since = (last.height / usual, bump.at - last.at) if last else (1.0, inf)
        return Situation(bump.height / usual, self._noise_share(), before, self._tall / usual, since, self._intervals)

    def _judge(self, bump: Bump) -> None:
        if bump.verdict is None:
            QrsDetector._judge(self, bump)  # super() takes longer
        elif self._noisy():
            self._follow(bump, bump.verdict.probability)
        elif bump.verdict.probability < VETO:
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
        at, amplitude_mv = super()._located(beat)
        if beat.verdict:
            at = beat.at + min(max(beat.verdict.place, -FARTHEST), FARTHEST)
        self._latest = max(at, self._latest + APART)
        return Peak(self._latest, amplitude_mv)

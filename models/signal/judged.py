"""QRS detection with a network that judges in noise what the envelope shows.

Beats of a noisy signal and bursts of muscle noise are as high as each other and may look alike; a network that sees the last
second tells them apart better than any threshold, and finds the R peak where the highest point is noise. In noise it is asked
about every bump of the envelope that is not far too low; in mild noise, and where it has long said what the height says, about
those that neither height nor time decides. In a clean signal, where the detector errs once in a thousand beats, it is asked
about beats that come early alone, as the first bumps of a burst do, and can only speak against them.

A beat of which the network is less than sure is reported when the next could have come on time: if that comes, it was none.
"""

from math import inf
from typing import Final, NamedTuple

from models.signal.candidate import AFTER, BEFORE, FARTHEST, Judge, Situation, values
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

AGREED: Final = 40
"""After so many verdicts in a row that said for sure what the height alone says, noise counts as mild: it is of tall T waves.
Muscle noise at 12 dB hardly ever gives so many."""

CALM: Final = 0.1
"""Noise up to which an early bump of full height is a beat (`FULL`): P and T waves alone make up so much. Above, bursts of
muscle noise are as high."""

HOPELESS: Final = 0.7
"""In mild noise, an early bump under this share of the threshold is no beat."""

LIKELY: Final = 0.5
"""Probability from which on a bump is a beat."""

SURE: Final = 0.8
"""Below, a beat waits: a bump within the refractory time may be likelier."""

ON_TIME: Final = 0.15
"""A beat that ends the usual interval, give or take this share of it, tells that a less than sure one before it was none."""

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

ONE_IN_CALM: Final = 64
"""The same up to `NOISY`, where little depends on it."""

EARLY: Final = 0.9
"""Before this share of the second shortest of the last intervals a bump is early. In an irregular rhythm that is soon."""

TOO_SOON: Final = 0.5
"""Before this share of the usual interval few beats come."""

FULL: Final = 0.9
"""An early bump of a calm signal that reaches this share of the usual beat, and does not come too soon, is one: of 1,200 in
mitdb the network spoke against none."""

_NEAR: Final = slice(BEFORE - SHIFT, BEFORE + SHIFT + 1)
"""Where the matched filter's output tells a bump's height."""


class ThriftyShape(QrsShape):
    """Learns from every beat in noise, but from few of a nearly clean signal once enough is known."""

    def __init__(self, calm: int = ONE_IN_CALM) -> None:
        """One in `calm` beats of a calm signal is learnt from."""
        super().__init__()
        self._calm = calm
        self._added = 0

    def wants(self, noise: float) -> bool:
        self._added += 1
        one_in = self._calm if noise <= NOISY else ONE_IN if noise <= SETTLED else 1
        return self._added <= MEMORY or self._added % one_in == 0


class Doubted(NamedTuple):
    """A beat that was less than sure, the one before it, and the usual interval then, in samples."""

    beat: Bump
    before: Bump
    interval: float

    @property
    def until(self) -> float:
        """When the next beat would be late."""
        return self.before.at + self.interval + ON_TIME * self.interval

    def is_refuted_by(self, bump: Bump) -> bool:
        """Whether a sure beat is on time without it."""
        return self.before.at + self.interval - ON_TIME * self.interval <= bump.at <= self.until


class JudgedQrsDetector(QrsDetector):
    """A `QrsDetector` that asks a judge. Every bump is judged by the same samples, however the signal is cut into chunks."""

    def __init__(self, signal: Tape, judge: Judge) -> None:
        super().__init__(signal)
        self._ask = judge
        self._shape = ThriftyShape()
        self._agreed = 0
        """Verdicts in a row that said what the height says."""
        self._doubted: Doubted | None = None
        """The last beat that was less than sure."""

    @property
    def horizon(self) -> int:
        held = self._held()
        decided = super().horizon
        return (min(decided, held.beat.at - PEAK_REACH) if held else decided) - FARTHEST + PEAK_REACH

    def finish(self) -> list[Peak]:
        beats = super().finish()
        self._doubted = None
        return beats + self._reported()

    def _measured(self, bump: Bump) -> Bump:
        """With the judge's verdict, where height and time leave a doubt."""
        if self._learning:
            return bump
        noise = self._noise / self._usual
        since = bump.at - self._last.at if self._last else inf
        early = since < EARLY * self._short
        if noise <= NOISY and not early:
            return bump
        height = bump.height / (NOISE_FACTOR * self._noise + BEAT_SHARE * self._usual)
        if height < TOO_LOW:
            return bump
        if noise <= NOISY:
            low = noise > CALM or bump.height < FULL * self._usual
            doubtful = height >= 1.0 and (low or since < TOO_SOON * self._interval)
        elif noise > MILD and self._agreed < AGREED:
            doubtful = True
        elif early:
            doubtful = height >= HOPELESS
        else:
            doubtful = bump.height < LOW_BEAT * self._tall
        if not doubtful:
            return bump
        seen = self._seen(bump)
        if seen.verdict and noise > NOISY:
            probability = seen.verdict.probability
            agree = probability >= SURE if height >= 1.0 else probability < POSSIBLE
            self._agreed = self._agreed + 1 if agree else 0
        return seen

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
        beat = bump if bump.height >= self._usual / LARGEST_RISE else bump._replace(height=self._usual / LARGEST_RISE)
        if probability < SURE:
            self._waiting = beat
            return
        if self._doubted and self._doubted.beat is self._last and self._doubted.is_refuted_by(bump):
            self._take_back(self._doubted)
        self._accept(beat)

    def _settle(self) -> None:
        beat, before, interval = self._waiting, self._last, self._interval
        super()._settle()
        if beat and beat.verdict and beat.verdict.probability < SURE and before and self._noisy():
            self._doubted = Doubted(beat, before, interval)

    def _held(self) -> Doubted | None:
        """The last beat, while the next may still refute it: it is not reported yet."""
        doubted = self._doubted
        return doubted if doubted and doubted.beat is self._last and self._front <= doubted.until else None

    def _take_back(self, doubted: Doubted) -> None:
        """It was none."""
        self._beats.pop()
        self._intervals.pop()
        self._last = doubted.before

    def _reported(self) -> list[Peak]:
        if not self._doubted or not self._held():
            return super()._reported()
        *beats, held = self._beats
        self._beats = [held]
        return beats

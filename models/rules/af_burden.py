"""Which beats are in atrial fibrillation: window by window from the model's probability, then looking back.

A single window is wrong now and then, and a rhythm lasts. So labels come from a two-state model, AF or not, that changes
rarely (forward-backward smoothing, Rabiner 1989, at a fixed lag): a stretch is labelled when the windows after it are known,
some two minutes late, and then for good. Alerts do not wait for that; the burden of AF does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from typing import Final, NamedTuple

STEP_BEATS: Final = 4
"""The model is asked at every fourth beat: windows of 64 beats change slowly, and a decision comes 3 beats later at most."""

EVIDENCE: Final = 4.0 * STEP_BEATS / 64
"""Share of a window's log-odds that one step brings: 16 windows in succession share their beats. By cross-validation, in which
2 to 6 are alike for long episodes; with less, episodes of a minute are lost."""

SWITCH: Final = STEP_BEATS / 1000
"""Chance that the rhythm changes within one step: once in a thousand beats. By cross-validation; 1 in 300 to 3000 is alike."""

LAG_STEPS: Final = 24
"""Steps that must be known behind a stretch before it is labelled: beyond 96 beats nothing changes any more."""

BLOCK_STEPS: Final = 8
"""Steps labelled at a time: looking back costs as much for one as for all."""

LONGEST_UNKNOWN_S: Final = 30.0
"""Time without a statement that ends an episode: as long as the shortest AF (ESC 2024: 30 s), nobody can say what it held."""

_SURE: Final = 30.0
_LEAST: Final = 1e-6


class Stretch(NamedTuple):
    """From `start_s` to `end_s` in AF, not in AF, or None: nothing can be said."""

    start_s: float
    end_s: float
    af: bool | None


class Episode(NamedTuple):
    """AF since `onset_s`; `end_s` is None while it goes on; `decided_s` is when that could be said."""

    onset_s: float
    end_s: float | None
    decided_s: float


@dataclass(frozen=True, slots=True)
class Burden:
    """Time in AF of the time that could be judged."""

    af_s: float = 0.0
    observed_s: float = 0.0

    @property
    def percent(self) -> float | None:
        """None where nothing was observed."""
        return 100 * self.af_s / self.observed_s if self.observed_s else None

    def plus(self, stretch: Stretch) -> "Burden":
        """With one more stretch; one of which nothing can be said counts nowhere."""
        if stretch.af is None:
            return self
        seconds = stretch.end_s - stretch.start_s
        return Burden(self.af_s + seconds * stretch.af, self.observed_s + seconds)


NOTHING_OBSERVED: Final = Burden()


class _Step(NamedTuple):
    start_s: float
    end_s: float
    known: bool
    evidence: float
    forward: float


class AfTracker:
    """Labels every stretch of a recording, and tells episodes, from the windows' probabilities.

    An episode is raised when a window reaches the threshold and the looking back says AF for the shortest duration; it ends
    where the labels say so.
    """

    def __init__(self, on_threshold: float, shortest_s: float) -> None:
        self._on, self._shortest_s = on_threshold, shortest_s
        self._pending: list[_Step] = []
        self._decided: list[Stretch] = []
        self._forward = 0.0
        self._from_s: float | None = None
        self._onset_s: float | None = None
        self._last_af_s = 0.0
        self._raised_s: float | None = None

    @property
    def raised(self) -> bool:
        """An episode was told and has not ended."""
        return self._raised_s is not None

    def judge(self, now_s: float, first_s: float, middle_s: float, probability: float | None) -> Iterator[Episode]:
        """One window.

        Args:
            now_s: its last beat.
            first_s: its first beat; where nothing was said before, its label holds from there.
            middle_s: the beat in its middle; its label holds from the one of the window before.
            probability: of AF; None where nothing can be said.
        """
        if self._from_s is None and probability is None:
            return
        start_s = first_s if self._from_s is None else self._from_s
        self._from_s = max(middle_s, start_s)
        evidence = 0.0
        if probability is not None:
            likely = min(max(probability, _LEAST), 1 - _LEAST)
            evidence = EVIDENCE * log(likely / (1 - likely))
        self._forward = _passed(self._forward) + evidence
        self._pending.append(_Step(start_s, self._from_s, probability is not None, evidence, self._forward))
        if len(self._pending) >= LAG_STEPS + BLOCK_STEPS:
            yield from self._decide(BLOCK_STEPS, now_s)
        if self._raised_s is None and probability is not None and probability >= self._on:
            onset_s = self._going_on_since()
            if onset_s is not None and now_s - onset_s >= self._shortest_s:
                self._raised_s = onset_s
                yield Episode(onset_s, None, now_s)

    def end(self, last_s: float) -> Iterator[Episode]:
        """Nothing follows the beat at `last_s`, or nothing for too long: all is labelled, and what goes on is closed."""
        if self._pending:
            step = self._pending[-1]
            self._pending[-1] = step._replace(end_s=max(last_s, step.end_s))
            yield from self._decide(len(self._pending), last_s)
        yield from self._close(last_s)
        self._forward, self._from_s, self._onset_s = 0.0, None, None

    def decided(self) -> list[Stretch]:
        """The stretches labelled since the last call, in order, without holes between windows."""
        taken, self._decided = self._decided, []
        return taken

    def _decide(self, count: int, now_s: float) -> Iterator[Episode]:
        """Label the oldest steps for good."""
        log_odds = self._smoothed()
        steps, self._pending = self._pending[:count], self._pending[count:]
        for step, odds in zip(steps, log_odds, strict=False):
            af = odds > 0 if step.known else None
            self._decided.append(Stretch(step.start_s, step.end_s, af))
            if af:
                self._onset_s = step.start_s if self._onset_s is None else self._onset_s
                self._last_af_s = step.end_s
            elif af is not None or step.end_s - self._last_af_s > LONGEST_UNKNOWN_S:
                self._onset_s = None
                if self._raised_s is not None and step.end_s > self._raised_s:
                    yield from self._close(now_s)

    def _close(self, now_s: float) -> Iterator[Episode]:
        if self._raised_s is not None:
            yield Episode(self._raised_s, max(self._last_af_s, self._raised_s), now_s)
        self._raised_s = None

    def _smoothed(self) -> list[float]:
        """Log-odds of AF for every pending step, by all that is known before and after it."""
        backward, out = 0.0, []
        for step in reversed(self._pending):
            out.append(step.forward + backward)
            backward = _passed(backward + step.evidence)
        return out[::-1]

    def _going_on_since(self) -> float | None:
        """The onset of the AF that lasts up to the newest window, as far as can be told now."""
        onset_s: float | None = None
        for step, odds in zip(reversed(self._pending), reversed(self._smoothed()), strict=True):
            if step.known:
                if odds <= 0 or (onset_s is not None and onset_s - step.end_s > LONGEST_UNKNOWN_S):
                    return onset_s
                onset_s = step.start_s
        joined = self._onset_s is not None and onset_s is not None and onset_s - self._last_af_s <= LONGEST_UNKNOWN_S
        return self._onset_s if joined else onset_s


def _passed(log_odds: float) -> float:
    """What log-odds of the state before mean for the one after, which is the same but for the chance of a change."""
    odds = exp(min(max(log_odds, -_SURE), _SURE))
    return log((odds * (1 - SWITCH) + SWITCH) / (1 - SWITCH + odds * SWITCH))

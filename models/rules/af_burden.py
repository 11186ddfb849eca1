"""Which beats are in atrial fibrillation: window by window from the model's probability, then looking back.

A single window is wrong now and then, and a rhythm lasts: the longer it has, the longer it will, since some patients
are in AF for minutes and others for months. So labels come from a model of four states, AF or not and each of them passing or
lasting (forward-backward smoothing, Rabiner 1989, at a fixed lag): a stretch is labelled when the windows after it are known,
some two minutes late, and then for good. Alerts do not wait for that; the burden of AF does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

STEP_BEATS: Final = 4
"""The model is asked at every fourth beat: windows of 64 beats change slowly, and a decision comes 3 beats later at most."""

EVIDENCE: Final = 4.0 * STEP_BEATS / 64
"""Share of a window's log-odds that one step brings: 16 windows in succession share their beats. By cross-validation, in which
2 to 6 are alike for long episodes; with less, episodes of a minute are lost."""

CHANGES: Final = STEP_BEATS / 200
"""Chance within one step that a passing rhythm gives way to the other. By cross-validation, as the two below: once in 200 to
500 beats is alike."""

SETTLES: Final = STEP_BEATS / 200
"""Chance that a passing rhythm begins to last; once in 200 to 500 beats is alike."""

UNSETTLES: Final = STEP_BEATS / 4000
"""Chance that a lasting rhythm becomes a passing one, before it can change; once in 4,000 to 20,000 beats is alike."""

LAG_STEPS: Final = 24
"""Steps that must be known behind a stretch before it is labelled: beyond 96 beats nothing changes any more."""

BLOCK_STEPS: Final = 8
"""Steps labelled at a time: looking back costs as much for one as for all."""

LONGEST_UNKNOWN_S: Final = 30.0
"""Time without a statement that ends an episode: as long as the shortest AF (ESC 2024: 30 s), nobody can say what it held."""

_LEAST: Final = 1e-6

Chances = tuple[float, ...]
"""Of another rhythm that lasts, another that passes, AF that passes, AF that lasts."""

_UNKNOWN: Final[Chances] = (0.25, 0.25, 0.25, 0.25)

_TURNS: Final[tuple[Chances, ...]] = (
    (1 - UNSETTLES, UNSETTLES, 0.0, 0.0),
    (SETTLES, 1 - SETTLES - CHANGES, CHANGES, 0.0),
    (0.0, CHANGES, 1 - SETTLES - CHANGES, SETTLES),
    (0.0, 0.0, UNSETTLES, 1 - UNSETTLES),
)
"""A row for every state: the chances of the states one step later."""

_TURNED: Final[tuple[Chances, ...]] = tuple(zip(*_TURNS, strict=True))


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
    odds: float
    forward: Chances


class AfTracker:
    """Labels every stretch of a recording, and tells episodes, from the windows' probabilities.

    An episode is raised when a window reaches the threshold and the looking back says AF for the shortest duration; it ends
    where the labels say so.
    """

    def __init__(self, on_threshold: float, shortest_s: float) -> None:
        self._on, self._shortest_s = on_threshold, shortest_s
        self._pending: list[_Step] = []
        self._decided: list[Stretch] = []
        self._forward = _UNKNOWN
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
        odds = 1.0
        if probability is not None:
            likely = min(max(probability, _LEAST), 1 - _LEAST)
            odds = (likely / (1 - likely)) ** EVIDENCE
        self._forward = _seen(_turned(self._forward, _TURNED), odds)
        self._pending.append(_Step(start_s, self._from_s, probability is not None, odds, self._forward))
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
        self._forward, self._from_s, self._onset_s = _UNKNOWN, None, None

    def decided(self) -> list[Stretch]:
        """The stretches labelled since the last call, in order, without holes between windows."""
        taken, self._decided = self._decided, []
        return taken

    def _decide(self, count: int, now_s: float) -> Iterator[Episode]:
        """Label the oldest steps for good."""
        in_af = self._smoothed()
        steps, self._pending = self._pending[:count], self._pending[count:]
        for step, is_af in zip(steps, in_af, strict=False):
            af = is_af if step.known else None
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

    def _smoothed(self) -> list[bool]:
        """Whether every pending step is likelier AF than not, by all that is known before and after it."""
        backward, out = _UNKNOWN, []
        for step in reversed(self._pending):
            lasting, passing, passing_af, lasting_af = (a * b for a, b in zip(step.forward, backward, strict=True))
            out.append(passing_af + lasting_af > lasting + passing)
            backward = _turned(_seen(backward, step.odds), _TURNS)
        return out[::-1]

    def _going_on_since(self) -> float | None:
        """The onset of the AF that lasts up to the newest window, as far as can be told now."""
        onset_s: float | None = None
        for step, is_af in zip(reversed(self._pending), reversed(self._smoothed()), strict=True):
            if step.known:
                if not is_af or (onset_s is not None and onset_s - step.end_s > LONGEST_UNKNOWN_S):
                    return onset_s
                onset_s = step.start_s
        joined = self._onset_s is not None and onset_s is not None and onset_s - self._last_af_s <= LONGEST_UNKNOWN_S
        return self._onset_s if joined else onset_s


def _seen(chances: Chances, odds: float) -> Chances:
    """With what a step says, its odds of AF; as shares of 1."""
    lasting, passing, passing_af, lasting_af = chances
    passing_af *= odds
    lasting_af *= odds
    total = lasting + passing + passing_af + lasting_af
    return lasting / total, passing / total, passing_af / total, lasting_af / total


def _turned(chances: Chances, rows: tuple[Chances, ...]) -> Chances:
    """A step on with the rows of `_TURNED`, a step back with those of `_TURNS`."""
    lasting, passing, passing_af, lasting_af = chances
    return tuple(a * lasting + b * passing + c * passing_af + d * lasting_af for a, b, c, d in rows)

"""Labels which stretches are in atrial fibrillation by smoothing the model's window probabilities, and detects episodes.

A single window is sometimes wrong, but a rhythm persists, and the longer it has lasted, the longer it is likely to last: some
patients are in AF for minutes, others for months. The labels therefore come from a hidden Markov model with four states, AF or
not, each transient or stable (forward-backward smoothing at a fixed lag, Rabiner 1989). A stretch gets its final label some two
minutes late, when the windows after it are known. The AF burden waits for these labels; alerts do not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import log
from typing import Final, NamedTuple

from models.signal.latest import Latest

STEP_BEATS: Final = 4
"""The model runs at every fourth beat: windows of 64 beats change slowly, and a decision comes at most 3 beats later."""

EVIDENCE_PER_STEP: Final = 4.0 * STEP_BEATS / 64
"""Share of a window's log-odds that counts at one step, because 16 successive windows share their beats. The factor 4 was
chosen by cross-validation: 2 to 6 perform equally for long episodes, a smaller one misses episodes of a minute."""

P_CHANGE: Final = STEP_BEATS / 200
"""Probability per step that a transient rhythm changes to the other. It was chosen by cross-validation, like the next two: all
values from once in 200 to once in 500 beats perform equally."""

P_STABILISE: Final = STEP_BEATS / 200
"""Probability per step that a transient rhythm becomes stable; all values from once in 200 to once in 500 beats perform
equally."""

P_DESTABILISE: Final = STEP_BEATS / 4000
"""Probability per step that a stable rhythm becomes transient, before it can change; all values from once in 4,000 to once in
20,000 beats perform equally."""

LAG_STEPS: Final = 24
"""Steps that must follow a stretch before it is labelled: beats further than 96 away do not change a label."""

BLOCK_STEPS: Final = 8
"""Steps labelled at a time: a backward pass costs the same for one as for all."""

MAX_UNKNOWN_S: Final = 30.0
"""Longer unknown time ends an episode: it could hide a whole AF episode (ESC 2024: the shortest AF lasts 30 s)."""

BRIEF_EPISODE_S: Final = 600.0
"""Episodes shorter than this are brief. Longer AF hardly ever comes from another rhythm that looks like it for a while."""

ALERT_EVIDENCE: Final = 12.0
"""Evidence that an episode must have to be raised: the sum of the log-odds of its steps, as in a sequential probability ratio
test (Wald 1945). Clear AF reaches it after some 50 s, a rhythm that looks like AF now and then hardly ever (decision 35)."""

REPETITION_IN_AF: Final = 2.0
"""Repetition of intervals (`models.rules.af_repetition`) up to which it is no evidence against AF: 95 % of the windows of AF in
ltafdb are below it. Each 1 above it lowers the log-odds of a window by 1, in the evidence for alerts only."""

BRIEF_EVIDENCE: Final = 4.0
MAX_BRIEF: Final = 4
"""Each brief episode that was raised within the last day, and ended in another rhythm, adds the first to the evidence that the
next one needs, the latest four at most: what looks like AF in a person does so again. The burden counts every episode."""

BRIEF_MEMORY_S: Final = 86_400.0

_MIN_PROBABILITY: Final = 1e-6

StateProbabilities = tuple[float, ...]
"""Probabilities of the states: stable other rhythm, transient other rhythm, transient AF, stable AF."""


_UNIFORM: Final[StateProbabilities] = (0.25, 0.25, 0.25, 0.25)

_TRANSITIONS: Final[tuple[StateProbabilities, ...]] = (
    (1 - P_DESTABILISE, P_DESTABILISE, 0.0, 0.0),
    (P_STABILISE, 1 - P_STABILISE - P_CHANGE, P_CHANGE, 0.0),
    (0.0, P_CHANGE, 1 - P_STABILISE - P_CHANGE, P_STABILISE),
    (0.0, 0.0, P_DESTABILISE, 1 - P_DESTABILISE),
)
"""One row per state: the probabilities of the states one step later."""

_TRANSPOSED: Final[tuple[StateProbabilities, ...]] = tuple(zip(*_TRANSITIONS, strict=True))


class Stretch(NamedTuple):
    """A labelled stretch of time: in AF, not in AF, or None where the rhythm is unknown."""

    start_s: float
    end_s: float
    af: bool | None


class Episode(NamedTuple):
    """An AF episode; `end_s` is None while it lasts. `decided_s` is when this report became possible."""

    onset_s: float
    end_s: float | None
    decided_s: float


@dataclass(frozen=True, slots=True)
class Burden:
    """Time in AF, and the time in which the rhythm was known."""

    af_s: float = 0.0
    observed_s: float = 0.0

    @property
    def percent(self) -> float | None:
        """The time in AF in percent; None where nothing was observed."""
        return 100 * self.af_s / self.observed_s if self.observed_s else None

    def plus(self, stretch: Stretch) -> "Burden":
        """Return the burden with one more stretch; an unknown stretch does not count."""
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
    odds: float
    forward: StateProbabilities


class AfTracker:
    """Labels every stretch of a recording and reports AF episodes, from the probabilities of windows.

    An episode is raised when a window reaches the threshold, smoothing labels at least the minimum duration before it AF, and
    there is enough evidence: `ALERT_EVIDENCE`, and more after brief episodes. An episode ends where the labels do.

    Attributes:
        open_onset_s: onset of the episode that was raised and has not ended; None without one.
    """

    def __init__(self, on_threshold: float, min_duration_s: float, brief_ages_s: Iterable[float] = ()) -> None:
        """Start a stream at the time 0; `brief_ages_s`: see `brief_ages_s`, as returned at that time."""
        self._on_threshold, self._min_duration_s = on_threshold, min_duration_s
        self._pending: list[_Step] = []
        self._labelled: list[Stretch] = []
        self._forward = _UNIFORM
        self._labelled_to_s: float | None = None
        self._onset_s: float | None = None
        self._last_af_s = 0.0
        self._labelled_evidence = 0.0
        """Evidence in the labelled steps since `_onset_s`."""
        self.open_onset_s: float | None = None
        self._brief_ends_s = Latest[float](MAX_BRIEF, (-age_s for age_s in brief_ages_s))

    def add_time_away(self, seconds: float) -> None:
        """Add the time between the end of an earlier stream and this one to the ages of brief episodes."""
        self._brief_ends_s = Latest[float](MAX_BRIEF, (end_s - seconds for end_s in self._brief_ends_s))

    def brief_ages_s(self, now_s: float) -> list[float]:
        """Return how long ago the latest brief episodes ended, for the next tracker of this patient."""
        return [now_s - end_s for end_s in self._brief_ends_s]

    def add_window(
        self, now_s: float, first_s: float, middle_s: float, probability: float | None, repetition: float
    ) -> Iterator[Episode]:
        """Process one window; yields an episode when it is raised and again when it ends.

        Args:
            now_s: the window's last beat.
            first_s: its first beat. If no window came before, its label applies from there.
            middle_s: the beat in its middle. Its label applies from the middle of the window before up to here.
            probability: of AF; None where the model is inconclusive.
            repetition: how much its intervals repeat, see `measure_repetition`.
        """
        if self._labelled_to_s is None and probability is None:
            return
        start_s = first_s if self._labelled_to_s is None else self._labelled_to_s
        self._labelled_to_s = max(middle_s, start_s)
        odds, evidence = 1.0, 0.0
        if probability is not None:
            clipped = min(max(probability, _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
            odds = (clipped / (1 - clipped)) ** EVIDENCE_PER_STEP
            evidence = log(odds) - EVIDENCE_PER_STEP * max(0.0, repetition - REPETITION_IN_AF)
        self._forward = _apply_evidence(_multiply(self._forward, _TRANSPOSED), odds)
        self._pending.append(_Step(start_s, self._labelled_to_s, probability is not None, evidence, odds, self._forward))
        if len(self._pending) >= LAG_STEPS + BLOCK_STEPS:
            yield from self._label_oldest(BLOCK_STEPS, now_s)
        if self.open_onset_s is None and probability is not None and probability >= self._on_threshold:
            yield from self._raise_episode(now_s)

    def end(self, last_s: float) -> Iterator[Episode]:
        """End the recording, or a part of it before a long gap, at the beat at `last_s`.

        Labels everything that is pending, closes the open episode, and starts over.
        """
        if self._pending:
            step = self._pending[-1]
            self._pending[-1] = step._replace(end_s=max(last_s, step.end_s))
            yield from self._label_oldest(len(self._pending), last_s)
        yield from self._close_episode(last_s)
        self._forward, self._labelled_to_s = _UNIFORM, None
        self._onset_s, self._labelled_evidence = None, 0.0

    def take_labelled(self) -> list[Stretch]:
        """Return the stretches labelled since the last call, in order and contiguous."""
        taken, self._labelled = self._labelled, []
        return taken

    def _label_oldest(self, count: int, now_s: float) -> Iterator[Episode]:
        """Give the oldest pending steps their final labels."""
        in_af = self._smooth()
        steps, self._pending = self._pending[:count], self._pending[count:]
        for step, is_af in zip(steps, in_af, strict=False):
            af = is_af if step.known else None
            self._labelled.append(Stretch(step.start_s, step.end_s, af))
            if af:
                self._onset_s = step.start_s if self._onset_s is None else self._onset_s
                self._last_af_s = step.end_s
                self._labelled_evidence += step.evidence
            elif af is not None or step.end_s - self._last_af_s > MAX_UNKNOWN_S:
                self._onset_s, self._labelled_evidence = None, 0.0
                if self.open_onset_s is not None and step.end_s > self.open_onset_s:
                    if self._last_af_s - self.open_onset_s < BRIEF_EPISODE_S and af is not None:
                        self._brief_ends_s.append(self._last_af_s)
                    yield from self._close_episode(now_s)

    def _close_episode(self, now_s: float) -> Iterator[Episode]:
        if self.open_onset_s is not None:
            yield Episode(self.open_onset_s, max(self._last_af_s, self.open_onset_s), now_s)
        self.open_onset_s = None

    def _raise_episode(self, now_s: float) -> Iterator[Episode]:
        """Yield the episode that lasts up to the newest window, if it is long enough and there is enough evidence for it."""
        onset_s, evidence = self._find_current_af()
        if onset_s is None or now_s - onset_s < self._min_duration_s:
            return
        brief = sum(now_s - end_s < BRIEF_MEMORY_S for end_s in self._brief_ends_s)
        if evidence >= ALERT_EVIDENCE + BRIEF_EVIDENCE * brief:
            self.open_onset_s = onset_s
            yield Episode(onset_s, None, now_s)

    def _smooth(self) -> list[bool]:
        """Return whether each pending step is more likely AF than not, given all windows before and after it."""
        backward, out = _UNIFORM, []
        for step in reversed(self._pending):
            stable_other, transient_other, transient_af, stable_af = (
                a * b for a, b in zip(step.forward, backward, strict=True)
            )
            out.append(transient_af + stable_af > stable_other + transient_other)
            backward = _multiply(_apply_evidence(backward, step.odds), _TRANSITIONS)
        return out[::-1]

    def _find_current_af(self) -> tuple[float | None, float]:
        """Return onset and evidence of the AF that lasts up to the newest window, by provisional labels; None without AF."""
        onset_s, evidence = None, 0.0
        for step, is_af in zip(reversed(self._pending), reversed(self._smooth()), strict=True):
            if step.known:
                if not is_af or (onset_s is not None and onset_s - step.end_s > MAX_UNKNOWN_S):
                    return onset_s, evidence
                onset_s = step.start_s
                evidence += step.evidence
        joined = self._onset_s is not None and onset_s is not None and onset_s - self._last_af_s <= MAX_UNKNOWN_S
        return (self._onset_s, evidence + self._labelled_evidence) if joined else (onset_s, evidence)


def _apply_evidence(states: StateProbabilities, odds: float) -> StateProbabilities:
    """Weigh the states by a step's odds of AF, and normalise."""
    stable_other, transient_other, transient_af, stable_af = states
    transient_af *= odds
    stable_af *= odds
    total = stable_other + transient_other + transient_af + stable_af
    return stable_other / total, transient_other / total, transient_af / total, stable_af / total


def _multiply(states: StateProbabilities, rows: tuple[StateProbabilities, ...]) -> StateProbabilities:
    """Multiply by a matrix: one step forward with `_TRANSPOSED`, one step back with `_TRANSITIONS`."""
    stable_other, transient_other, transient_af, stable_af = states
    return tuple(a * stable_other + b * transient_other + c * transient_af + d * stable_af for a, b, c, d in rows)

"""The agent's labels and AF episodes of annotated records, from the model's probability for every window.

Labels and episodes come from `models.rules.af_tracker.AfTracker`, what is said of an end from `models.rules.af.EndWatch`. The
agent runs both, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import isnan, nan
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from captures.rhythms import AF, LONGEST_SILENCE_S, NOT_AF, WINDOW, Rhythm, Windows, windows
from config.limits import DEFAULT_LIMITS
from models.rules.af import EndWatch, select_newest
from models.rules.af_repetition import MAYBE_AF_PROBABILITY, measure_repetition
from models.rules.af_tracker import STEP_BEATS, AfTracker, Episode, Stretch

Flags = NDArray[np.bool_]
Probabilities = NDArray[np.floating[Any]]

SEED: Final = 3

SETTLED_S: Final = 60.0
"""AF that comes back sooner has not ended for the agent: it judges the newest 26 intervals."""


class WindowModel(Protocol):
    """The part of `models.inference.rr_af.RrAf` that scoring needs."""

    @property
    def on_threshold(self) -> float:
        """The probability from which an alert may be raised."""
        ...

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: Flags) -> Probabilities:
        """Returns P(AF), (windows,), from (windows, 64) intervals and validity."""
        ...

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: Flags) -> Flags:
        """Returns which windows the model can classify, (windows,), from (windows, 64) intervals and validity."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredRecord:
    """One record, its windows, and for each the model's probability, NaN where it is inconclusive.

    `drop` is the share of the intervals that were dropped at random.
    """

    rhythm: Rhythm
    windows: Windows
    probability: Probabilities
    drop: float = 0.0

    def repetition(self) -> NDArray[np.float64]:
        """Returns how much the intervals of each window repeat, measured where the agent measures it, and 1 elsewhere."""
        measured = np.ones(len(self.probability))
        for index in np.flatnonzero(self.probability > MAYBE_AF_PROBABILITY):
            measured[index] = measure_repetition(self.windows.rr_s[index], self.windows.valid[index])
        return measured


class RaisedEpisode(NamedTuple):
    """An episode that raised an alert: its onset and end, when it was raised, and when its end was decided."""

    onset_s: float
    end_s: float
    decided_s: float
    closed_s: float


@dataclass(frozen=True, slots=True)
class TrackedRecord:
    """The agent's output for one record: the label of every beat, and the episodes that raise an alert.

    `labels` (beats,) are 1 in AF, 0 elsewhere, and -1 where the agent is inconclusive. `end_delays_s`: see `find_end_delays`.
    """

    scored: ScoredRecord
    labels: NDArray[np.int8]
    episodes: list[RaisedEpisode]
    end_delays_s: list[float]

    @property
    def rhythm(self) -> Rhythm:
        """The annotated rhythm."""
        return self.scored.rhythm


def score_windows(rhythm: Rhythm, model: WindowModel, drop: float = 0.0) -> ScoredRecord:
    """Returns the model's probability for every window that the agent passes to it."""
    cut = _cut_windows(rhythm, STEP_BEATS, _choose_lost(rhythm, drop))
    probability = np.full(len(cut.valid), nan)
    conclusive = model.find_conclusive_windows(cut.rr_s, cut.valid)
    probability[conclusive] = model.probabilities(cut.rr_s[conclusive], cut.valid[conclusive])
    return ScoredRecord(rhythm, cut, probability, drop)


def _choose_lost(rhythm: Rhythm, drop: float) -> Flags:
    return np.random.default_rng(SEED).random(len(rhythm.times_s)) < drop


def _cut_windows(rhythm: Rhythm, step: int, lost: Flags) -> Windows:
    """Returns the windows every `step` beats; the intervals of the beats that are `lost`, (beats,), are not valid."""
    cut = windows(rhythm, step)
    which = np.searchsorted(rhythm.times_s, cut.end_s)[:, None] + np.arange(1 - cut.valid.shape[1], 1)
    return replace(cut, valid=cut.valid & ~lost[which])


def track_episodes(record: ScoredRecord, model: WindowModel) -> TrackedRecord:
    """Returns the agent's labels and episodes from the probabilities of the windows, and when it notices their ends."""
    tracker = AfTracker(model.on_threshold, DEFAULT_LIMITS.af_duration.value)
    cut, times_s = record.windows, record.rhythm.times_s
    last_s = [*times_s[:-1][np.diff(times_s) > LONGEST_SILENCE_S].tolist(), float(times_s[-1])]
    episodes: list[Episode] = []
    stretches: list[Stretch] = []
    part = 0
    columns = (cut.end_s, cut.first_s, cut.middle_s, record.probability, record.repetition(), cut.part)
    for now_s, first_s, middle_s, probability, repetition, window_part in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        if window_part != part:
            episodes += tracker.end(last_s[part])
            part = window_part
        conclusive = None if isnan(probability) else probability
        episodes += tracker.add_window(now_s, first_s, middle_s, conclusive, repetition)
        stretches += tracker.take_labelled()
    episodes += tracker.end(last_s[part])
    stretches += tracker.take_labelled()
    raised_s = {onset_s: decided_s for onset_s, end_s, decided_s in episodes if end_s is None}
    raised = [
        RaisedEpisode(onset_s, end_s, raised_s[onset_s], closed_s) for onset_s, end_s, closed_s in episodes if end_s is not None
    ]
    return TrackedRecord(record, beat_labels(times_s, stretches), raised, find_end_delays(record, raised, model))


def find_end_delays(record: ScoredRecord, episodes: Sequence[RaisedEpisode], model: WindowModel) -> list[float]:
    """Returns the delay, in seconds, with which the agent noticed each end of AF during an episode that raised an alert.

    It notices an end when it says that the episode may have ended, or that it has; the delay is 0 if it already does. An end
    counts if another rhythm that is not flutter is annotated for `SETTLED_S` after it.
    """
    ends_s = _settled_ends(record.rhythm)
    delays = []
    for episode in episodes:
        during = [end_s for end_s in ends_s if episode.onset_s < end_s < episode.closed_s]
        if during:
            said = [*watch_end(record, episode, model), (episode.closed_s, True)]
            delays += [_delay(end_s, said) for end_s in during]
    return delays


def _settled_ends(rhythm: Rhythm) -> list[float]:
    times_s = rhythm.times_s
    until_s = [(end_s, np.searchsorted(times_s, (end_s, end_s + SETTLED_S))) for _, end_s in true_episodes(rhythm)]
    return [
        end_s
        for end_s, (first, last) in until_s
        if last < len(times_s)
        and (rhythm.labels[first:last] == NOT_AF).all()
        and np.diff(times_s[first : last + 1]).max() <= LONGEST_SILENCE_S
    ]


def watch_end(record: ScoredRecord, episode: RaisedEpisode, model: WindowModel) -> list[tuple[float, bool]]:
    """Returns when the agent changes whether the open episode may have ended, and to what."""
    cut = _windows_at_beats(record, episode.decided_s, episode.closed_s)
    rr_s, newest = cut.rr_s, select_newest(cut.valid)
    known = model.find_conclusive_windows(rr_s, newest)
    probability = model.probabilities(rr_s[known], newest[known]) if known.any() else np.zeros(0)
    watch = EndWatch()
    times_s = cut.end_s[known].tolist()
    return [(t, watch.may_have_ended) for t, p in zip(times_s, probability.tolist(), strict=True) if watch.add_probability(p)]


def _windows_at_beats(record: ScoredRecord, from_s: float, until_s: float) -> Windows:
    """Returns the windows that end at each beat from `from_s` to before `until_s`, in one part of the recording."""
    rhythm, lost = record.rhythm, _choose_lost(record.rhythm, record.drop)
    first, last = np.searchsorted(rhythm.times_s, (from_s, until_s))
    near = slice(max(first - WINDOW - 1, 0), last)
    ventricular = None if rhythm.ventricular is None else rhythm.ventricular[near]
    part = replace(rhythm, times_s=rhythm.times_s[near], labels=rhythm.labels[near], ventricular=ventricular)
    cut = _cut_windows(part, 1, lost[near])
    is_open = cut.end_s >= from_s
    return Windows(*(getattr(cut, field.name)[is_open] for field in fields(Windows)))


def _delay(end_s: float, said: Sequence[tuple[float, bool]]) -> float:
    """Returns how long after `end_s` the latest of these statements, each with its time, is first that the episode ended."""
    before = [ended for at_s, ended in said if at_s <= end_s]
    return 0.0 if before and before[-1] else next(at_s for at_s, ended in said if at_s > end_s and ended) - end_s


def beat_labels(times_s: NDArray[np.float64], stretches: Sequence[Stretch]) -> NDArray[np.int8]:
    """Returns for each beat the label of the stretch that its interval ends in: 1, 0, or -1 where inconclusive."""
    if not stretches:
        return np.full(len(times_s), -1, np.int8)
    ends = np.array([stretch.end_s for stretch in stretches])
    labels = np.array([-1 if stretch.af is None else stretch.af for stretch in stretches], np.int8)
    index = np.minimum(np.searchsorted(ends, times_s), len(ends) - 1)
    starts = np.array([stretch.start_s for stretch in stretches])
    within = (times_s > starts[index]) & (times_s <= ends[index])
    return np.where(within, labels[index], np.int8(-1))


def true_episodes(rhythm: Rhythm, label: int = AF) -> list[tuple[float, float]]:
    """Returns onset and end in seconds of every stretch of beats with this label."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rhythm.labels == label, [False]]).astype(np.int8)))
    last = len(rhythm.times_s) - 1
    return [(float(rhythm.times_s[a]), float(rhythm.times_s[min(b, last)])) for a, b in edges.reshape(-1, 2)]

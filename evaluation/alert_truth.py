"""What experts marked in a recording, as kinds of alerts: episodes, stretches that are not judged, and kinds left unmarked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from captures.annotations import BEATS, Annotations, read_annotations
from evaluation.ec57 import LABELS
from evaluation.spans import Span, merge_spans

DANGEROUS: Final = ("vf", "vt", "asystole")
"""Rhythms in which a high alert must be open."""

RHYTHMS: Final[Mapping[str, str]] = {
    "(VF": "vf",
    "(VFIB": "vf",
    "(VFL": "vf",
    "(VT": "vt",
    "(ASYS": "asystole",
    "(IVR": "v_run",
    "(AFIB": "af",
    "(B": "bigeminy",
    "(T": "trigeminy",
    "(SVTA": "svt",
}
"""Rhythm texts of WFDB to kinds. Flutter of the ventricles counts as `vf`; `svt` is no kind of alert, it fits `tachycardia`."""

NOT_JUDGED: Final = frozenset({"(NOISE", "(HGEA", "(VER", "(AFL"})
"""Noise hides what lies below; high-grade ectopic activity and ventricular escape may hold runs that are not marked one by one;
EC57 leaves atrial flutter out of the comparison of AF."""

MARGIN_S: Final = 10.0
"""Alerts this close to a dangerous or unjudged stretch are not counted as outside: experts mark changes to a few seconds."""

FITTING: Final[Mapping[str, frozenset[str]]] = {
    "vf": frozenset({"vf", "vt"}),
    "vt": frozenset({"vt", "vf"}),
    "asystole": frozenset({"asystole", "no_beats", "pause"}),
    "pause": frozenset({"pause", "asystole", "no_beats"}),
    "short_pause": frozenset({"short_pause", "pause"}),
    "tachycardia": frozenset({"tachycardia", "vt"}),
    "bradycardia": frozenset({"bradycardia"}),
    "v_run": frozenset({"v_run", "vt"}),
    "bigeminy": frozenset({"bigeminy"}),
    "trigeminy": frozenset({"trigeminy"}),
    "af": frozenset({"af"}),
}
"""The kinds of alerts that find an episode of each kind. A ventricular rhythm of 220/min or more is both `vt` and `vf`."""

ALSO_TRUE: Final[Mapping[str, frozenset[str]]] = {
    "tachycardia": frozenset({"svt", "vt", "vf"}),
    "bradycardia": frozenset({"asystole", "pause"}),
    "pause": frozenset({"vf"}),
    "asystole": frozenset({"vf"}),
    "no_beats": frozenset({"vf"}),
    "short_pause": frozenset({"asystole", "vf"}),
}
"""Marked episodes in which an alert of this kind is not false, besides those that it finds."""

PAUSE_S: Final = 3.0
SHORT_PAUSE_S: Final = 2.0
TACHYCARDIA_BPM: Final = 131.0
BRADYCARDIA_BPM: Final = 40.0
RATE_S: Final = 10.0
RATE_BEATS: Final = 5
VT_BPM: Final = 100.0
RUN_BEATS: Final = 3
"""The criteria of docs/alerts.md, applied to the annotated beats. They do not follow a change of the limits."""


class Episode(NamedTuple):
    """An annotated episode."""

    kind: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Truth:
    """The reference of one recording.

    Attributes:
        episodes: by onset.
        not_judged: stretches in which no alert counts as true or false, in order.
        judged: the kinds whose alerts outside the episodes are false; others are counted only.
    """

    episodes: tuple[Episode, ...] = ()
    not_judged: tuple[Span, ...] = ()
    judged: frozenset[str] = field(default_factory=frozenset)

    def spans(self, kinds: Iterable[str]) -> list[Span]:
        """Returns the time of the episodes of these kinds."""
        wanted = frozenset(kinds)
        return merge_spans((start_s, end_s) for kind, start_s, end_s in self.episodes if kind in wanted)

    @property
    def near_danger(self) -> list[Span]:
        """The time in or near a dangerous rhythm or a stretch that is not judged."""
        return merge_spans((*self.spans(DANGEROUS), *self.not_judged), MARGIN_S)


BEAT_KINDS: Final = frozenset({"pause", "asystole", "no_beats", "short_pause", "tachycardia", "bradycardia"})
RHYTHM_KINDS: Final = frozenset({"vf", "vt", "asystole", "no_beats", "af"})
ALL_KINDS: Final = frozenset({*FITTING, "no_beats"})

JUDGED: Final[Mapping[str, frozenset[str]]] = {
    "cudb": frozenset({"vf"}),
    "vfdb": RHYTHM_KINDS,
    "svdb": BEAT_KINDS | {"vf", "vt", "v_run"},
    "mitdb": ALL_KINDS,
    "nsrdb": ALL_KINDS,
}
"""The kinds that each database marks, so an alert without a mark is false. cudb marks no VT outside `[ ]`, and its beats have
gaps of up to 97 s; vfdb marks no beats."""


def read_truth(path: Path, rate_hz: float, duration_s: float, database: str) -> Truth:
    """Returns the reference in an annotation file; `database` is the name of its folder.

    Raises:
        AnnotationError: the file is damaged.
        OSError: it cannot be read.
    """
    notes = read_annotations(path)
    times_s = notes.sample / (notes.rate_hz or rate_hz)
    known = next((name for name in JUDGED if database.lower().startswith(name)), _guess_database(notes))
    if known == "nsrdb":  # healthy people: nothing may alert
        return Truth(judged=JUDGED[known])
    rhythms = [*_rhythm_spans(notes, times_s, duration_s), *_flutter_spans(notes, times_s, duration_s)]
    not_judged = [(start_s, end_s) for text, start_s, end_s in rhythms if text in NOT_JUDGED]
    episodes = [Episode(RHYTHMS[text], start_s, end_s) for text, start_s, end_s in rhythms if text in RHYTHMS]
    merged = _merge_episodes(episodes)
    beats = [] if known in ("cudb", "vfdb") else _beat_episodes(notes, times_s, merged)
    ordered = sorted((*merged, *beats), key=lambda episode: episode.start_s)
    return Truth(tuple(ordered), tuple(merge_spans(not_judged)), JUDGED[known])


def _guess_database(notes: Annotations) -> str:
    """Returns the known database whose annotations are like these."""
    if BEATS.isdisjoint(notes.symbol):
        return "vfdb"
    if "[" in notes.symbol and "V" not in notes.symbol:
        return "cudb"
    return "mitdb" if any(text in RHYTHMS for text in notes.aux) else "svdb"


def _merge_episodes(episodes: Iterable[Episode]) -> list[Episode]:
    """Join rhythms of one kind that touch, such as fibrillation that becomes flutter."""
    return [
        Episode(kind, start_s, end_s)
        for kind, group in groupby(sorted(episodes), lambda episode: episode.kind)
        for start_s, end_s in merge_spans((start, end) for _, start, end in group)
    ]


def _rhythm_spans(notes: Annotations, times_s: np.ndarray, duration_s: float) -> list[tuple[str, float, float]]:
    """Returns each rhythm with its start and end: it lasts until the next change."""
    changes = [
        (text.rstrip("\0 "), float(time_s))
        for text, time_s in zip(notes.aux, times_s, strict=True)
        if text.startswith("(") and time_s < duration_s
    ]
    return [(text, start_s, end_s) for (text, start_s), (_, end_s) in pairwise([*changes, ("", duration_s)])]


def _flutter_spans(notes: Annotations, times_s: np.ndarray, duration_s: float) -> list[tuple[str, float, float]]:
    """Returns the stretches from each `[` to its `]`, or to the end."""
    spans: list[tuple[str, float, float]] = []
    start_s: float | None = None
    for symbol, time_s in zip(notes.symbol, times_s.tolist(), strict=True):
        if symbol == "[" and start_s is None:
            start_s = time_s
        elif symbol == "]" and start_s is not None:
            spans.append(("(VFL", start_s, time_s))
            start_s = None
    return spans if start_s is None else [*spans, ("(VFL", start_s, duration_s)]


def _beat_episodes(notes: Annotations, times_s: np.ndarray, rhythms: Sequence[Episode]) -> list[Episode]:
    """Returns the episodes that the annotated beats show outside of dangerous rhythms."""
    dangerous = merge_spans((start, end) for kind, start, end in rhythms if kind in DANGEROUS)
    beats = [
        (float(time_s), LABELS.get(symbol, "Q"))
        for time_s, symbol in zip(times_s, notes.symbol, strict=True)
        if symbol in BEATS
    ]
    found: list[Episode] = []
    for stretch in _split_beats(beats, dangerous):
        found += [*_pauses(stretch), *_ventricular_runs(stretch)]
        found += _rate_episodes(stretch, "tachycardia", lambda rate: rate >= TACHYCARDIA_BPM)
        found += _rate_episodes(stretch, "bradycardia", lambda rate: rate <= BRADYCARDIA_BPM)
    return found


def _split_beats(beats: Sequence[tuple[float, str]], dangerous: Sequence[Span]) -> list[list[tuple[float, str]]]:
    """Split the beats where a dangerous rhythm without beats of its own lies between two of them."""
    stretches: list[list[tuple[float, str]]] = [[]]
    last_s: float | None = None
    for time_s, label in beats:
        if last_s is not None and any(start_s < time_s and last_s < end_s for start_s, end_s in dangerous):
            stretches.append([])
        stretches[-1].append((time_s, label))
        last_s = time_s
    return stretches


def _pauses(beats: Sequence[tuple[float, str]]) -> list[Episode]:
    gaps = [(first, second) for (first, _), (second, _) in pairwise(beats) if second - first >= SHORT_PAUSE_S]
    return [Episode("pause" if end - start >= PAUSE_S else "short_pause", start, end) for start, end in gaps]


def _ventricular_runs(beats: Sequence[tuple[float, str]]) -> list[Episode]:
    runs = [[time_s for time_s, _ in group] for label, group in groupby(beats, lambda beat: beat[1]) if label == "V"]
    return [
        Episode("vt" if 60 * (len(run) - 1) / (run[-1] - run[0]) >= VT_BPM else "v_run", run[0], run[-1])
        for run in runs
        if len(run) >= RUN_BEATS
    ]


def _rate_episodes(beats: Sequence[tuple[float, str]], kind: str, is_beyond: Callable[[float], bool]) -> list[Episode]:
    """Returns the stretches of at least 10 s in which the median rate of five intervals is beyond a limit."""
    times_s = np.array([time_s for time_s, _ in beats])
    if times_s.size <= RATE_BEATS:
        return []
    rr_s = np.diff(times_s)
    medians = np.median(np.lib.stride_tricks.sliding_window_view(rr_s, RATE_BEATS), axis=1)
    found: list[Episode] = []
    at = 0
    for is_episode, group in groupby(is_beyond(60 / float(median)) for median in medians):
        count = len(list(group))
        if is_episode:  # from the first interval in its windows that is itself beyond the limit to the last
            beyond = [at + i for i, rr in enumerate(rr_s[at : at + count + RATE_BEATS - 1]) if is_beyond(60 / float(rr))]
            start_s, end_s = float(times_s[beyond[0]]), float(times_s[beyond[-1] + 1])
            if end_s - start_s >= RATE_S:
                found.append(Episode(kind, start_s, end_s))
        at += count
    return found

"""Detects runs of ventricular beats, and ventricular bigeminy and trigeminy, in labelled beats.

Labels are the AAMI classes N, S, V and F, and "?" for a beat without a label. Only V starts an episode; F (part ventricular)
and "?" do not end one. The beats on the two sides of a gap are not consecutive, and no interval is counted across it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.latest import Latest

UNDECIDED: Final = frozenset({"F", "?"})
"""Labels that are evidence neither for nor against a ventricular rhythm."""

TOLERANCE_BEATS: Final = 3
"""Among the last three beats of a run, one may have another label: a capture or fusion beat, or a wrong label."""

RUN_BEATS: Final = 3
"""Three ventricular beats are a run (AHA/ACC/HRS 2017). Where `v_run_beats` asks for more, it is enough that the last one comes
in time: its label comes only after the beat that follows it."""

FAST_INTERVALS: Final = 2
"""A slow run becomes fast when the mean of this many latest intervals is fast: at the beat at which a new fast run would be
reported."""

SLOW_INTERVALS: Final = 8
"""Consecutive intervals below the rate limit that turn a fast run into a slow one, as when an escape rhythm follows it: VT is
over 100/min (AHA/ACC/HRS 2017 ventricular arrhythmia guideline). The number is our choice: a VT whose rate varies around
the limit rarely has so many in a row."""

HISTORY_BEATS: Final = 32
"""Latest beats that are kept, of which a wide rhythm consists when it is recognised."""

MISSES_TO_END: Final = 2
"""Cycles of another length that end bigeminy or trigeminy: one wrong label spoils one or two cycles."""


@dataclass(slots=True)
class _Run:
    """A run that has been reported.

    Attributes:
        seconds, intervals: total and number of the intervals between two ventricular beats.
        after_v: whether the last beat was ventricular.
        recent: of the last beats, whether each may belong to the run.
        latest: the last intervals between two ventricular beats, each with the time of its end.
        end_s, beats_at_end: end of the run, and number of its beats, if it does not continue after the latest other beat.
        origin_unknown: whether its rhythm was recognised as wide, regular and fast, not by the labels of its beats.
    """

    kind: str
    onset_s: float
    last_s: float
    beats: int
    seconds: float
    intervals: int
    after_v: bool = True
    recent: Latest[bool] = field(default_factory=lambda: Latest(TOLERANCE_BEATS, [True] * TOLERANCE_BEATS))
    latest: Latest[tuple[float, float]] = field(default_factory=lambda: Latest(SLOW_INTERVALS))
    end_s: float = 0.0
    beats_at_end: int = 0
    origin_unknown: bool = False


class RunRule:
    """Reports three or more consecutive ventricular beats: `vt` from 100/min, `v_run` below.

    A run is reported at its third beat, or when beat number `v_run_beats` comes if that is more, and a `vt` again at the beat
    from which it is urgent. A run that turns fast, or slow (`SLOW_INTERVALS`), ends there and continues as the other kind. A
    run ends at its last ventricular beat; this is known when two of three beats are not ventricular, or when no beat came for
    as long as a pause.

    A wide, regular and fast rhythm that `models.rules.wide_rhythm` recognises is a `vt` from its first beat on, with `measured`
    `origin_unknown` 1.
    """

    def __init__(self, limits: Limits) -> None:
        self._min_beats = round(limits.v_run_beats.value)
        self._fast_bpm = limits.vt_rate.value
        self._urgent_beats = round(limits.vt_high_beats.value)
        self._max_rr_s = limits.pause.value
        self._streak: list[tuple[float, float]] = []
        self._is_interrupted = False
        """Whether one beat of the streak had another label: as in a run that was reported, one may."""
        self._run: _Run | None = None
        self._last_beat_s: float | None = None
        self._history = Latest[tuple[float, float]](HISTORY_BEATS)
        """Time and interval of the latest consecutive beats."""
        self._is_after_gap = False
        """Whether a gap came after the last beat."""

    @property
    def is_open(self) -> bool:
        """Whether a run is in progress."""
        return self._run is not None

    def on_beat(
        self,
        t_s: float,
        rr_s: float | None,
        label: str,
        wide_since_s: float | None = None,
        next_rr_s: float | None = None,
    ) -> Iterator[Finding]:
        """Process one beat with the interval that ends at it, None after a gap.

        `wide_since_s`: at this beat a wide, regular and fast rhythm was recognised, which began at this time.
        `next_rr_s`: the interval to the beat after it, which has no label yet; None if it is not known.
        """
        yield from self.advance_to(t_s)
        self._last_beat_s, self._is_after_gap = t_s, False
        if rr_s is None:
            self._history.clear()
        self._history.append((t_s, rr_s or 0.0))
        if self._run is not None:
            yield from self._continue_run(self._run, t_s, rr_s, label)
        if self._run is None and wide_since_s is not None:
            self._streak = [beat for beat in self._history if beat[0] >= wide_since_s]
            yield self._start_run(origin_unknown=True)
        elif self._run is None:
            yield from self._extend_streak(t_s, rr_s, label, next_rr_s)

    def advance_to(self, t_s: float) -> Iterator[Finding]:
        """Process the time up to `t_s`, before which no further beat will be reported."""
        if self._last_beat_s is not None and t_s >= self._last_beat_s + self._max_rr_s:
            yield from self.end_episode(is_lost=self._is_after_gap)

    def on_gap(self, seconds: float) -> Iterator[Finding]:
        """Process a gap of `seconds`, infinite at the end of the stream. A gap shorter than a pause does not end a run."""
        self._is_after_gap = True
        if seconds >= self._max_rr_s:
            yield from self.end_episode(is_lost=True)

    def end_episode(self, *, is_lost: bool = False) -> Iterator[Finding]:
        """End the run, if there is one, at its last ventricular beat. `is_lost`: only the signal ends."""
        if self._run is not None:
            yield self._finding(self._run, self._run.last_s, self._run.beats, is_lost=is_lost)
        self._run, self._streak = None, []

    def _extend_streak(self, t_s: float, rr_s: float | None, label: str, next_rr_s: float | None) -> Iterator[Finding]:
        if label != "V":
            if self._is_interrupted or len(self._streak) < RUN_BEATS:
                self._streak = []
            self._is_interrupted = bool(self._streak)
            return
        if rr_s is None:
            self._streak = []
        self._streak.append((t_s, rr_s or 0.0))
        self._is_interrupted &= len(self._streak) > 1
        is_next_fast = next_rr_s is not None and self._fast_bpm * next_rr_s <= 60.0
        if len(self._streak) >= RUN_BEATS and len(self._streak) + is_next_fast >= self._min_beats:
            yield self._start_run()

    def _start_run(self, *, origin_unknown: bool = False) -> Finding:
        """Start a run with the beats in the streak. The coupling interval before the first one is not part of the run."""
        inner = self._streak[1:]
        seconds = sum(rr for _, rr in inner)
        kind = "vt" if 60.0 * len(inner) >= self._fast_bpm * seconds else "v_run"
        onset_s, last_s = self._streak[0][0], self._streak[-1][0]
        self._run = _Run(kind, onset_s, last_s, len(self._streak), seconds, len(inner), origin_unknown=origin_unknown)
        self._run.latest.extend(inner)
        self._streak = []
        return self._finding(self._run, None, self._run.beats)

    def _continue_run(self, run: _Run, t_s: float, rr_s: float | None, label: str) -> Iterator[Finding]:
        if label == "V":
            run.recent.append(True)
            yield from self._add_ventricular(run, t_s, rr_s if run.after_v else None)
        elif label in UNDECIDED:
            run.recent.append(True)
        elif False in list(run.recent)[1:]:
            yield self._finding(run, run.end_s, run.beats_at_end)
            self._run = None
        else:
            run.recent.append(False)
            run.end_s, run.beats_at_end = run.last_s, run.beats
        run.after_v = label == "V"

    def _add_ventricular(self, run: _Run, t_s: float, rr_s: float | None) -> Iterator[Finding]:
        run.beats += 1
        run.last_s = t_s
        if rr_s is None:
            run.latest.clear()
        else:
            run.seconds += rr_s
            run.intervals += 1
            run.latest.append((t_s, rr_s))
        if run.kind == "v_run" and self._has_turned_fast(run):
            yield from self._change_kind(run, "vt", FAST_INTERVALS)
        elif run.kind == "vt" and self._has_turned_slow(run):
            yield from self._change_kind(run, "v_run", SLOW_INTERVALS)
        elif run.kind == "vt" and run.beats == self._urgent_beats:
            yield self._finding(run, None, run.beats)

    def _has_turned_fast(self, run: _Run) -> bool:
        latest = [rr for _, rr in run.latest][-FAST_INTERVALS:]
        return len(latest) == FAST_INTERVALS and self._fast_bpm * sum(latest) <= 60.0 * FAST_INTERVALS

    def _has_turned_slow(self, run: _Run) -> bool:
        return len(run.latest) == SLOW_INTERVALS and all(self._fast_bpm * rr > 60.0 for _, rr in run.latest)

    def _change_kind(self, run: _Run, kind: str, intervals: int) -> Iterator[Finding]:
        """End the run where its last `intervals` begin, and start a run of the other kind there."""
        newest = list(run.latest)[-intervals:]
        first_end_s, first_rr_s = newest[0]
        turn_s, seconds = first_end_s - first_rr_s, sum(rr for _, rr in newest)
        run.seconds, run.intervals = run.seconds - seconds, run.intervals - intervals
        yield self._finding(run, turn_s, run.beats - intervals)
        self._run = _Run(kind, turn_s, run.last_s, intervals + 1, seconds, intervals)
        self._run.latest.extend(newest)
        yield self._finding(self._run, None, intervals + 1)

    def _finding(self, run: _Run, end_s: float | None, beats: int, *, is_lost: bool = False) -> Finding:
        measured = {
            "beats": float(beats),
            "rate_bpm": round(60.0 * run.intervals / run.seconds, 1),
            "limit_beats": float(self._min_beats),
            "limit_bpm": self._fast_bpm,
        }
        if run.origin_unknown:
            measured["origin_unknown"] = 1.0
        return Finding(run.kind, run.onset_s, end_s, f"rule:{run.kind}", None, measured, lost=is_lost)


class GeminyRule:
    """Reports that every second (bigeminy) or third (trigeminy) beat is ventricular, at least three times in a row."""

    def __init__(self, kind: str, limits: Limits) -> None:
        """Watch for `kind`, `bigeminy` or `trigeminy`."""
        self._kind = kind
        self._other_beats = 1 if kind == "bigeminy" else 2
        """Other beats between two ventricular ones."""
        self._min_cycles = round(limits.geminy_cycles.value)
        self._max_rr_s = limits.pause.value
        self._beats_since_v = 0
        """Beats since the last ventricular one."""
        self._no_gap_since_v = False
        """Whether there has been no gap since the last ventricular beat."""
        self._onset_s: float | None = None
        self._end_s = 0.0
        self._cycles = 0
        self._misses = 0
        self._last_beat_s: float | None = None

    def on_beat(self, t_s: float, rr_s: float | None, label: str) -> Iterator[Finding]:
        """Process one beat with the interval that ends at it, None after a gap."""
        yield from self.advance_to(t_s)
        self._last_beat_s = t_s
        if rr_s is None:
            self._beats_since_v, self._no_gap_since_v = 0, False
            if not self._is_raised:
                self._onset_s = None
        if label == "V" or (
            label in UNDECIDED and self._is_raised and self._no_gap_since_v and self._beats_since_v == self._other_beats
        ):
            yield from self._add_ventricular(t_s)
            self._beats_since_v, self._no_gap_since_v = 0, True
            return
        self._beats_since_v += 1
        if self._no_gap_since_v and self._beats_since_v >= 2 * (self._other_beats + 1):
            yield from self.end_episode()

    def advance_to(self, t_s: float) -> Iterator[Finding]:
        """Process the time up to `t_s`, before which no further beat will be reported."""
        if self._last_beat_s is not None and t_s >= self._last_beat_s + self._max_rr_s:
            yield from self.end_episode()

    def on_gap(self, seconds: float) -> Iterator[Finding]:
        """Process a gap of `seconds`, infinite at the end of the stream. A gap shorter than a pause does not end a pattern."""
        if seconds >= self._max_rr_s:
            yield from self.end_episode(is_lost=True)

    def end_episode(self, *, is_lost: bool = False) -> Iterator[Finding]:
        """End the pattern, if it was reported, at its last ventricular beat. `is_lost`: only the signal ends."""
        if self._onset_s is not None and self._is_raised:
            yield self._finding(self._onset_s, self._end_s, is_lost=is_lost)
        self._onset_s, self._cycles, self._misses = None, 0, 0

    @property
    def _is_raised(self) -> bool:
        return self._onset_s is not None and self._cycles >= self._min_cycles

    def _add_ventricular(self, t_s: float) -> Iterator[Finding]:
        if self._no_gap_since_v and self._onset_s is not None and self._beats_since_v == self._other_beats:
            self._cycles, self._misses, self._end_s = self._cycles + 1, 0, t_s
            if self._cycles == self._min_cycles:
                yield self._finding(self._onset_s, None)
            return
        if self._is_raised:
            self._misses += self._no_gap_since_v
            if self._misses < MISSES_TO_END:
                return
            yield from self.end_episode()
        may_start = self._beats_since_v >= self._other_beats
        self._onset_s, self._cycles, self._end_s = (t_s, 1, t_s) if may_start else (None, 0, t_s)

    def _finding(self, onset_s: float, end_s: float | None, *, is_lost: bool = False) -> Finding:
        measured = {"cycles": float(self._cycles), "limit_cycles": float(self._min_cycles)}
        return Finding(self._kind, onset_s, end_s, f"rule:{self._kind}", None, measured, lost=is_lost)

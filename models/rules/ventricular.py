"""Runs of ventricular beats, and ventricular bigeminy and trigeminy, from labelled beats.

Labels are the AAMI classes N, S, V and F, and "?" where none can be given. Only V starts an episode; F (part ventricular) and
"?" do not end one. Beats on the two sides of a gap do not follow each other: none is counted across it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from config.limits import Limits
from models.findings import Finding

UNDECIDED: Final = frozenset({"F", "?"})
"""Neither a sign for nor against a ventricular rhythm."""

SLIP: Final = 3
"""Of so many beats, the last ones of a run, one may be another: a capture or fusion beat, or a wrong label."""

FAST: Final = 2
"""Latest intervals by whose mean a slow run turns fast: as early as a new one is told."""

SLOW: Final = 8
"""Intervals in a row under the limit by which a fast run turns slow, as when an escape rhythm follows it: VT is over 100/min
(AHA/ACC/HRS 2017 ventricular arrhythmia guideline). The number is our choice: a VT whose rate varies about the limit has
hardly ever so many."""

MISSES: Final = 2
"""Cycles of another length that end a bigeminy or trigeminy: one wrong label makes one or two cycles into one."""


@dataclass(slots=True)
class _Run:
    """A run that was told.

    `seconds` and `intervals` add up those between two ventricular beats, `latest` holds the last of them with their ends;
    `end_s` and `sure_beats` are as of the last beat before one that was not ventricular.
    """

    kind: str
    onset_s: float
    last_s: float
    beats: int
    seconds: float
    intervals: int
    after_v: bool = True
    recent: deque[bool] = field(default_factory=lambda: deque([True] * SLIP, SLIP))
    latest: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SLOW))
    end_s: float = 0.0
    sure_beats: int = 0


class RunRule:
    """Three or more ventricular beats in a row: `vt` from 100/min, `v_run` below.

    Told at the third beat, and a `vt` again at the beat from which it is urgent. A run that turns fast, or slow (`SLOW`), ends
    there and goes on as the other kind. It ends at its last ventricular beat: told when two of three beats are not
    ventricular, or when there was no beat for as long as a pause.
    """

    def __init__(self, limits: Limits) -> None:
        self._least = round(limits.v_run_beats.value)
        self._fast_bpm = limits.vt_rate.value
        self._high = round(limits.vt_high_beats.value)
        self._silence_s = limits.pause.value
        self._streak: list[tuple[float, float]] = []
        self._run: _Run | None = None
        self._last_beat_s: float | None = None

    def beat(self, t_s: float, rr_s: float | None, label: str) -> Iterator[Finding]:
        """One beat with the interval that ends at it, None after a gap."""
        yield from self.until(t_s)
        self._last_beat_s = t_s
        if self._run is not None:
            yield from self._go_on(self._run, t_s, rr_s, label)
        if self._run is None:
            yield from self._maybe_start(t_s, rr_s, label)

    def until(self, t_s: float) -> Iterator[Finding]:
        """No beat since the last one and before `t_s`, up to which every beat is known."""
        if self._last_beat_s is not None and t_s >= self._last_beat_s + self._silence_s:
            yield from self.end()

    def end(self) -> Iterator[Finding]:
        """Nothing more is known: a run ended at its last ventricular beat."""
        if self._run is not None:
            yield self._finding(self._run, self._run.last_s, self._run.beats)
        self._run, self._streak = None, []

    def _maybe_start(self, t_s: float, rr_s: float | None, label: str) -> Iterator[Finding]:
        if label != "V":
            self._streak = []
            return
        if rr_s is None:
            self._streak = []
        self._streak.append((t_s, rr_s or 0.0))
        if len(self._streak) >= self._least:
            yield self._start()

    def _start(self) -> Finding:
        """The run of the beats in the streak; the interval before the first is its coupling, and not of the run."""
        inner = self._streak[1:]
        seconds = sum(rr for _, rr in inner)
        kind = "vt" if 60.0 * len(inner) >= self._fast_bpm * seconds else "v_run"
        onset_s, last_s = self._streak[0][0], self._streak[-1][0]
        self._run = _Run(kind, onset_s, last_s, len(self._streak), seconds, len(inner))
        self._run.latest.extend(inner)
        self._streak = []
        return self._finding(self._run, None, self._run.beats)

    def _go_on(self, run: _Run, t_s: float, rr_s: float | None, label: str) -> Iterator[Finding]:
        if label == "V":
            run.recent.append(True)
            yield from self._ventricular(run, t_s, rr_s if run.after_v else None)
        elif label in UNDECIDED:
            run.recent.append(True)
        elif False in list(run.recent)[1:]:
            yield self._finding(run, run.end_s, run.sure_beats)
            self._run = None
        else:
            run.recent.append(False)
            run.end_s, run.sure_beats = run.last_s, run.beats
        run.after_v = label == "V"

    def _ventricular(self, run: _Run, t_s: float, rr_s: float | None) -> Iterator[Finding]:
        run.beats += 1
        run.last_s = t_s
        if rr_s is None:
            run.latest.clear()
        else:
            run.seconds += rr_s
            run.intervals += 1
            run.latest.append((t_s, rr_s))
        if run.kind == "v_run" and self._turned_fast(run):
            yield from self._turned(run, "vt", FAST)
        elif run.kind == "vt" and self._turned_slow(run):
            yield from self._turned(run, "v_run", SLOW)
        elif run.kind == "vt" and run.beats == self._high:
            yield self._finding(run, None, run.beats)

    def _turned_fast(self, run: _Run) -> bool:
        latest = [rr for _, rr in run.latest][-FAST:]
        return len(latest) == FAST and self._fast_bpm * sum(latest) <= 60.0 * FAST

    def _turned_slow(self, run: _Run) -> bool:
        return len(run.latest) == SLOW and all(self._fast_bpm * rr > 60.0 for _, rr in run.latest)

    def _turned(self, run: _Run, kind: str, intervals: int) -> Iterator[Finding]:
        """The run ends where its last intervals begin, and they begin one of the other kind."""
        newest = list(run.latest)[-intervals:]
        first_end_s, first_rr_s = newest[0]
        turn_s, seconds = first_end_s - first_rr_s, sum(rr for _, rr in newest)
        run.seconds, run.intervals = run.seconds - seconds, run.intervals - intervals
        yield self._finding(run, turn_s, run.beats - intervals)
        self._run = _Run(kind, turn_s, run.last_s, intervals + 1, seconds, intervals)
        self._run.latest.extend(newest)
        yield self._finding(self._run, None, intervals + 1)

    def _finding(self, run: _Run, end_s: float | None, beats: int) -> Finding:
        measured = {
            "beats": float(beats),
            "rate_bpm": round(60.0 * run.intervals / run.seconds, 1),
            "limit_beats": float(self._least),
            "limit_bpm": self._fast_bpm,
        }
        return Finding(run.kind, run.onset_s, end_s, f"rule:{run.kind}", None, measured)


class GeminyRule:
    """Every second (bigeminy) or third (trigeminy) beat ventricular, at least three times in a row."""

    def __init__(self, kind: str, limits: Limits) -> None:
        self._kind = kind
        self._others = 1 if kind == "bigeminy" else 2
        self._cycles = round(limits.geminy_cycles.value)
        self._silence_s = limits.pause.value
        self._since = 0
        self._known = False
        self._onset_s: float | None = None
        self._end_s = 0.0
        self._count = 0
        self._misses = 0
        self._last_beat_s: float | None = None

    def beat(self, t_s: float, rr_s: float | None, label: str) -> Iterator[Finding]:
        """One beat with the interval that ends at it, None after a gap."""
        yield from self.until(t_s)
        self._last_beat_s = t_s
        if rr_s is None:
            self._since, self._known = 0, False
            if not self._raised:
                self._onset_s = None
        if label == "V" or (label in UNDECIDED and self._raised and self._known and self._since == self._others):
            yield from self._ventricular(t_s)
            self._since, self._known = 0, True
            return
        self._since += 1
        if self._known and self._since >= 2 * (self._others + 1):
            yield from self.end()

    def until(self, t_s: float) -> Iterator[Finding]:
        """No beat since the last one and before `t_s`, up to which every beat is known."""
        if self._last_beat_s is not None and t_s >= self._last_beat_s + self._silence_s:
            yield from self.end()

    def end(self) -> Iterator[Finding]:
        """Nothing more is known: the pattern ended at its last ventricular beat."""
        if self._onset_s is not None and self._raised:
            yield self._finding(self._onset_s, self._end_s)
        self._onset_s, self._count, self._misses = None, 0, 0

    @property
    def _raised(self) -> bool:
        return self._onset_s is not None and self._count >= self._cycles

    def _ventricular(self, t_s: float) -> Iterator[Finding]:
        if self._known and self._onset_s is not None and self._since == self._others:
            self._count, self._misses, self._end_s = self._count + 1, 0, t_s
            if self._count == self._cycles:
                yield self._finding(self._onset_s, None)
            return
        if self._raised:
            self._misses += self._known
            if self._misses < MISSES:
                return
            yield from self.end()
        enough = self._since >= self._others
        self._onset_s, self._count, self._end_s = (t_s, 1, t_s) if enough else (None, 0, t_s)

    def _finding(self, onset_s: float, end_s: float | None) -> Finding:
        measured = {"cycles": float(self._count), "limit_cycles": float(self._cycles)}
        return Finding(self._kind, onset_s, end_s, f"rule:{self._kind}", None, measured)

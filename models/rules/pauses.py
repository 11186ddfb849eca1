"""Detects pauses and asystole: no QRS complex for the limit, in a signal that could have shown one.

The time without a QRS complex is one episode with one onset. It is a `pause` from 3 s on and an `asystole` from 8 s on. It ends
with three QRS complexes of any shape, because single escape beats and P waves do not end a standstill. A stretch of signal that
begins without beats, after a gap or a loose electrode, is judged alike where this patient's beats are known; otherwise it is
`no_beats`. An interval between 2 and 3 s is a `short_pause`; it is never reported as both.

Every decision is made at a beat or at a fixed time after one, so the result does not depend on when the rule is called.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

from config.limits import Limits
from models.findings import Finding
from models.rules.known_qrs import KnownQrs
from models.rules.strip import Strip
from models.signal.filters import median_of
from models.signal.latest import Latest

RECHECK_S: Final = 1.0
"""How often the signal is checked without beats: a signal that is flat for so long is a loose electrode (`chain.FLAT_S`)."""

MEDIAN_INTERVALS: Final = 5
MIN_PAUSE_RATIO: Final = 1.25
"""A short pause lasts at least this many times the median of the five intervals before it. Beats at 29/min that vary a little
with breathing are a bradycardia."""

BEATS_TO_END: Final = 3
"""QRS complexes that end an episode. One or two may be escape beats in a standstill."""

EDGE_S: Final = 0.02
"""The first sample after a gap lies up to two samples later than the gap's end."""

BEFORE_R_S: Final = 0.2
"""Time before an R peak in which a QRS complex and its P wave begin."""

MIN_SEEN_S: Final = 1.4
"""Intervals from this length on are searched for beats that the detector missed: those of a bradycardia of 43/min or less."""

ANY_PEAKS: Final = 10**6
"""The later checks tolerate any number of low peaks, because they may be P waves, but no jump of the baseline."""

MIN_CLEAR_MV: Final = 0.1
"""Height of the lowest complex that shows that there is a heart. Those that the detector finds in noise of 20 to 50 uV rms are
lower; a monitor need not detect any of 0.15 mV (IEC 60601-2-27:2011, 201.12.1.101.15)."""

KNOWN_BEATS: Final = 8
KNOWN_S: Final = 3600.0
"""A patient's beats are known if there were so many in a row, without a pause, in the last hour. An electrode that is moved
gives a few, before the signal is known to be noise."""


class Signal(Strip, Protocol):
    """The ECG in which beats were detected: `models.signal.chain.EcgChain`."""

    def is_usable(self, start_s: float, end_s: float) -> bool:
        """Return whether the signal between two times was received and is never flat."""
        ...

    def is_beat_free(self, start_s: float, end_s: float, max_peaks: int = 1) -> bool:
        """Return whether the signal could have shown beats and shows at most `max_peaks` peaks that could be one."""
        ...


@dataclass(slots=True)
class _Episode:
    """A pause or asystole that has been reported.

    Attributes:
        checked_s: up to when the signal has been usable.
        longest_s: the longest interval without a QRS complex that has ended.
        beats_s: QRS complexes that may end the episode.
        severe: whether a `no_beats` has been reported as severe.
    """

    kind: str
    onset_s: float
    checked_s: float
    longest_s: float = 0.0
    beats_s: list[float] = field(default_factory=list)
    severe: bool = False


class PauseRule:
    """Detects pauses, short pauses and asystole of one lead."""

    def __init__(self, limits: Limits, since_beat_s: float | None = None, qrs_height_mv: float | None = None) -> None:
        """Start a stream; an earlier one had its last known beat `since_beat_s` before it, None if there was none."""
        self._limit_s = limits.pause.value
        self._short_s = limits.short_pause.value
        self._asystole_s = max(limits.asystole.value, self._limit_s)
        self._no_beats_s = limits.no_beats.value
        self._severe_s = limits.no_beats_high.value
        self.known_qrs = KnownQrs(qrs_height_mv)
        self._known_s: float | None = None if since_beat_s is None else -since_beat_s
        """The last QRS complex of those by which this patient's beats are known, also before a gap."""
        self._clear_beats = 0
        """Clear QRS complexes in a row, without a pause."""
        self._intervals = Latest[float](MEDIAN_INTERVALS)
        self._since_s: float | None = 0.0
        """The last QRS complex of the stretch, or else its start. None while there is no usable signal."""
        self._has_beat = False
        """Whether `_since_s` is a QRS complex that is not in noise."""
        self._is_slow = False
        """Whether a bradycardia is open in which intervals as long as a pause are expected."""
        self._is_suspended = False
        self._episode: _Episode | None = None
        self._due_s = 0.0
        """The next time at which the signal is checked."""
        self._start_interval(0.0, has_beat=False)

    def since_beat_s(self, t_s: float) -> float | None:
        """Return the time since the last beat by which this patient's beats are known at `t_s`, None if they are not."""
        return max(t_s - self._known_s, 0.0) if self._known_s is not None and self.knows_beats(t_s) else None

    def add_time_away(self, seconds: float) -> None:
        """Add the time between the end of the earlier stream and the start of this one."""
        if self._known_s is not None:
            self._known_s -= max(seconds, 0.0)
        self._start_interval(0.0, has_beat=False)

    def is_seen(self, start_s: float, end_s: float, signal: Signal, *, in_noise: bool = False) -> bool:
        """Return whether an interval between two beats is short, or its signal shows no beat although it could have.

        Not even one peak is taken for an artefact: in bigeminy, every interval has one. In noise, beats at a short interval may
        be noise, and a longer one may hide a beat unless its signal is lower than one.
        """
        if end_s - start_s < MIN_SEEN_S:
            return not in_noise
        if self.known_qrs.is_quiet(start_s, end_s - BEFORE_R_S, signal, 0):
            return True
        return not in_noise and signal.is_beat_free(start_s, end_s, 0)

    def accepts(self, t_s: float, amplitude_mv: float, signal: Signal) -> bool:
        """Return whether a detected beat is a QRS complex; while none comes, P waves may be detected as beats."""
        if self.known_qrs.is_p_wave(t_s, amplitude_mv, signal):
            return False
        if self._since_s is None or not self._has_beat:
            return True
        is_expected = self._episode is None and t_s - self._since_s < self._short_s
        return is_expected or self.known_qrs.is_qrs(t_s, amplitude_mv, signal)

    def advance_to(self, t_s: float, signal: Signal) -> Iterator[Finding]:
        """Process the time up to `t_s`, before which no further beat will be reported."""
        while self._due_s <= t_s:
            yield from self._check(self._due_s, signal)

    def on_beat(
        self, t_s: float, amplitude_mv: float, signal: Signal, *, is_slow: bool = False, is_clear: bool = True
    ) -> Iterator[Finding]:
        """Process one QRS complex.

        Args:
            t_s: the time of its R peak.
            amplitude_mv: its height over the baseline.
            signal: that in which it was detected.
            is_slow: a severe bradycardia is open, in which only asystole is looked for.
            is_clear: it is not in noise. A complex in noise, or one that is as low as noise, does not show that there is a
                heart, and may be none: the interval after it is no pause, only an asystole if it becomes so long.
        """
        yield from self.advance_to(t_s, signal)
        self.known_qrs.learn(t_s, amplitude_mv, signal)
        is_clear = is_clear and abs(amplitude_mv) >= MIN_CLEAR_MV
        follows = self._since_s is not None and t_s - self._since_s < self._limit_s
        self._clear_beats = (self._clear_beats if follows else 0) + 1 if is_clear else 0
        if self._clear_beats >= KNOWN_BEATS:
            self._known_s = t_s
        self._is_slow = is_slow
        if self._since_s is not None and self._episode is not None:
            yield from self._count_beat(self._episode, t_s, t_s - self._since_s)
        elif self._since_s is not None and self._has_beat:
            yield from self._find_short_pause(self._since_s, t_s, signal)
        if self._since_s is not None and self._has_beat:
            self._intervals.append(t_s - self._since_s)
        self._start_interval(t_s, has_beat=is_clear, is_doubtful=not is_clear)

    def on_gap(self, t_s: float, seconds: float = inf) -> Iterator[Finding]:
        """Process a gap of `seconds` that begins at `t_s`; infinite at the end of the stream.

        A gap in which three beats cannot hide does not end an episode. An interval across a gap is not a pause.
        """
        episode = self._episode
        if episode is not None and seconds >= self._short_s:
            yield self._finding(episode, max(t_s, episode.onset_s), is_lost=True)
            self._episode = None
        if seconds == inf:
            self._since_s, self._due_s = None, inf
        elif self._episode is None:
            self._start_interval(t_s + seconds + EDGE_S, has_beat=False)
        else:
            self._episode.checked_s = t_s + seconds
            self._due_s = max(self._due_s, t_s + seconds + RECHECK_S)

    def suspend(self, t_s: float) -> Iterator[Finding]:
        """Report nothing until `resume`: the rhythm is a ventricular fibrillation, which is not also an asystole."""
        self._is_suspended = True
        if self._episode is not None:
            yield self._finding(self._episode, max(t_s, self._episode.onset_s))
            self._episode = None

    def resume(self, t_s: float) -> None:
        """Begin a new interval at `t_s`, the end of the fibrillation."""
        self._is_suspended = False
        self._start_interval(t_s, has_beat=False)

    def knows_beats(self, t_s: float) -> bool:
        """Return whether this patient had beats within the hour before `t_s`."""
        return self._known_s is not None and t_s - self._known_s <= KNOWN_S

    def _start_interval(self, t_s: float, *, has_beat: bool, is_doubtful: bool = False) -> None:
        self._since_s, self._has_beat = t_s, has_beat
        is_judged = has_beat or self.knows_beats(t_s)
        known_s = self._asystole_s if self._is_slow or is_doubtful else self._limit_s
        first_s = known_s if is_judged else self._no_beats_s
        self._due_s = t_s + (RECHECK_S if self._episode is not None else first_s)

    def _check(self, due_s: float, signal: Signal) -> Iterator[Finding]:
        """Check the signal at `due_s`, and set the next time."""
        self._due_s = due_s + RECHECK_S
        if self._since_s is None:
            if signal.is_usable(due_s - RECHECK_S, due_s):
                self._start_interval(due_s - RECHECK_S, has_beat=False)
        elif self._episode is not None:
            yield from self._check_episode(self._episode, self._since_s, due_s, signal)
        elif not signal.is_usable(max(self._since_s, due_s - 2 * RECHECK_S), due_s):
            self._since_s = None
        elif not self._is_suspended:
            yield from self._try_raise(self._since_s, due_s, signal)

    def _try_raise(self, since_s: float, due_s: float, signal: Signal) -> Iterator[Finding]:
        """Raise an episode if the signal shows no beat.

        The first check is the most sensitive one. If it fails, by an artefact, P waves or a drop of the amplitude, only a
        signal that shows nothing but P waves for the length of an asystole raises an episode.
        """
        is_known = self._has_beat or self.knows_beats(due_s)
        needed_s = self._asystole_s if is_known else self._no_beats_s
        onset_s = max(since_s, due_s - needed_s)
        is_first = is_known and due_s < since_s + needed_s
        if is_first:
            max_peaks = 1 + self.known_qrs.count_p_waves(onset_s, due_s, signal)
            is_empty = self.known_qrs.is_quiet(onset_s, due_s, signal) and signal.is_beat_free(onset_s, due_s, max_peaks)
        else:
            is_low = self.known_qrs.shows_only_p_waves(onset_s, due_s, signal)
            is_empty = is_low and signal.is_beat_free(onset_s, due_s, ANY_PEAKS)
        if is_empty:
            kind = "no_beats" if not is_known else "pause" if is_first else "asystole"
            self._episode = _Episode(kind, onset_s, due_s)
            yield self._finding(self._episode, None, due_s - onset_s)
        if is_first:
            self._due_s = since_s + needed_s if self._episode is None else min(self._due_s, since_s + needed_s)

    def _check_episode(self, episode: _Episode, since_s: float, due_s: float, signal: Signal) -> Iterator[Finding]:
        if not signal.is_usable(max(since_s, due_s - RECHECK_S), due_s):
            if due_s - episode.checked_s >= self._short_s:
                yield self._finding(episode, episode.checked_s, is_lost=True)
                self._episode = self._since_s = None
            return
        episode.checked_s = due_s
        if episode.kind == "pause" and due_s < since_s + self._asystole_s:
            self._due_s = min(self._due_s, since_s + self._asystole_s)
        elif episode.kind == "pause":
            episode.kind, episode.beats_s = "asystole", []
            yield self._finding(episode, None, due_s - since_s)
        elif episode.kind == "no_beats" and not episode.severe and due_s - min(since_s, episode.onset_s) >= self._severe_s:
            episode.severe = True
            yield self._finding(episode, None, due_s - min(since_s, episode.onset_s))

    def _count_beat(self, episode: _Episode, t_s: float, interval_s: float) -> Iterator[Finding]:
        """Count a QRS complex in an episode; the third one ends it at the first."""
        episode.longest_s = max(episode.longest_s, interval_s)
        if interval_s >= self._asystole_s:
            episode.beats_s = []
        episode.beats_s.append(t_s)
        if len(episode.beats_s) == BEATS_TO_END:
            self._episode = None
            yield self._finding(episode, episode.beats_s[0])

    def _find_short_pause(self, onset_s: float, end_s: float, signal: Signal) -> Iterator[Finding]:
        interval_s = end_s - onset_s
        median_s = median_of(self._intervals) if self._intervals else interval_s
        is_long = max(self._short_s, MIN_PAUSE_RATIO * median_s) <= interval_s < self._limit_s
        if is_long and signal.is_beat_free(onset_s, end_s, 0):
            measured = {"pause_s": round(float(interval_s), 2), "limit_s": self._short_s}
            yield Finding("short_pause", onset_s, end_s, "rule:short_pause", None, measured)

    def _finding(self, episode: _Episode, end_s: float | None, now_s: float = 0.0, *, is_lost: bool = False) -> Finding:
        """Return the finding of an episode. `now_s` is the length of the present interval without a QRS complex."""
        if end_s is not None:
            since_s = episode.onset_s if self._since_s is None else self._since_s
            now_s = end_s - since_s
        limits = {"pause": self._limit_s, "asystole": self._asystole_s, "no_beats": self._no_beats_s}
        name = "seconds" if episode.kind == "no_beats" else "pause_s"
        measured = {name: round(float(max(now_s, episode.longest_s)), 2), "limit_s": limits[episode.kind]}
        return Finding(episode.kind, episode.onset_s, end_s, f"rule:{episode.kind}", None, measured, lost=is_lost)

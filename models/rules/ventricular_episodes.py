"""Turns what the network `ecg_organised` sees each second into episodes of fibrillation, tachycardia and asystole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of
from models.signal.latest import Latest
from models.signal.rhythm_window import ASYSTOLE, JUDGED_S, NOISE, ORGANISED, VF, VT, WINDOW_S

PERIOD_S: Final = 1.0

KINDS: Final = {VF: "vf", VT: "vt", ASYSTOLE: "asystole"}

VENTRICULAR_WINDOWS: Final = 5
"""Windows that raise a tachycardia or fibrillation. An event of a second, such as three ventricular beats in a row, lies in
four; what is seen in five lasts. With the three seconds that a window needs, it is known 7 s after the onset."""
ASYSTOLE_WINDOWS: Final = 4
"""Windows that raise an asystole, 6 s after the onset. Nothing as short as that looks like one."""

ON: Final = 0.7
"""Smallest mean probability of the dangerous rhythms together that raises a finding, of the most probable kind. They turn into
one another, so it need not be certain which one it is."""

DANGEROUS: Final = 0.5
"""Smallest probability of them in each of these windows; a single window with it contradicts an organised rhythm."""

SUSPECT: Final = 0.1
"""Probability of the dangerous rhythms below which the rate of a window is not measured: three windows with a mean of `ON` have
more."""

CHANGE_WINDOWS: Final = 5
"""Windows that show fibrillation before a tachycardia or asystole that was reported becomes fibrillation."""

OFF: Final = 0.9
OFF_WINDOWS: Final = 10
"""An episode ends when the mean probability of an organised rhythm reaches `OFF` over so many windows: as long as an alarm may
take by IEC 60601-2-27. A shorter calm, or chest compressions, do not end it. As many of a conducted rhythm end it, too."""

MAX_UNKNOWN_S: Final = 10.0
"""An episode is lost when no window could be classified for this long."""

REGULAR: Final = 0.8
"""Median similarity of a signal to itself one period later from which its rate is known. In coarse fibrillation it is 0.6."""

MERGED_BPM: Final = 220.0
"""A regular wide rhythm below is a tachycardia; above, flutter cannot be told apart from it."""

FLUTTER_BPM: Final = 240.0
"""From here on a regular rhythm without clear beats is flutter, whatever the network calls it: its rate is about 300/min
(ACC/AHA/ESC 2006, Circulation 114:e385, table 3), that of a tachycardia rarely above 250."""

PURE: Final = 0.98
"""Share of the power in one wave from which a signal is an oscillation without QRS complexes, at any rate."""

MAIN_SHARE: Final = 0.6
"""Share of the power from which one wave is the rhythm, also of a fibrillation that repeats itself after several waves."""

MAX_SLOW_SHARE: Final = 0.35
"""Fibrillation, flutter and tachycardia from 120/min have their power from 2 Hz on. Broad complexes at 60 to 115/min, which
resemble them by their shape, have half of it or more below."""


@dataclass(frozen=True, slots=True)
class Window:
    """What four seconds of ECG show.

    Attributes:
        probabilities: of organised, vt, vf, asystole and noise.
        period_s: after which the signal repeats itself.
        similarity: how similar it is then, up to 1; 0 where it was not measured.
        slow_share: part of the power that lies below 2 Hz; 1 where it was not measured.
        jumps: whether the baseline jumps in it as from the electrode, after which the amplifier shows no beats for a while.
        is_conducted: whether its beats are a fast conducted rhythm (ACC/AHA/HRS 2015, section 3.2), whatever the network
            says: regular and narrow complexes of one shape, or wide ones of a shape of this patient's slower rhythm.
        wave_hz: the frequency of the strongest wave.
        wave_share: its part of the power; 0 where it was not measured.
    """

    probabilities: tuple[float, ...]
    period_s: float = 1.0
    similarity: float = 0.0
    slow_share: float = 1.0
    jumps: bool = False
    is_conducted: bool = False
    wave_hz: float = 0.0
    wave_share: float = 0.0

    @property
    def is_pure(self) -> bool:
        """Whether it is one wave without QRS complexes."""
        return self.wave_share >= PURE

    @property
    def rate_bpm(self) -> float:
        """Rate of the rhythm: that of its strongest wave if this is most of it, and faster."""
        repeated_bpm = 60.0 / self.period_s
        return max(repeated_bpm, 60.0 * self.wave_hz) if self.wave_share >= MAIN_SHARE else repeated_bpm

    @property
    def is_noise(self) -> bool:
        """Whether noise is most probable."""
        return self.probabilities[NOISE] == max(self.probabilities)


@dataclass(slots=True)
class _Episode:
    """An episode that has been reported.

    Attributes:
        noisy_windows: the latest windows in a row that are noise.
        is_lost: whether noise hid the rhythm for long, and it was not seen again since.
    """

    rhythm: int
    onset_s: float
    probability: float
    measured: dict[str, float]
    noisy_windows: int = 0
    is_lost: bool = False


class VentricularEpisodes:
    """Follows the windows of one lead, one a second, with hysteresis."""

    def __init__(self, source: str, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._recent = Latest[Window](OFF_WINDOWS)
        self._episode: _Episode | None = None
        self._judged_s: float | None = None

    def on_window(self, t_s: float, window: Window | None) -> Iterator[Finding]:
        """Process the window that ends at `t_s`; None where it could not be classified."""
        if window is None:
            if self._judged_s is not None and t_s - self._judged_s >= MAX_UNKNOWN_S:
                yield from self.lose(self._judged_s)
            return
        self._judged_s = t_s
        self._recent.append(window)
        recent = tuple(self._recent)
        if self._episode is not None:
            self._note_noise(self._episode, recent)
        if self._episode is None:
            yield from self._start(t_s, recent)
        elif len(recent) == OFF_WINDOWS and is_organised(recent):
            yield from self._end(t_s, is_lost=self._episode.is_lost)
        elif self._episode.rhythm != VF and is_ventricular(recent, CHANGE_WINDOWS) and name_rhythm(recent) == VF:
            yield from self._end(t_s)
            yield from self._start(t_s, recent)

    @staticmethod
    def _note_noise(episode: _Episode, recent: Sequence[Window]) -> None:
        """Note noise that hides the rhythm for as long as makes an episode lost, and that the rhythm was seen again."""
        episode.noisy_windows = episode.noisy_windows + 1 if recent[-1].is_noise else 0
        if episode.noisy_windows * PERIOD_S >= MAX_UNKNOWN_S:
            episode.is_lost = True
        elif is_ventricular(recent, VENTRICULAR_WINDOWS) or is_standstill(recent):
            episode.is_lost = False

    def lose(self, t_s: float) -> Iterator[Finding]:
        """End the episode because the signal ends at `t_s`."""
        yield from self._end(t_s, is_lost=True)
        self._recent.clear()
        self._judged_s = None

    def _start(self, t_s: float, recent: Sequence[Window]) -> Iterator[Finding]:
        """Start an episode if the latest windows agree on a dangerous rhythm."""
        if is_ventricular(recent, VENTRICULAR_WINDOWS) and not is_other(recent[-VENTRICULAR_WINDOWS:]):
            rhythm, windows = name_rhythm(recent), recent[-VENTRICULAR_WINDOWS:]
        elif is_standstill(recent):
            rhythm, windows = ASYSTOLE, recent[-ASYSTOLE_WINDOWS:]
        else:
            return
        seconds = (len(windows) - 1) * PERIOD_S + JUDGED_S
        measured = self._measure(rhythm, windows, seconds)
        self._episode = _Episode(rhythm, max(t_s - seconds, 0.0), round(danger(windows), 3), measured)
        yield self._finding(self._episode, None)

    def _measure(self, rhythm: int, windows: Sequence[Window], seconds: float) -> dict[str, float]:
        """Return what the texts of an alert of this kind state; nothing for fibrillation."""
        if rhythm == ASYSTOLE:
            return {"pause_s": seconds, "limit_s": WINDOW_S}
        if rhythm == VF:
            return {}
        rate_bpm = 60.0 / median_of(window.period_s for window in windows)
        return {
            "beats": float(round(rate_bpm * seconds / 60.0)),
            "rate_bpm": round(rate_bpm, 1),
            "limit_beats": self._limits.v_run_beats.value,
            "limit_bpm": self._limits.vt_rate.value,
        }

    def _end(self, t_s: float, *, is_lost: bool = False) -> Iterator[Finding]:
        if self._episode is not None:
            yield self._finding(self._episode, max(t_s, self._episode.onset_s), is_lost=is_lost)
        self._episode = None

    def _finding(self, episode: _Episode, end_s: float | None, *, is_lost: bool = False) -> Finding:
        kind = KINDS[episode.rhythm]
        return Finding(kind, episode.onset_s, end_s, self._source, episode.probability, episode.measured, lost=is_lost)


def mean_probability(windows: Sequence[Window], rhythm: int) -> float:
    """Return the mean probability of one class."""
    return sum(window.probabilities[rhythm] for window in windows) / len(windows)


def danger(windows: Sequence[Window]) -> float:
    """Return the mean probability of the dangerous rhythms together."""
    return sum(mean_probability(windows, rhythm) for rhythm in KINDS)


def is_ventricular(windows: Sequence[Window], count: int) -> bool:
    """Return whether the latest windows show a dangerous rhythm that is rather fast than a standstill."""
    latest = windows[-count:]
    if len(latest) < count or danger(latest) < ON or min(danger((window,)) for window in latest) < DANGEROUS:
        return False
    return mean_probability(latest, VT) + mean_probability(latest, VF) >= mean_probability(latest, ASYSTOLE)


def is_standstill(windows: Sequence[Window]) -> bool:
    """Return whether the latest windows show an asystole."""
    latest = windows[-ASYSTOLE_WINDOWS:]
    if len(latest) < ASYSTOLE_WINDOWS or danger(latest) < ON or any(window.jumps or window.is_conducted for window in latest):
        return False
    return mean_probability(latest, ASYSTOLE) > mean_probability(latest, VT) + mean_probability(latest, VF)


def is_other(windows: Sequence[Window]) -> bool:
    """Return whether one of the windows is too slow for fibrillation or tachycardia, or most show conducted beats.

    A pure oscillation of 2 Hz has half of its power below, and is no broad complex.
    """
    conducted = sum(window.is_conducted for window in windows)
    is_slow = any(window.slow_share > MAX_SLOW_SHARE and not window.is_pure for window in windows)
    return is_slow or 2 * conducted > len(windows)


def is_organised(windows: Sequence[Window]) -> bool:
    """Return whether the windows show that an episode is over."""
    return mean_probability(windows, ORGANISED) >= OFF or all(window.is_conducted for window in windows)


def name_rhythm(windows: Sequence[Window]) -> int:
    """Return `VT` for a regular rhythm of complexes below 220/min, or up to 240/min if the network calls it so; otherwise `VF`.

    The network tells danger from order well, but tachycardia from fibrillation poorly; the regularity is measured.
    """
    latest = windows[-VENTRICULAR_WINDOWS:]
    is_regular = median_of(window.similarity for window in latest) >= REGULAR
    if not is_regular or 2 * sum(window.is_pure for window in latest) > len(latest):
        return VF
    rate_bpm = median_of(window.rate_bpm for window in latest)
    if rate_bpm < MERGED_BPM:
        return VT
    is_tachycardia = rate_bpm < FLUTTER_BPM and mean_probability(latest, VT) > mean_probability(latest, VF)
    return VT if is_tachycardia else VF

"""Monitors whether the ventricles beat in an organised way: reports fibrillation, tachycardia, asystole, and a lost signal.

Every second the network `ecg_organised` classifies the last four seconds. It needs no detected beats, which fail in these
rhythms. Signal quality does not hold its findings back: by any measure of quality, fibrillation is a bad signal.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from config.limits import Limits
from models.findings import Finding
from models.rules.no_signal import NoSignalRule
from models.rules.ventricular_episodes import DANGEROUS, KINDS, SUSPECT, VentricularEpisodes, Window, danger
from models.signal.chain import EcgChain, has_baseline_jump
from models.signal.defects import Defect, MainsMeter, find_still_defect
from models.signal.filters import Samples
from models.signal.latest import Latest
from models.signal.repetition import measure_repetition, measure_slow_share, measure_wave
from models.signal.rhythm_window import INPUT_SAMPLES, MIN_KNOWN_SHARE, NOISE, WINDOW_SAMPLES, prepare

if TYPE_CHECKING:
    from models.inference.ecg_organised import EcgOrganised

PERIOD_S: Final = 1.0

NOISE_WINDOWS: Final = 3
"""So many windows in a row must be noise before the signal counts as lost in it."""

NOISY: Final = 0.5
"""Probability of noise of a window from which the beats in it are no evidence: it is more likely noise than not. Windows with a
true tachycardia have less than 0.1, nearly always."""

KEPT_WINDOWS: Final = 16
"""Windows whose probability of noise is kept: the longest stretch that is asked for has 10 s."""

CONDUCTED_S: Final = 2.5
"""A window shows a conducted rhythm if the latest beat of one is at most this old when it ends: beats are labelled up to
1.5 s after they were detected, and every second one is judged."""

INSIDE_S: Final = 1.0
"""A window shows a stretch if it ends at least this long after its start: a third of what the window is named after."""


class VentricularMonitor:
    """Classifies the last four seconds of one lead every second, and follows what it finds.

    Attributes:
        latest: the latest window that was classified; None where the signal does not allow it.
        excludes_organised: whether that window shows noise, or a dangerous rhythm, even if no finding has been raised yet; or
            the electrodes have no contact, so that what looks like beats is none.
    """

    def __init__(self, model: "EcgOrganised | None", limits: Limits, rate_hz: float, hop: int) -> None:
        self._model = model
        self._mains = MainsMeter(rate_hz, hop)
        self._no_signal = NoSignalRule(limits)
        self._episodes = VentricularEpisodes(f"{model.name}@{model.version}" if model else "", limits)
        self._next_s = PERIOD_S
        self._noisy_windows = 0
        self._noise = Latest[tuple[float, float]](KEPT_WINDOWS)
        """End and probability of noise of the latest windows that were classified."""
        self._defects_s = Latest[float](KEPT_WINDOWS)
        """End of the latest windows that could not be classified: the signal has a defect."""
        self._blind_s = Latest[float](KEPT_WINDOWS)
        """End of those whose defect is not hum."""
        self.latest: Window | None = None
        self.excludes_organised = False

    def push(
        self, mv: Samples, chain: EcgChain, *, has_contact: bool = True, conducted_s: float | None = None
    ) -> Iterator[Finding]:
        """Process one hop in mV, which the chain has processed.

        Args:
            mv: the samples.
            chain: the chain.
            has_contact: what the sensor says of its electrodes.
            conducted_s: time of the latest beat if it belongs to a fast rhythm that is conducted, see `BeatLabeller`.
        """
        if chain.end_s < self._next_s:
            return
        end_s = chain.end_s
        self._next_s = end_s + PERIOD_S
        newest = chain.newest(INPUT_SAMPLES) if not chain.in_gap else np.full(INPUT_SAMPLES, np.nan)
        defect: Defect | None = "hum" if self._mains.is_hum(mv) else find_still_defect(newest[-WINDOW_SAMPLES:])
        defect = defect if has_contact else "lead_off"
        is_conducted = conducted_s is not None and end_s - conducted_s <= CONDUCTED_S
        self.latest = None if defect else self._classify(newest, is_conducted=is_conducted)
        self.excludes_organised = not has_contact or (self.latest is not None and _excludes_organised(self.latest))
        if defect:
            self._defects_s.append(end_s)
        if defect and defect != "hum":
            self._blind_s.append(end_s)
        if self.latest is not None:
            self._noise.append((end_s, self.latest.probabilities[NOISE]))
            self._noisy_windows = self._noisy_windows + 1 if self.latest.is_noise else 0
            defect = "noise" if self._noisy_windows >= NOISE_WINDOWS else None
        yield from self._episodes.on_window(end_s, self.latest)
        if not chain.in_gap:
            yield from self._no_signal.advance_to(end_s, defect)

    def is_noise(self, start_s: float, end_s: float) -> bool:
        """Whether any part of the signal between two times is more likely noise than not."""
        return any(noise >= NOISY for at_s, noise in self._noise if start_s + INSIDE_S <= at_s <= end_s + INSIDE_S)

    def is_lost(self, start_s: float, end_s: float) -> bool:
        """Whether any part of the signal between two times is noise or has a defect, as without contact."""
        return _is_any_inside(self._defects_s, start_s, end_s) or self.is_noise(start_s, end_s)

    def hides_beats(self, start_s: float, end_s: float) -> bool:
        """Whether any part of the signal between two times has a defect through which no beat is seen: any but hum."""
        return _is_any_inside(self._blind_s, start_s, end_s)

    @property
    def is_lost_in_noise(self) -> bool:
        """Whether the signal is lost in noise at present, and has not been back for `BACK_S`."""
        return self._no_signal.is_lost_in_noise

    def note_urgency(self, *, is_urgent: bool) -> None:
        """Note whether a lost signal must be reported at once, see `NoSignalRule`."""
        self._no_signal.is_urgent = is_urgent

    def gap(self, start_s: float, seconds: float) -> Iterator[Finding]:
        """End what is ongoing: there is no signal from `start_s` on, for `seconds`."""
        self._next_s = start_s + seconds + PERIOD_S
        self.latest, self.excludes_organised, self._noisy_windows = None, False, 0
        yield from self._episodes.lose(start_s)
        yield from self._no_signal.gap(start_s)

    def _classify(self, mv: Samples, *, is_conducted: bool) -> Window | None:
        """Return what the newest window shows; None without a model, or if too much of it is missing."""
        if self._model is None or np.count_nonzero(np.isfinite(mv[-WINDOW_SAMPLES:])) < MIN_KNOWN_SHARE * WINDOW_SAMPLES:
            return None
        window = prepare(mv)
        probabilities = self._model.classify(window)
        if sum(probabilities[rhythm] for rhythm in KINDS) < SUSPECT:
            return Window(probabilities, is_conducted=is_conducted)
        slow_share, jumps = measure_slow_share(window), has_baseline_jump(mv)
        return Window(probabilities, *measure_repetition(window), slow_share, jumps, is_conducted, *measure_wave(window))


def _is_any_inside(ends_s: Iterable[float], start_s: float, end_s: float) -> bool:
    """Return whether one of the windows that end at `ends_s` shows a stretch."""
    return any(start_s + INSIDE_S <= at_s <= end_s + INSIDE_S for at_s in ends_s)


def _excludes_organised(window: Window) -> bool:
    return window.is_noise or (danger((window,)) >= DANGEROUS and not window.is_conducted)

"""One ECG stream's analysis: samples in, beats and findings out.

The state moves on in hops counted from the start of a gap-free stretch, so beats and findings are the same for any chunking,
byte for byte.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from models.findings import Finding
from models.rules.af import AfRule, RhythmModel
from models.rules.pause import PauseRule
from models.rules.rates import RateRule
from models.signal.chain import Beat, EcgChain

SHORTEST_INTERVAL_S: Final = 0.2
"""Refractory period of the ventricle: no interval can be shorter (Pan & Tompkins 1985, section III)."""
HOP_S: Final = 0.2
"""Samples are held back until a hop is full. Shorter hops cost more: 0.2 ms a second of ECG at 0.2 s, 0.34 ms at 0.1 s."""
FLAT_S: Final = 1.0
"""A signal that shows nothing at all for so long is a loose electrode: even in asystole there is baseline wander."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a chunk of signal brought: the beats that were decided by it, and findings in the order they were made."""

    beats: tuple[Beat, ...] = ()
    findings: tuple[Finding, ...] = ()


class EcgAnalysis:
    """Signal chain, rules and rhythm model of one ECG stream."""

    def __init__(self, rate_hz: float, limits: Limits, rhythm: RhythmModel | None) -> None:
        self.chain = EcgChain(rate_hz)
        self._rate_hz = rate_hz
        self._hop = max(round(HOP_S * rate_hz), 1)
        self._held: NDArray[np.float64] = np.empty(0)
        self._rates = (RateRule("tachycardia", limits), RateRule("bradycardia", limits))
        self._pause = PauseRule(limits)
        self._pause_s = limits.pause.value
        self._paused_after_s: float | None = None
        self._af = AfRule(limits, rhythm) if rhythm else None
        self._last_beat_s: float | None = None

    @property
    def end_s(self) -> float:
        """The stream's time right after the last sample that came."""
        return self.chain.end_s + self._held.size / self._rate_hz

    def push(self, mv: NDArray[np.float64]) -> Step:
        """Consecutive samples in mV, NaN for one that is missing."""
        samples = np.concatenate((self._held, mv))
        whole = samples.size // self._hop * self._hop
        self._held = samples[whole:]
        return _joined(self._hopped(samples[start : start + self._hop]) for start in range(0, whole, self._hop))

    def gap(self, seconds: float) -> Step:
        """Nothing came for so long: what is pending is decided, and no interval is joined across."""
        rest = self._rest()
        start_s = self.chain.end_s
        beats = self.chain.gap(seconds)
        return _joined((rest, Step(tuple(beats), (*self._judge(beats), *self._interrupt(start_s, seconds)))))

    def finish(self) -> Step:
        """No more will come: what is pending is decided, and what goes on is closed."""
        rest = self._rest()
        beats = self.chain.finish()
        findings = [*self._judge(beats), *self._interrupt(self.chain.end_s, float("inf"))]
        return _joined((rest, Step(tuple(beats), tuple(findings))))

    def _rest(self) -> Step:
        held, self._held = self._held, np.empty(0)
        return self._hopped(held)

    def _hopped(self, mv: NDArray[np.float64]) -> Step:
        beats = self.chain.push(mv)
        return Step(tuple(beats), (*self._judge(beats), *self._quiet(self.chain.horizon_s)))

    def _judge(self, beats: list[Beat]) -> Iterator[Finding]:
        for beat in beats:
            rr_s = None if beat.after_gap or self._last_beat_s is None else beat.t_s - self._last_beat_s
            if rr_s is not None and rr_s < SHORTEST_INTERVAL_S:
                continue
            self._last_beat_s = beat.t_s
            yield from self._quiet(beat.t_s)
            yield from self._pause.beat(beat.t_s)
            if rr_s is not None:
                for rule in self._rates:
                    yield from rule.beat(beat.t_s, rr_s)
            if self._af:
                yield from self._af.beat(beat.t_s, rr_s)

    def _quiet(self, until_s: float) -> Iterator[Finding]:
        """No beat since the last one: a pause, if the signal could have shown one from the start, and while it still could."""
        last_s = self._pause.last_beat_s
        if last_s is None or until_s < last_s + self._pause_s:
            return
        limit_s = last_s + self._pause_s
        if last_s != self._paused_after_s and self.chain.quiet(last_s, limit_s):
            self._paused_after_s = last_s
            yield from self._pause.quiet_until(limit_s)
        elif last_s != self._paused_after_s or not self.chain.usable(max(last_s, until_s - FLAT_S), until_s):
            yield from self._pause.gap(until_s)

    def _interrupt(self, start_s: float, seconds: float) -> Iterator[Finding]:
        yield from self._pause.gap(start_s)
        for rule in self._rates:
            yield from rule.gap(start_s)
        if self._af:
            yield from self._af.gap(start_s, seconds)


def _joined(steps: Iterable[Step]) -> Step:
    parts = list(steps)
    return Step(
        tuple(beat for part in parts for beat in part.beats), tuple(finding for part in parts for finding in part.findings)
    )

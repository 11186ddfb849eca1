"""One ECG stream's analysis: samples in, labelled beats and findings out.

The state moves on in hops counted from the start of a gap-free stretch, so beats and findings are the same for any chunking,
byte for byte.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from models.beat_labels import BeatLabeller, LabelledBeat
from models.findings import Finding
from models.inference.ecg_beat import NEXT_S
from models.inference.models import Models
from models.rules.af import AfRule
from models.rules.af_burden import NOTHING_OBSERVED, Burden
from models.rules.pauses import PauseRule
from models.rules.rates import RateRule
from models.rules.ventricular import GeminyRule, RunRule
from models.second_look import QualityWatch, RhythmWatch, Screen
from models.signal.chain import Beat, EcgChain

SHORTEST_INTERVAL_S: Final = 0.2
"""Refractory period of the ventricle: no interval can be shorter (Pan & Tompkins 1985, section III)."""
HOP_S: Final = 0.2
"""Samples are held back until a hop is full. Shorter hops cost more, longer ones delay what is found."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a chunk of signal brought: the beats that were labelled by it, and findings in the order they were made.

    `burden` is the time that was judged for AF since the step before.
    """

    beats: tuple[LabelledBeat, ...] = ()
    findings: tuple[Finding, ...] = ()
    burden: Burden = NOTHING_OBSERVED


class EcgAnalysis:
    """Signal chain, models and rules of one ECG stream.

    Rates and pauses are judged as soon as a beat is found. What needs to know the kind of a beat follows when it is labelled,
    1.5 s later. Signal quality and rhythm are looked at every few seconds.
    """

    def __init__(self, rate_hz: float, limits: Limits, models: Models) -> None:
        self.chain = EcgChain(rate_hz, models.ecg_qrs)
        self._rate_hz = rate_hz
        self._hop = max(round(HOP_S * rate_hz), 1)
        self._held: NDArray[np.float64] = np.empty(0)
        self._labeller = BeatLabeller(models.ecg_beat)
        self._rates = (RateRule("tachycardia", limits), RateRule("bradycardia", limits))
        self._pause = PauseRule(limits)
        self._patterns = (RunRule(limits), GeminyRule("bigeminy", limits), GeminyRule("trigeminy", limits))
        self._af = AfRule(limits, models.rr_af) if models.rr_af else None
        self._quality, self._rhythm = QualityWatch(models.ecg_quality), RhythmWatch(models.ecg_rhythm)
        self._screen = Screen(self._quality, self._rhythm)
        self._last_beat_s: float | None = None
        self._last_judged_s: float | None = None
        self._last_labelled_s: float | None = None

    @property
    def end_s(self) -> float:
        """The stream's time right after the last sample that came."""
        return self.chain.end_s + self._held.size / self._rate_hz

    def push(self, mv: NDArray[np.float64]) -> Step:
        """Consecutive samples in mV, NaN for one that is missing."""
        return self._joined(self.hops(mv))

    def hops(self, mv: NDArray[np.float64]) -> Iterator[Step]:
        """The same, hop by hop: what is asked of the analysis between two of them does not depend on chunks either."""
        samples = np.concatenate((self._held, mv))
        whole = samples.size // self._hop * self._hop
        self._held = samples[whole:]
        for start in range(0, whole, self._hop):
            yield self._hopped(samples[start : start + self._hop])

    def gap(self, seconds: float) -> Step:
        """Nothing came for so long: what is pending is decided, and no interval is joined across."""
        rest = self._rest()
        start_s = self.chain.end_s
        beats = self._plausible(self.chain.gap(seconds))
        labelled = [*self._labeller.push(beats, self.chain, self._rhythm.in_af), *self._labeller.gap(self.chain)]
        findings = (*self._judge(beats), *self._judge_labelled(labelled), *self._interrupt(start_s, seconds))
        return self._joined((rest, self._step(labelled, findings)))

    def finish(self) -> Step:
        """No more will come: what is pending is decided, and what goes on is closed."""
        rest = self._rest()
        beats = self._plausible(self.chain.finish())
        labelled = [*self._labeller.push(beats, self.chain, self._rhythm.in_af), *self._labeller.finish(self.chain)]
        findings = (*self._judge(beats), *self._judge_labelled(labelled), *self._interrupt(self.chain.end_s, float("inf")))
        return self._joined((rest, self._step(labelled, findings)))

    def _rest(self) -> Step:
        held, self._held = self._held, np.empty(0)
        return self._hopped(held)

    def _hopped(self, mv: NDArray[np.float64]) -> Step:
        beats = self._plausible(self.chain.push(mv))
        labelled = self._labeller.push(beats, self.chain, self._rhythm.in_af)
        horizon_s = self.chain.horizon_s
        findings = (
            *self._judge(beats),
            *self._pause.until(horizon_s, self.chain),
            *self._judge_labelled(labelled),
            *self._patterns_until(horizon_s - NEXT_S),
            *self._quality.step(self.chain),
            *self._rhythm.step(self.chain),
        )
        return self._step(labelled, findings)

    def _plausible(self, beats: Iterable[Beat]) -> list[Beat]:
        """Without those that come too soon after another to be one."""
        kept = []
        for beat in beats:
            if beat.after_gap or self._last_beat_s is None or beat.t_s - self._last_beat_s >= SHORTEST_INTERVAL_S:
                kept.append(beat)
                self._last_beat_s = beat.t_s
        return kept

    def _judge(self, beats: Sequence[Beat]) -> Iterator[Finding]:
        """What needs no label."""
        for beat in beats:
            rr_s = self._interval(beat, self._last_judged_s)
            self._last_judged_s = beat.t_s
            yield from self._pause.beat(beat.t_s, self.chain)
            if rr_s is not None:
                for rule in self._rates:
                    yield from rule.beat(beat.t_s, rr_s)

    def _judge_labelled(self, beats: Sequence[LabelledBeat]) -> Iterator[Finding]:
        for beat in beats:
            rr_s = self._interval(beat, self._last_labelled_s)
            self._last_labelled_s = beat.t_s
            for rule in self._patterns:
                yield from rule.beat(beat.t_s, rr_s, beat.label)
            if self._af:
                yield from self._af.beat(beat.t_s, rr_s, beat.label)

    @staticmethod
    def _interval(beat: Beat | LabelledBeat, last_s: float | None) -> float | None:
        return None if beat.after_gap or last_s is None else beat.t_s - last_s

    def _patterns_until(self, t_s: float) -> Iterator[Finding]:
        """Every beat before `t_s` has been labelled."""
        for rule in self._patterns:
            yield from rule.until(t_s)

    def _interrupt(self, start_s: float, seconds: float) -> Iterator[Finding]:
        yield from self._pause.gap(start_s)
        for rule in self._rates:
            yield from rule.gap(start_s, seconds)
        for pattern in self._patterns:
            yield from pattern.until(start_s + seconds)
        if self._af:
            yield from self._af.gap(start_s, seconds)
        yield from self._quality.gap(start_s)
        yield from self._rhythm.gap(start_s)

    def _step(self, beats: Sequence[LabelledBeat], findings: Iterable[Finding]) -> Step:
        told = [told for finding in findings for told in self._screen.passed(finding, self.chain)]
        told += self._screen.step(self.chain)
        return Step(tuple(beats), tuple(told), self._af.take_burden() if self._af else NOTHING_OBSERVED)

    @staticmethod
    def _joined(steps: Iterable[Step]) -> Step:
        parts = list(steps)
        if len(parts) == 1:
            return parts[0]
        return Step(
            tuple(beat for part in parts for beat in part.beats),
            tuple(finding for part in parts for finding in part.findings),
            Burden(sum(part.burden.af_s for part in parts), sum(part.burden.observed_s for part in parts)),
        )

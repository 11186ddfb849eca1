"""Analysis of one ECG stream: takes samples, returns labelled beats and findings.

Samples are processed in hops counted from the start of a gap-free stretch. Beats and findings are therefore identical, byte for
byte, for any chunk sizes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from models.alarm_validation import QualityGate, QualityMonitor, RhythmMonitor
from models.beat_labels import BeatLabeller, LabelledBeat
from models.findings import Finding
from models.inference.ecg_beat import MAX_NEXT_RR_S
from models.inference.models import Models
from models.rules.af import AfRule
from models.rules.af_tracker import NOTHING_OBSERVED, Burden
from models.rules.pauses import PauseRule
from models.rules.rates import RateRule
from models.rules.ventricular import GeminyRule, RunRule
from models.signal.chain import Beat, EcgChain

MIN_RR_S: Final = 0.2
"""Refractory period of the ventricles, the shortest possible RR interval (Pan & Tompkins 1985, section III)."""
HOP_S: Final = 0.2
"""Length of a hop, the unit in which samples are processed. Shorter hops cost more time, longer ones delay findings."""


@dataclass(frozen=True, slots=True)
class EcgStep:
    """The result of processing a chunk of signal.

    Attributes:
        beats: the beats labelled in this step, in order.
        findings: in the order in which they were reported.
        burden: the time labelled as AF or not AF since the previous step.
    """

    beats: tuple[LabelledBeat, ...] = ()
    findings: tuple[Finding, ...] = ()
    burden: Burden = NOTHING_OBSERVED


class EcgAnalysis:
    """Signal chain, models and rules of one ECG stream.

    The rules for rates and pauses run as soon as a beat is detected. Rules that need the label of a beat run when it is
    labelled, 1.5 s later. Signal quality and rhythm are classified every few seconds.
    """

    def __init__(self, rate_hz: float, limits: Limits, models: Models) -> None:
        self.chain = EcgChain(rate_hz, models.ecg_qrs)
        self._rate_hz = rate_hz
        self._hop = max(round(HOP_S * rate_hz), 1)
        self._incomplete_hop: NDArray[np.float64] = np.empty(0)
        self._labeller = BeatLabeller(models.ecg_beat)
        self._rates = (RateRule("tachycardia", limits), RateRule("bradycardia", limits))
        self._pause = PauseRule(limits)
        self._patterns = (RunRule(limits), GeminyRule("bigeminy", limits), GeminyRule("trigeminy", limits))
        self._af = AfRule(limits, models.rr_af) if models.rr_af else None
        self._quality, self._rhythm = QualityMonitor(models.ecg_quality), RhythmMonitor(models.ecg_rhythm)
        self._gate = QualityGate(self._quality, self._rhythm)
        self._last_beat_s: float | None = None
        self._last_detected_s: float | None = None
        self._last_labelled_s: float | None = None

    @property
    def end_s(self) -> float:
        """Stream time right after the last sample received."""
        return self.chain.end_s + self._incomplete_hop.size / self._rate_hz

    def push(self, mv: NDArray[np.float64]) -> EcgStep:
        """Process consecutive samples in mV, NaN where one is missing."""
        return self._join_steps(self.push_hops(mv))

    def push_hops(self, mv: NDArray[np.float64]) -> Iterator[EcgStep]:
        """Process samples like `push`, but yield after each hop. The state after each hop does not depend on chunk sizes."""
        samples = np.concatenate((self._incomplete_hop, mv))
        whole = samples.size // self._hop * self._hop
        self._incomplete_hop = samples[whole:]
        for start in range(0, whole, self._hop):
            yield self._process_hop(samples[start : start + self._hop])

    def gap(self, seconds: float) -> EcgStep:
        """Skip a gap of `seconds`: process everything pending, and no RR interval spans the gap."""
        step = self._join_steps((self._flush_hop(), self._end_stretch(seconds)))
        self.chain.gap(seconds)
        return step

    def finish(self) -> EcgStep:
        """End the stream: process everything pending and close ongoing findings."""
        return self._join_steps((self._flush_hop(), self._end_stretch(inf)))

    def _end_stretch(self, gap_s: float) -> EcgStep:
        """Process everything pending by the signal so far, before which a gap of this length begins."""
        beats = self._drop_implausible(self.chain.finish())
        labelled = self._label_beats(beats)
        findings = (
            *self._apply_beat_rules(beats),
            *self._apply_label_rules(labelled),
            *self._end_episodes(self.chain.end_s, gap_s),
        )
        return self._make_step(labelled, findings)

    def _flush_hop(self) -> EcgStep:
        held, self._incomplete_hop = self._incomplete_hop, np.empty(0)
        return self._process_hop(held)

    def _process_hop(self, mv: NDArray[np.float64]) -> EcgStep:
        beats = self._drop_implausible(self.chain.push(mv))
        labelled = self._label_beats(beats)
        horizon_s = self.chain.horizon_s
        findings = (
            *self._apply_beat_rules(beats),
            *self._pause.advance_to(horizon_s, self.chain),
            *self._apply_label_rules(labelled),
            *self._advance_patterns(horizon_s - MAX_NEXT_RR_S),
            *self._quality.step(self.chain),
            *self._rhythm.step(self.chain),
        )
        return self._make_step(labelled, findings)

    def _label_beats(self, beats: Sequence[Beat]) -> list[LabelledBeat]:
        """Label the beats that can be labelled; where samples are missing now, all of them, because no beat follows."""
        labelled = self._labeller.push(beats, self.chain, self._rhythm.in_af)
        return [*labelled, *self._labeller.flush(self.chain)] if self.chain.in_gap else labelled

    def _drop_implausible(self, beats: Iterable[Beat]) -> list[Beat]:
        """Return the beats without those closer than `MIN_RR_S` to the previous one."""
        kept = []
        for beat in beats:
            if beat.after_gap or self._last_beat_s is None or beat.t_s - self._last_beat_s >= MIN_RR_S:
                kept.append(beat)
                self._last_beat_s = beat.t_s
        return kept

    def _apply_beat_rules(self, beats: Sequence[Beat]) -> Iterator[Finding]:
        """Apply the rules that need no labels."""
        for beat in beats:
            rr_s = self._rr_to(beat, self._last_detected_s)
            self._last_detected_s = beat.t_s
            yield from self._pause.on_beat(beat.t_s, self.chain)
            if rr_s is not None:
                for rule in self._rates:
                    yield from rule.on_beat(beat.t_s, rr_s)

    def _apply_label_rules(self, beats: Sequence[LabelledBeat]) -> Iterator[Finding]:
        """Apply the rules that need labelled beats."""
        for beat in beats:
            rr_s = self._rr_to(beat, self._last_labelled_s)
            self._last_labelled_s = beat.t_s
            for rule in self._patterns:
                yield from rule.on_beat(beat.t_s, rr_s, beat.label)
            if self._af:
                yield from self._af.on_beat(beat.t_s, rr_s, beat.label)

    @staticmethod
    def _rr_to(beat: Beat | LabelledBeat, last_s: float | None) -> float | None:
        return None if beat.after_gap or last_s is None else beat.t_s - last_s

    def _advance_patterns(self, t_s: float) -> Iterator[Finding]:
        """Advance the pattern rules to `t_s`, before which every beat has been labelled."""
        for rule in self._patterns:
            yield from rule.advance_to(t_s)

    def _end_episodes(self, start_s: float, seconds: float) -> Iterator[Finding]:
        yield from self._pause.on_gap(start_s)
        for rule in self._rates:
            yield from rule.on_gap(start_s, seconds)
        for pattern in self._patterns:
            yield from pattern.advance_to(start_s + seconds)
        if self._af:
            yield from self._af.on_gap(start_s, seconds)
        yield from self._quality.gap(start_s)
        yield from self._rhythm.gap(start_s)

    def _make_step(self, beats: Sequence[LabelledBeat], findings: Iterable[Finding]) -> EcgStep:
        reported = [filtered for finding in findings for filtered in self._gate.filter_finding(finding, self.chain)]
        reported += self._gate.step(self.chain)
        return EcgStep(tuple(beats), tuple(reported), self._af.take_burden() if self._af else NOTHING_OBSERVED)

    @staticmethod
    def _join_steps(steps: Iterable[EcgStep]) -> EcgStep:
        parts = list(steps)
        if len(parts) == 1:
            return parts[0]
        return EcgStep(
            tuple(beat for part in parts for beat in part.beats),
            tuple(finding for part in parts for finding in part.findings),
            Burden(sum(part.burden.af_s for part in parts), sum(part.burden.observed_s for part in parts)),
        )

"""Analysis of one ECG stream: takes samples, returns labelled beats and findings.

Samples are processed in hops counted from the start of a gap-free stretch. Beats and findings are therefore identical, byte for
byte, for any chunk sizes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import Limits
from models.alarm_validation import QualityGate, QualityMonitor, RhythmMonitor
from models.beat_labels import BeatLabeller, LabelledBeat
from models.findings import Finding
from models.inference.ecg_beat import MAX_NEXT_RR_S
from models.inference.models import Models
from models.rules.af import AfRule
from models.rules.af_tracker import NOTHING_OBSERVED, Burden
from models.rules.doubtful_ends import DoubtfulEnds
from models.rules.exertion import ExertionRule
from models.rules.known_af import KNOWN_AF_KIND, MeanRateRule, limits_in
from models.rules.organised import OrganisedRhythm
from models.rules.pacing import PacingRule
from models.rules.pauses import PauseRule
from models.rules.rates import RateRule
from models.rules.shared_episodes import SharedEpisodes
from models.rules.ventricular import GeminyRule, RunRule
from models.signal.chain import Beat, EcgChain
from models.signal.defects import HumWatch
from models.ventricular_monitor import VentricularMonitor

MIN_RR_S: Final = 0.18
"""Refractory period of the ventricles, 0.2 s (Pan & Tompkins 1985, section III), less the error of two R peaks in noise."""
BESIDE_S: Final = 2.0
"""A beat with noise so close before it, or after it, may be noise itself."""
HOP_S: Final = 0.2
"""Length of a hop, the unit in which samples are processed. Shorter hops cost more time, longer ones delay findings."""


@dataclass(frozen=True, slots=True)
class EcgStep:
    """The result of processing a chunk of signal.

    Attributes:
        beats: the beats labelled in this step, in order.
        findings: in the order in which they were reported.
        burden: the time labelled as AF or not AF since the previous step.
        organised_since_s: stream time since which the rhythm has been organised without interruption; None while it is not.
        labelled_until_s: stream time before which every beat has been labelled.
    """

    beats: tuple[LabelledBeat, ...] = ()
    findings: tuple[Finding, ...] = ()
    burden: Burden = NOTHING_OBSERVED
    organised_since_s: float | None = None
    labelled_until_s: float = 0.0


class EcgAnalysis:
    """Signal chain, models and rules of one ECG stream, with what an earlier stream of this patient learnt.

    The rules for rates and pauses run as soon as a beat is detected. Rules that need the label of a beat run when it is
    labelled, 1.5 s later. Signal quality and rhythm are classified every few seconds.
    """

    def __init__(
        self,
        rate_hz: float,
        limits: Limits,
        models: Models,
        contexts: Contexts = NO_CONTEXTS,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        """Start a stream.

        Args:
            rate_hz: the sampling rate.
            limits: those of the patient.
            models: those that are loaded.
            contexts: what is known of the patient's heart.
            saved: the last `state()` of the previous analysis of this patient's ECG; see `add_time_away`.
        """
        restored = saved or {}
        limits = limits_in(limits, contexts)
        self.chain = EcgChain(rate_hz, models.ecg_qrs)
        self.has_contact = True
        """What the sensor says of its electrodes. While they are off, nothing is concluded from a signal without beats."""
        self._rate_hz = rate_hz
        self._hop = max(round(HOP_S * rate_hz), 1)
        self._incomplete_hop: NDArray[np.float64] = np.empty(0)
        self._labeller = BeatLabeller(models.ecg_beat, limits, restored.get("conducted_mv", ()))
        self._exertion = ExertionRule(limits, contexts.age_years)
        self._tachycardia = RateRule("tachycardia", limits, self._exertion)
        self._bradycardia = RateRule("bradycardia", limits)
        self._pause = PauseRule(limits, restored.get("since_beat_s"), restored.get("qrs_height_mv"))
        self._run = RunRule(limits)
        self._geminies = (GeminyRule("bigeminy", limits), GeminyRule("trigeminy", limits))
        af_kind = KNOWN_AF_KIND if contexts.known_af else "af"
        self._af = AfRule(limits, models.rr_af, af_kind, restored.get("brief_af_s", ())) if models.rr_af else None
        self._mean_rate = MeanRateRule(limits) if contexts.known_af else None
        self._quality, self._rhythm = QualityMonitor(models.ecg_quality), RhythmMonitor(models.ecg_rhythm)
        self._ventricles = VentricularMonitor(models.ecg_organised, limits, rate_hz, self._hop)
        self._gate = QualityGate(self._quality, self._rhythm, self._ventricles)
        self._doubtful_ends = DoubtfulEnds()
        self._shared = SharedEpisodes()
        self._organised = OrganisedRhythm()
        self._hum = HumWatch(rate_hz, self._hop)
        self._pacing = PacingRule(rate_hz, contexts)
        self._ventricular: set[tuple[str, float]] = set()
        """The open episodes that were reported as `vt` or `vf`."""
        self._is_after_gap = False
        """Whether the beats since the last gap were dropped."""
        self._last_beat_s: float | None = None
        self._last_detected_s: float | None = None
        self._last_labelled_s: float | None = None

    @property
    def end_s(self) -> float:
        """Stream time right after the last sample received."""
        return self.chain.end_s + self._incomplete_hop.size / self._rate_hz

    @property
    def unlabelled_s(self) -> tuple[float, ...]:
        """The stream times of the beats that were detected and not labelled yet, in order."""
        return self._labeller.pending_s

    def note_motion(self, *, is_moving: bool | None) -> None:
        """Note whether the wearer moves, for the samples that follow; None if that is not known."""
        self._exertion.is_moving = is_moving

    def note_urgency(self, *, is_urgent: bool) -> None:
        """Note, for the samples that follow, whether a lost signal may hide the course of an alert of high priority."""
        self._ventricles.note_urgency(is_urgent=is_urgent)

    def add_time_away(self, seconds: float) -> None:
        """Add the time between the end of the previous analysis and the first sample; call this before the first `push`."""
        self._pause.add_time_away(seconds)
        if self._af:
            self._af.add_time_away(seconds)

    def state(self) -> dict[str, Any]:
        """Return what the next analysis of this patient's ECG needs, ready for JSON.

        The keys are those of stored data: `conducted_mv`, the shapes of conducted beats; `qrs_height_mv`; `since_beat_s`, the
        time since the last known beat; `brief_af_s`, the times since brief AF episodes. They must not change.
        """
        return {
            "conducted_mv": self._labeller.conducted_mv(),
            "qrs_height_mv": self._pause.known_qrs.height_mv,
            "since_beat_s": self._pause.since_beat_s(self.end_s),
            "brief_af_s": self._af.brief_ages_s(self.end_s) if self._af else [],
        }

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
        start_s = self.chain.end_s
        detected = self.chain.push(mv)
        if self._hum.hides_beats(mv, start_s, self._last_beat_s) or not self.has_contact:
            self.chain.note_hidden(start_s)
        beats = self._drop_implausible(detected)
        labelled = self._label_beats(beats)
        horizon_s = self.chain.horizon_s
        findings = (
            *self._pacing.start(),
            *self._apply_beat_rules(beats),
            *self._pause.advance_to(horizon_s, self.chain),
            *self._apply_label_rules(labelled),
            *self._advance_patterns(horizon_s - MAX_NEXT_RR_S),
            *self._quality.step(self.chain),
            *self._rhythm.step(self.chain),
            *self._ventricles.push(mv, self.chain, has_contact=self.has_contact, conducted_s=self._labeller.conducted_s),
        )
        return self._make_step(labelled, findings)

    def _label_beats(self, beats: Sequence[Beat]) -> list[LabelledBeat]:
        """Label the beats that can be labelled; where samples are missing now, all of them, because no beat follows."""
        labelled = self._labeller.push(beats, self.chain, self._rhythm.in_af)
        return [*labelled, *self._labeller.flush(self.chain)] if self.chain.in_gap else labelled

    def _drop_implausible(self, beats: Iterable[Beat]) -> list[Beat]:
        """Return the beats without those closer than `MIN_RR_S` to the previous one, and without P waves in a standstill."""
        kept = []
        for detected in beats:
            beat = detected._replace(after_gap=detected.after_gap or self._is_after_gap)
            is_late = beat.after_gap or self._last_beat_s is None or beat.t_s - self._last_beat_s >= MIN_RR_S
            self._is_after_gap = beat.after_gap
            if is_late and self._pause.accepts(beat.t_s, beat.amplitude_mv, self.chain):
                kept.append(beat)
                self._last_beat_s, self._is_after_gap = beat.t_s, False
        return kept

    def _apply_beat_rules(self, beats: Sequence[Beat]) -> Iterator[Finding]:
        """Apply the rules that need no labels."""
        for beat in beats:
            rr_s = self._rr_to(beat, self._last_detected_s)
            self._last_detected_s = beat.t_s
            self._organised.on_beat(beat.t_s, rr_s)
            if self._ventricular and not self._doubtful_ends.is_holding:
                yield from self._tachycardia.restart(beat.t_s)
            elif rr_s is not None:
                yield from self._tachycardia.on_beat(beat.t_s, rr_s)
                if self._mean_rate:
                    yield from self._mean_rate.on_beat(beat.t_s, rr_s)
            if rr_s is not None:
                yield from self._bradycardia.on_beat(beat.t_s, rr_s, is_seen=self._is_seen(beat.t_s - rr_s, beat.t_s))
            in_noise = self._ventricles.is_lost_in_noise or self._ventricles.is_noise(beat.t_s - BESIDE_S, beat.t_s)
            is_slow = self._bradycardia.is_critical
            yield from self._pause.on_beat(beat.t_s, beat.amplitude_mv, self.chain, is_slow=is_slow, is_clear=not in_noise)

    def _is_seen(self, start_s: float, end_s: float) -> bool:
        """Return whether an interval between two beats hides no other one."""
        if self._ventricles.hides_beats(start_s, end_s):
            return False
        in_noise = self._ventricles.is_noise(start_s, end_s)
        return self._pause.is_seen(start_s, end_s, self.chain, in_noise=in_noise)

    def _apply_label_rules(self, beats: Sequence[LabelledBeat]) -> Iterator[Finding]:
        """Apply the rules that need labelled beats. A run of ventricular beats is not also bigeminy."""
        for beat in beats:
            rr_s = self._rr_to(beat, self._last_labelled_s)
            self._last_labelled_s = beat.t_s
            yield from self._run.on_beat(beat.t_s, rr_s, beat.label, beat.wide_since_s, beat.next_rr_s)
            for rule in self._geminies:
                yield from (
                    rule.end_episode() if self._run.is_open or self._ventricular else rule.on_beat(beat.t_s, rr_s, beat.label)
                )
            if self._af:
                yield from self._af.on_beat(beat.t_s, rr_s, beat.label)

    @staticmethod
    def _rr_to(beat: Beat | LabelledBeat, last_s: float | None) -> float | None:
        return None if beat.after_gap or last_s is None else beat.t_s - last_s

    def _advance_patterns(self, t_s: float) -> Iterator[Finding]:
        """Advance the pattern rules to `t_s`, before which every beat has been labelled."""
        for rule in (self._run, *self._geminies):
            yield from rule.advance_to(t_s)

    def _end_episodes(self, start_s: float, seconds: float) -> Iterator[Finding]:
        self._organised.interrupt()
        yield from self._pause.on_gap(start_s, seconds)
        yield from self._tachycardia.on_gap(start_s, seconds)
        if self._mean_rate:
            yield from self._mean_rate.on_gap(start_s, seconds)
        yield from self._bradycardia.on_gap(start_s, seconds)
        for rule in (self._run, *self._geminies):
            yield from rule.on_gap(seconds)
        if self._af:
            yield from self._af.on_gap(start_s, seconds)
        yield from self._quality.gap(start_s)
        yield from self._rhythm.gap(start_s, seconds, self.chain)
        yield from self._ventricles.gap(start_s, seconds)
        if seconds == inf:
            yield from self._pacing.finish(start_s)

    def _end_others(self, finding: Finding) -> Iterator[Finding]:
        """Yield the ends of the episodes that a finding makes superfluous."""
        for ended in self._yield_to(finding):
            for gated in self._gate.filter_finding(ended, self.chain):
                yield from self._shared.filter_finding(gated)

    def _yield_to(self, finding: Finding) -> Iterator[Finding]:
        """End the episodes of other rules that a reported finding describes better, so that it is the only alert."""
        is_open = finding.end_s is None and finding.inconclusive is None
        if finding.kind in ("vt", "vf"):
            (self._ventricular.add if is_open else self._ventricular.discard)(finding.episode)
            if is_open:
                yield from self._tachycardia.restart(finding.onset_s)
        if finding.kind == "asystole" and is_open:
            yield from self._bradycardia.restart(finding.onset_s)
        elif finding.kind == "vf" and is_open:
            yield from self._pause.suspend(finding.onset_s)
        elif finding.kind == "vf" and finding.end_s is not None:
            self._pause.resume(finding.end_s)
            yield from self._run.end_episode()
            yield from self._bradycardia.restart(finding.end_s)

    def _make_step(self, beats: Sequence[LabelledBeat], findings: Iterable[Finding]) -> EcgStep:
        gated = [filtered for finding in findings for filtered in self._gate.filter_finding(finding, self.chain)]
        gated += self._gate.step(self.chain)
        certain = [*self._hold_back(gated)]
        reported = self._report(certain) if certain else ()
        horizon_s = self.chain.horizon_s
        self._organised.advance_to(horizon_s)
        if self._ventricles.excludes_organised:
            self._organised.interrupt()
        burden = self._af.take_burden() if self._af else NOTHING_OBSERVED
        labelled_until_s = self.chain.end_s if self.chain.in_gap else horizon_s - MAX_NEXT_RR_S
        return EcgStep(tuple(beats), reported, burden, self._organised.since_s, labelled_until_s)

    def _hold_back(self, gated: Sequence[Finding]) -> Iterator[Finding]:
        """Yield the findings that passed the quality gate, and the ends that are certain now."""
        now_s = self.chain.end_s
        for finding in gated:
            yield from self._doubtful_ends.filter_finding(finding, now_s)
        yield from self._doubtful_ends.advance_to(now_s, self._ventricles.is_lost)
        if self.chain.in_gap:
            yield from self._doubtful_ends.lose()

    def _report(self, certain: Sequence[Finding]) -> tuple[Finding, ...]:
        """Return what is reported of certain findings, and tell the rules that need it."""
        knows_beats = self._pause.knows_beats(self.chain.end_s)
        shared = [part for finding in certain for part in self._shared.filter_finding(finding, knows_beats=knows_beats)]
        reported = tuple(each for finding in shared for each in (finding, *self._end_others(finding)))
        for finding in reported:
            self._organised.on_finding(finding)
        return reported

    @staticmethod
    def _join_steps(steps: Iterable[EcgStep]) -> EcgStep:
        parts = list(steps)
        if len(parts) == 1:
            return parts[0]
        return EcgStep(
            tuple(beat for part in parts for beat in part.beats),
            tuple(finding for part in parts for finding in part.findings),
            Burden(sum(part.burden.af_s for part in parts), sum(part.burden.observed_s for part in parts)),
            parts[-1].organised_since_s if parts else None,
            parts[-1].labelled_until_s if parts else 0.0,
        )

"""Monitors of signal quality and rhythm, and a quality gate that holds back findings which noise can imitate."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from models.findings import Finding
from models.rules.shared_episodes import RULE
from models.signal.chain import EcgChain
from models.signal.latest import Latest
from models.signal.resample import RATE_HZ
from models.ventricular_monitor import VentricularMonitor

if TYPE_CHECKING:
    from models.inference.ecg_quality import EcgQuality, QualityClassification
    from models.inference.ecg_rhythm import EcgRhythm, RhythmClassification

QUALITY_PERIOD_S: Final = 5.0
QUALITY_WINDOW_S: Final = 10.0

RHYTHM_PERIOD_S: Final = 10.0
RHYTHM_WINDOW_S: Final = 30.0

RECORDING_S: Final = (9.0, 60.0)
"""A stretch of this length is a recording made on demand: hand-held devices record 30 s, and those of the PhysioNet/CinC
Challenge 2017 last 9 to 61 s. It gets one verdict at its end if no two consecutive windows agreed before."""

BASELINE_SETTLING_S: Final = 1.0
"""The baseline of the newest second of a strip is provisional (`EcgChain.strip`)."""

MIN_BAD_S: Final = 30.0
"""A bad stretch of this length is reported: it is as long as the shortest AF episode, so an episode could have been missed."""

AF_QUALITY_WINDOWS: Final = 10
"""Number of latest quality windows that are checked for an AF finding; they last about as long as `rr_af`'s 64 intervals."""

MAX_BAD_SHARE: Final = 0.5
"""Largest share of bad windows among them at which AF is still reported."""

MORPHOLOGY_KINDS: Final = frozenset({"vt", "v_run", "bigeminy", "trigeminy"})
RHYTHM_KINDS: Final = frozenset({"af"})
"""Kinds of findings that noise can imitate, by morphology or by rhythm. Pause and bradycardia check the signal themselves, and
tachycardia is too urgent to wait. The ventricular monitor, which also reports `vt`, knows noise as a class of its own."""

RHYTHM_FINDING_KINDS: Final = {"N": "rhythm_normal", "A": "rhythm_af", "O": "rhythm_other"}

AF_EXCLUDED_PROBABILITY: Final = 0.1
"""Mean AF probability of the latest ECG windows below which irregular intervals alone do not raise an alert."""

AF_LIKELY_PROBABILITY: Final = 0.5
"""AF probability of the latest ECG window at and above which early beats are not labelled supraventricular ectopic."""

RHYTHM_WINDOWS: Final = 3
"""Number of latest ECG windows in the mean AF probability."""


@dataclass(slots=True)
class _Episode:
    onset_s: float
    source: str
    reason: str | None
    probability: float
    reported: bool = False


class QualityMonitor:
    """Classifies the quality of the last ten seconds every five seconds, and reports long bad stretches.

    Attributes:
        windows_classified: number of windows classified so far.
    """

    def __init__(self, model: "EcgQuality | None") -> None:
        self._model = model
        self._next_s = QUALITY_WINDOW_S + BASELINE_SETTLING_S
        self._recent_bad = Latest[bool](AF_QUALITY_WINDOWS)
        self.windows_classified = 0
        self._bad: _Episode | None = None

    def step(self, chain: EcgChain) -> Iterator[Finding]:
        """Classify the newest window when it is due; call this at every hop."""
        if self._model is None or chain.end_s < self._next_s:
            return
        end_s = chain.end_s - BASELINE_SETTLING_S
        self._next_s = chain.end_s + QUALITY_PERIOD_S
        classification = self.classify_window(chain, end_s)
        if classification is None:
            return
        self.windows_classified += 1
        bad = classification.label == "bad"
        self._recent_bad.append(bad)
        if not bad:
            yield from self._end_episode(end_s - QUALITY_PERIOD_S)
            return
        if self._bad is None:
            source = f"{self._model.name}@{self._model.version}"
            self._bad = _Episode(end_s - QUALITY_WINDOW_S, source, classification.reason, classification.probability)
        if not self._bad.reported and end_s - self._bad.onset_s >= MIN_BAD_S:
            self._bad.reported = True
            yield self._finding(None)

    def classify_window(self, chain: EcgChain, end_s: float) -> "QualityClassification | None":
        """Classify the ten seconds before `end_s`; None without a model, or if less signal is available."""
        if self._model is None or end_s < QUALITY_WINDOW_S:
            return None
        count = round(QUALITY_WINDOW_S * RATE_HZ)
        _, mv = chain.strip(end_s - QUALITY_WINDOW_S, end_s)
        return self._model.classify(mv[-count:]) if mv.size >= count else None

    @property
    def is_mostly_bad(self) -> bool:
        """Whether most of the signal of the last minute was bad."""
        return sum(self._recent_bad) > MAX_BAD_SHARE * max(len(self._recent_bad), 1)

    def gap(self, start_s: float) -> Iterator[Finding]:
        """End the current episode: there is no signal from `start_s` on."""
        yield from self._end_episode(start_s)

    def _end_episode(self, end_s: float) -> Iterator[Finding]:
        if self._bad and self._bad.reported:
            yield self._finding(max(end_s, self._bad.onset_s))
        self._bad = None

    def _finding(self, end_s: float | None) -> Finding:
        assert self._bad is not None
        bad = self._bad
        return Finding("ecg_quality", bad.onset_s, end_s, bad.source, bad.probability, inconclusive=bad.reason or "noise")


class RhythmMonitor:
    """Classifies the rhythm of the last 30 s every ten seconds; reports a rhythm when two consecutive windows agree.

    A short recording in which none was reported gets the verdict of the mean of its windows (`RECORDING_S`).
    """

    def __init__(self, model: "EcgRhythm | None") -> None:
        self._model = model
        self._next_s = RHYTHM_WINDOW_S + BASELINE_SETTLING_S
        self._af_probabilities = Latest[float](RHYTHM_WINDOWS)
        self._last_label: str | None = None
        self._reported_episode: _Episode | None = None
        self._reported_label: str | None = None
        self._stretch_s = 0.0
        self._windows: list[tuple[float, ...]] | None = []
        """The probabilities of the windows of this stretch; None once it cannot get a verdict of its own."""

    def step(self, chain: EcgChain) -> Iterator[Finding]:
        """Classify the newest window when it is due; call this at every hop."""
        if self._model is None or chain.end_s < self._next_s:
            return
        end_s = chain.end_s - BASELINE_SETTLING_S
        self._next_s = chain.end_s + RHYTHM_PERIOD_S
        count = round(RHYTHM_WINDOW_S * RATE_HZ)
        _, mv = chain.strip(end_s - RHYTHM_WINDOW_S, end_s)
        if mv.size < count:
            return
        classification = self._model.classify(mv[-count:])
        if classification.inconclusive is None:
            self._af_probabilities.append(classification.probabilities[1])
        if self._windows is not None and any(classification.probabilities):
            self._windows.append(classification.probabilities)
        yield from self._update_rhythm(classification, end_s)

    @property
    def in_af(self) -> bool:
        """Whether the latest conclusive window is atrial fibrillation."""
        return bool(self._af_probabilities) and self._af_probabilities[-1] >= AF_LIKELY_PROBABILITY

    @property
    def is_af_excluded(self) -> bool:
        """Whether the latest windows practically exclude AF."""
        return (
            len(self._af_probabilities) == RHYTHM_WINDOWS
            and sum(self._af_probabilities) < RHYTHM_WINDOWS * AF_EXCLUDED_PROBABILITY
        )

    def gap(self, start_s: float, seconds: float, chain: EcgChain) -> Iterator[Finding]:
        """End the current episode: there is no signal for `seconds` from `start_s` on."""
        yield from self._end_episode(start_s)
        shortest_s, longest_s = RECORDING_S
        if self._model and self._windows is not None and shortest_s <= start_s - self._stretch_s <= longest_s:
            yield self._judge_recording(self._model, start_s, chain)
        self._af_probabilities.clear()
        self._last_label = None
        self._stretch_s, self._windows = start_s + seconds, []

    def _judge_recording(self, model: "EcgRhythm", end_s: float, chain: EcgChain) -> Finding:
        _, mv = chain.strip(max(self._stretch_s, end_s - RHYTHM_WINDOW_S), end_s)
        verdict = model.classify_recording(mv[-round(RHYTHM_WINDOW_S * RATE_HZ) :], self._windows or [])
        kind = RHYTHM_FINDING_KINDS.get(verdict.inconclusive or verdict.label, "rhythm")
        source = f"{model.name}@{model.version}"
        return Finding(kind, self._stretch_s, end_s, source, verdict.probability, inconclusive=verdict.inconclusive)

    def _update_rhythm(self, classification: "RhythmClassification", end_s: float) -> Iterator[Finding]:
        label = classification.inconclusive or classification.label
        confirmed = label == self._last_label
        self._last_label = label
        if not confirmed or label == self._reported_label:
            return
        onset_s = end_s - RHYTHM_WINDOW_S - RHYTHM_PERIOD_S
        yield from self._end_episode(onset_s)
        assert self._model is not None
        source = f"{self._model.name}@{self._model.version}"
        self._reported_episode = _Episode(onset_s, source, classification.inconclusive, classification.probability)
        self._reported_label = label
        self._windows = None
        yield self._finding(label, None)

    def _end_episode(self, end_s: float) -> Iterator[Finding]:
        if self._reported_episode and self._reported_label:
            yield self._finding(self._reported_label, max(end_s, self._reported_episode.onset_s))
        self._reported_episode = self._reported_label = None

    def _finding(self, label: str, end_s: float | None) -> Finding:
        assert self._reported_episode is not None
        current = self._reported_episode
        kind = RHYTHM_FINDING_KINDS.get(label, "rhythm")
        return Finding(kind, current.onset_s, end_s, current.source, current.probability, inconclusive=current.reason)


class QualityGate:
    """Holds back findings that noise can imitate while the signal is bad; they are reported as inconclusive instead.

    An episode that was reported ends, however bad the signal is then. Of one that the morphology of beats tells, bad signal
    hides how it goes on. One that the rhythm tells is reported as it goes on: when atrial fibrillation ends, the ECG model is
    the first to exclude it.
    """

    def __init__(self, quality: QualityMonitor, rhythm: RhythmMonitor, ventricles: VentricularMonitor) -> None:
        self._quality, self._rhythm, self._ventricles = quality, rhythm, ventricles
        self._held_back: dict[tuple[str, float], Finding] = {}
        self._reported: dict[tuple[str, float], Finding] = {}
        """What was last reported of each episode that lasts."""
        self._windows_classified = 0

    def filter_finding(self, finding: Finding, chain: EcgChain) -> Iterator[Finding]:
        """Yield the finding, unchanged or as inconclusive; nothing if the same was already reported, or a conclusive one."""
        if finding.kind not in MORPHOLOGY_KINDS | RHYTHM_KINDS:
            yield finding
            return
        key = finding.kind, finding.onset_s
        reported = self._reported.get(key)
        if finding.end_s is not None:
            yield self._end_episode(key, finding)
            return
        reason = self._inconclusive_reason(finding, chain)
        if reason is None or (reported and finding.kind in RHYTHM_KINDS):
            self._held_back.pop(key, None)
            self._reported[key] = finding
            yield finding
            return
        inconclusive = replace(finding, inconclusive=reason)
        if reported is None and self._held_back.get(key) != inconclusive:
            yield inconclusive
        self._held_back[key] = inconclusive

    def _end_episode(self, key: tuple[str, float], finding: Finding) -> Finding:
        held_back, reported = self._held_back.pop(key, None), self._reported.pop(key, None)
        if held_back is None:
            return finding
        if reported is None:
            return replace(finding, inconclusive=held_back.inconclusive)
        return replace(reported, end_s=finding.end_s, lost=finding.lost)

    def step(self, chain: EcgChain) -> Iterator[Finding]:
        """Yield ongoing findings that were held back and are plausible now; checked after each new quality window."""
        if self._windows_classified == self._quality.windows_classified:
            return
        self._windows_classified = self._quality.windows_classified
        for finding in list(self._held_back.values()):
            if self._inconclusive_reason(finding, chain) is None:
                yield from self.filter_finding(replace(finding, inconclusive=None), chain)

    def _inconclusive_reason(self, finding: Finding, chain: EcgChain) -> str | None:
        """Return why the finding is inconclusive, or None if it is plausible."""
        if finding.kind in RHYTHM_KINDS:
            if self._quality.is_mostly_bad:
                return "noise"
            return "disagreement" if self._rhythm.is_af_excluded else None
        if finding.kind in MORPHOLOGY_KINDS and finding.source.startswith(RULE):
            if self._ventricles.is_noise(max(finding.onset_s, chain.end_s - QUALITY_WINDOW_S), chain.end_s):
                return "noise"
            classification = self._quality.classify_window(chain, chain.end_s)
            return classification.reason or "noise" if classification and classification.label == "bad" else None
        return None

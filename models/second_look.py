"""What the signal itself says of its quality and rhythm, and which findings must wait until it can be believed."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from models.findings import Finding
from models.signal.chain import EcgChain
from models.signal.resample import RATE_HZ

if TYPE_CHECKING:
    from models.inference.ecg_quality import EcgQuality, QualityVerdict
    from models.inference.ecg_rhythm import EcgRhythm, RhythmVerdict

QUALITY_EVERY_S: Final = 5.0
QUALITY_WINDOW_S: Final = 10.0

RHYTHM_EVERY_S: Final = 10.0
RHYTHM_WINDOW_S: Final = 30.0

SETTLED_S: Final = 1.0
"""The newest second of a strip has a provisional baseline (`EcgChain.strip`)."""

BAD_FOR_S: Final = 30.0
"""A stretch without a usable signal that long is told: as long as the shortest AF, a rhythm could have been missed in it."""

RECENT: Final = 10
"""Looks at the quality that count for AF: its 64 intervals last about as long."""

MOST_BAD: Final = 0.5
"""Share of them that may be bad."""

BY_SHAPE: Final = frozenset({"vt", "v_run", "bigeminy", "trigeminy"})
BY_RHYTHM: Final = frozenset({"af"})
"""What noise can pretend. Pause, bradycardia and tachycardia look at the signal themselves or are too urgent to wait."""

RHYTHMS: Final = {"N": "rhythm_normal", "A": "rhythm_af", "O": "rhythm_other"}

SURELY_NOT_AF: Final = 0.1
"""Mean probability of AF in the latest windows of ECG under which irregular intervals alone raise no alert."""

PROBABLY_AF: Final = 0.5
"""Probability of AF in the latest reading from which on early beats are not called supraventricular ectopic."""

OPINIONS: Final = 3


@dataclass(slots=True)
class _Stretch:
    onset_s: float
    source: str
    reason: str | None
    probability: float
    told: bool = False


class QualityWatch:
    """Judges the last ten seconds every five, and tells stretches in which nothing can be said."""

    def __init__(self, model: "EcgQuality | None") -> None:
        self._model = model
        self._next_s = QUALITY_WINDOW_S + SETTLED_S
        self._recent = deque[bool](maxlen=RECENT)
        self.looks = 0
        self._bad: _Stretch | None = None

    def step(self, chain: EcgChain) -> Iterator[Finding]:
        """To be called at every hop."""
        if self._model is None or chain.end_s < self._next_s:
            return
        end_s = chain.end_s - SETTLED_S
        self._next_s = chain.end_s + QUALITY_EVERY_S
        verdict = self.verdict(chain, end_s)
        if verdict is None:
            return
        self.looks += 1
        bad = verdict.label == "bad"
        self._recent.append(bad)
        if not bad:
            yield from self._over(end_s - QUALITY_EVERY_S)
            return
        if self._bad is None:
            source = f"{self._model.name}@{self._model.version}"
            self._bad = _Stretch(end_s - QUALITY_WINDOW_S, source, verdict.reason, verdict.probability)
        if not self._bad.told and end_s - self._bad.onset_s >= BAD_FOR_S:
            self._bad.told = True
            yield self._finding(None)

    def verdict(self, chain: EcgChain, end_s: float) -> "QualityVerdict | None":
        """Of the ten seconds before a time; None where there is no model, or the signal has only begun."""
        if self._model is None or end_s < QUALITY_WINDOW_S:
            return None
        count = round(QUALITY_WINDOW_S * RATE_HZ)
        _, mv = chain.strip(end_s - QUALITY_WINDOW_S, end_s)
        return self._model.judge(mv[-count:]) if mv.size >= count else None

    @property
    def mostly_bad(self) -> bool:
        """Whether the last minute's signal was bad for the most part."""
        return sum(self._recent) > MOST_BAD * max(len(self._recent), 1)

    def gap(self, start_s: float) -> Iterator[Finding]:
        """No signal from `start_s` on."""
        yield from self._over(start_s)

    def _over(self, end_s: float) -> Iterator[Finding]:
        if self._bad and self._bad.told:
            yield self._finding(max(end_s, self._bad.onset_s))
        self._bad = None

    def _finding(self, end_s: float | None) -> Finding:
        assert self._bad is not None
        bad = self._bad
        return Finding("ecg_quality", bad.onset_s, end_s, bad.source, bad.probability, inconclusive=bad.reason or "noise")


class RhythmWatch:
    """Reads the last half minute every ten seconds; tells a rhythm when two readings agree, and when it changes."""

    def __init__(self, model: "EcgRhythm | None") -> None:
        self._model = model
        self._next_s = RHYTHM_WINDOW_S + SETTLED_S
        self._opinions = deque[float](maxlen=OPINIONS)
        self._last: str | None = None
        self._current: _Stretch | None = None
        self._label: str | None = None

    def step(self, chain: EcgChain) -> Iterator[Finding]:
        """To be called at every hop."""
        if self._model is None or chain.end_s < self._next_s:
            return
        end_s = chain.end_s - SETTLED_S
        self._next_s = chain.end_s + RHYTHM_EVERY_S
        count = round(RHYTHM_WINDOW_S * RATE_HZ)
        _, mv = chain.strip(end_s - RHYTHM_WINDOW_S, end_s)
        if mv.size < count:
            return
        verdict = self._model.judge(mv[-count:])
        if verdict.inconclusive is None:
            self._opinions.append(verdict.probabilities[1])
        yield from self._read(verdict, end_s)

    @property
    def in_af(self) -> bool:
        """Whether the latest reading that says anything is atrial fibrillation."""
        return bool(self._opinions) and self._opinions[-1] >= PROBABLY_AF

    @property
    def surely_not_af(self) -> bool:
        """Whether the latest readings all but exclude AF."""
        return len(self._opinions) == OPINIONS and sum(self._opinions) < OPINIONS * SURELY_NOT_AF

    def gap(self, start_s: float) -> Iterator[Finding]:
        """No signal from `start_s` on."""
        yield from self._over(start_s)
        self._opinions.clear()
        self._last = None

    def _read(self, verdict: "RhythmVerdict", end_s: float) -> Iterator[Finding]:
        label = verdict.inconclusive or verdict.label
        twice = label == self._last
        self._last = label
        if not twice or label == self._label:
            return
        onset_s = end_s - RHYTHM_WINDOW_S - RHYTHM_EVERY_S
        yield from self._over(onset_s)
        assert self._model is not None
        source = f"{self._model.name}@{self._model.version}"
        self._current, self._label = _Stretch(onset_s, source, verdict.inconclusive, verdict.probability), label
        yield self._finding(label, None)

    def _over(self, end_s: float) -> Iterator[Finding]:
        if self._current and self._label:
            yield self._finding(self._label, max(end_s, self._current.onset_s))
        self._current = self._label = None

    def _finding(self, label: str, end_s: float | None) -> Finding:
        assert self._current is not None
        current = self._current
        kind = RHYTHMS.get(label, "rhythm")
        return Finding(kind, current.onset_s, end_s, current.source, current.probability, inconclusive=current.reason)


class Screen:
    """Holds back what noise can pretend while the signal is bad; an episode that is held back is stated as inconclusive."""

    def __init__(self, quality: QualityWatch, rhythm: RhythmWatch) -> None:
        self._quality, self._rhythm = quality, rhythm
        self._held: dict[tuple[str, float], Finding] = {}
        self._looks = 0

    def passed(self, finding: Finding, chain: EcgChain) -> Iterator[Finding]:
        """The finding, as it may be told."""
        key = finding.kind, finding.onset_s
        if finding.end_s is not None:
            held = self._held.pop(key, None)
            yield replace(finding, inconclusive=held.inconclusive) if held else finding
            return
        reason = self._doubt(finding, chain)
        if reason is None:
            self._held.pop(key, None)
            yield finding
        else:
            held = replace(finding, inconclusive=reason)
            if self._held.get(key) != held:
                self._held[key] = held
                yield held

    def step(self, chain: EcgChain) -> Iterator[Finding]:
        """Episodes that were held back and go on, and that can be believed now: asked again after each look at the signal."""
        if self._looks == self._quality.looks:
            return
        self._looks = self._quality.looks
        for finding in list(self._held.values()):
            if self._doubt(finding, chain) is None:
                yield from self.passed(replace(finding, inconclusive=None), chain)

    def _doubt(self, finding: Finding, chain: EcgChain) -> str | None:
        if finding.kind in BY_RHYTHM:
            if self._quality.mostly_bad:
                return "noise"
            return "disagreement" if self._rhythm.surely_not_af else None
        if finding.kind in BY_SHAPE:
            verdict = self._quality.verdict(chain, chain.end_s)
            return verdict.reason or "noise" if verdict and verdict.label == "bad" else None
        return None

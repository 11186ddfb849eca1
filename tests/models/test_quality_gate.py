"""The quality gate holds back what noise can imitate, and lets every episode that was reported end."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.alarm_validation import MORPHOLOGY_KINDS, RHYTHM_KINDS, QualityGate
from models.findings import Finding
from models.rules.shared_episodes import RULE

KINDS = (*sorted(MORPHOLOGY_KINDS | RHYTHM_KINDS), "tachycardia", "pause")


@dataclass
class Signal:
    """The monitors of a signal, as the gate asks them, and its chain."""

    is_noise: bool = False
    is_af_excluded: bool = False
    end_s: float = 100.0
    windows_classified: int = 0

    @property
    def is_mostly_bad(self) -> bool:
        return self.is_noise

    def classify_window(self, *_: Any) -> None:
        return None


class Ventricles:
    """Like `VentricularMonitor.is_noise`."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal

    def is_noise(self, *_: float) -> bool:
        return self._signal.is_noise


def gate_of(signal: Signal) -> QualityGate:
    monitors: Any = signal, signal, Ventricles(signal)
    return QualityGate(*monitors)


def findings(kind: str, updates: int) -> Iterator[Finding]:
    first = Finding(kind, 50.0, None, f"{RULE}test", measured={"beats": 3.0})
    for beats in range(updates):
        yield replace(first, measured={"beats": 3.0 + beats})
    yield replace(first, end_s=90.0, measured={"beats": 3.0 + updates})


def steps(gate: QualityGate, signal: Signal) -> list[Finding]:
    signal.windows_classified += 1
    chain: Any = signal
    return list(gate.step(chain))


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_what_was_reported_ends_and_nothing_else_does(kind: str, course: list[tuple[bool, bool, bool]]) -> None:
    signal = Signal()
    gate, told = gate_of(signal), list[Finding]()
    for (signal.is_noise, signal.is_af_excluded, is_stepped), finding in zip(
        course, findings(kind, len(course) - 1), strict=True
    ):
        told += gate.filter_finding(finding, signal)  # type: ignore[arg-type]
        told += steps(gate, signal) if is_stepped and finding.end_s is None else []
    is_reported = any(finding.inconclusive is None and finding.end_s is None for finding in told)
    assert [finding.end_s for finding in told].count(90.0) == 1
    assert told[-1].end_s == 90.0
    if is_reported:
        assert told[-1].inconclusive is None
        since = next(at for at, finding in enumerate(told) if finding.inconclusive is None)
        assert all(finding.inconclusive is None for finding in told[since:])
    signal.is_noise = signal.is_af_excluded = False
    assert steps(gate, signal) == [], "what has ended is not told later"


@pytest.mark.parametrize(("kind", "reported"), [("vt", [3.0, 3.0]), ("af", [3.0, 4.0, 5.0])])
def test_noise_adds_nothing_to_a_run_and_an_exclusion_does_not_silence_fibrillation(kind: str, reported: list[float]) -> None:
    signal = Signal()
    gate, told = gate_of(signal), list[Finding]()
    for at, finding in enumerate(findings(kind, 2)):
        signal.is_noise, signal.is_af_excluded = at > 0, at > 0
        told += gate.filter_finding(finding, signal)  # type: ignore[arg-type]
    assert [finding.measured["beats"] for finding in told] == reported
    assert [finding.end_s for finding in told] == [None] * (len(reported) - 1) + [90.0]
    assert {finding.inconclusive for finding in told} == {None}

"""Ends of dangerous episodes that are held back until it is known whether they were seen in noise."""

from dataclasses import replace

import pytest

from models.findings import Finding
from models.rules.doubtful_ends import CHECK_S, DoubtfulEnds

ENDED = Finding("asystole", 20.0, 60.0, "rule:asystole")


def in_noise(_start_s: float, _end_s: float) -> bool:
    return True


def in_clear(_start_s: float, _end_s: float) -> bool:
    return False


@pytest.mark.parametrize("kind", ["vt", "pause", "asystole", "no_beats"])
def test_an_end_comes_when_the_signal_after_it_is_known(kind: str) -> None:
    ends, ended = DoubtfulEnds(), replace(ENDED, kind=kind)
    assert not list(ends.filter_finding(ended, 62.0))
    assert not list(ends.advance_to(62.0 + CHECK_S - 0.2, in_clear))
    assert list(ends.advance_to(62.0 + CHECK_S, in_clear)) == [ended]
    assert not list(ends.advance_to(70.0, in_clear))


def test_an_end_in_noise_is_lost() -> None:
    ends = DoubtfulEnds()
    assert not list(ends.filter_finding(ENDED, 62.0))
    assert list(ends.advance_to(64.0, in_noise)) == [replace(ENDED, lost=True)]
    assert not list(ends.advance_to(70.0, in_noise))


def test_the_next_rhythm_confirms_it_and_the_end_of_the_signal_does_not() -> None:
    ends, slow = DoubtfulEnds(), Finding("bradycardia", 60.0, None, "rule:bradycardia")
    assert not list(ends.filter_finding(ENDED, 62.0))
    assert list(ends.filter_finding(slow, 64.0)) == [ENDED, slow]
    assert not list(ends.filter_finding(ENDED, 62.0))
    assert list(ends.lose()) == [replace(ENDED, lost=True)]


@pytest.mark.parametrize(
    "finding",
    [
        replace(ENDED, end_s=None),
        replace(ENDED, lost=True),
        replace(ENDED, source="ecg_organised@1"),
        replace(ENDED, kind="vt", inconclusive="noise"),
        replace(ENDED, kind="bradycardia"),
    ],
    ids=["ongoing", "lost", "of the monitor", "inconclusive", "of another kind"],
)
def test_other_findings_do_not_wait(finding: Finding) -> None:
    assert list(DoubtfulEnds().filter_finding(finding, 62.0)) == [finding]

"""The comparison of a script's episodes with the alerts of the clinic."""

import pytest

from gateway.simulate.comparison import AlertComparison, compare_alerts
from gateway.simulate.script import Episode

AF = Episode("af", 4.0, 56.0)
PAUSE = Episode("pause", 79.4, 83.0)


def alert(kind: str, onset_s: float) -> dict[str, object]:
    return {"kind": kind, "onset": onset_s}


def test_each_episode_with_its_alert_passes() -> None:
    compared = compare_alerts([alert("af", 10.0), alert("pause", 79.5)], (AF, PAUSE))
    assert compared == AlertComparison((), ())
    assert compared.passed


@pytest.mark.parametrize(("kind", "onset_s"), [("pause", 82.5), ("pause", 76.3), ("bradycardia", 79.4)])
def test_an_alert_of_another_kind_or_onset_is_unexpected_and_its_episode_missed(kind: str, onset_s: float) -> None:
    compared = compare_alerts([alert(kind, onset_s)], (PAUSE,))
    assert compared == AlertComparison((PAUSE,), (alert(kind, onset_s),))
    assert not compared.passed


@pytest.mark.parametrize(("onset_s", "missed"), [(19.0, ()), (19.1, (AF,))])
def test_the_onset_of_af_has_a_wider_tolerance(onset_s: float, missed: tuple[Episode, ...]) -> None:
    assert compare_alerts([alert("af", onset_s)], (AF,)).missed == missed


def test_an_alert_matches_only_one_episode() -> None:
    other = Episode("pause", 81.0, 84.0)
    assert compare_alerts([alert("pause", 80.0)], (PAUSE, other)).missed == (other,)


def test_an_alert_before_it_is_due_is_not_unexpected() -> None:
    early, stray = alert("af", 10.0), alert("pause", 10.0)
    assert compare_alerts([early, stray], (), (AF,)) == AlertComparison((), (stray,))

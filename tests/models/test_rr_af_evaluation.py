"""Episodes, durations and false alerts, counted by hand on small records."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.evaluation.rr_af import (
    Scored,
    alert_count,
    episodes,
    expected_calibration_error,
    score,
    se_sp,
    true_episodes,
    window_counts,
)
from models.recordings.rhythms import AF, NOT_AF, UNUSED, Rhythm, windows


def record(*stretches: tuple[int, int]) -> Rhythm:
    """One beat a second; each stretch is a label and its number of beats."""
    labels = np.concatenate([np.full(beats, label, np.int8) for label, beats in stretches])
    return Rhythm("made", "1", 0.001, np.arange(len(labels), dtype=np.float64), labels)


def scored(rhythm: Rhythm, *called: tuple[int, int], step: int = 1) -> Scored:
    """Probability 1 for windows whose middle lies in these seconds, else 0."""
    cut = windows(rhythm, step)
    probability = np.zeros(len(cut.middle_s))
    for begin, end in called:
        probability[(cut.middle_s >= begin) & (cut.middle_s < end)] = 1.0
    return Scored(rhythm, cut, probability)


def test_windows_are_labelled_by_majority() -> None:
    cut = windows(record((NOT_AF, 101), (AF, 100)), 1)
    assert cut.rr_s.shape == (137, 64)
    assert (cut.rr_s == 1).all()
    assert cut.end_s[0] == 64
    assert cut.middle_s[0] == 32
    assert (cut.labels == (np.arange(64, 201) >= 101 + 32)).all()  # more than 32 of 64 beats


def test_an_episode_begins_and_ends_in_the_middle_of_its_windows() -> None:
    made = scored(record((NOT_AF, 1000)), (200, 400))
    (found,) = episodes(made.windows, made.probability, 0.9, 0.3)
    assert (found.onset_s, found.end_s) == (200, 400)
    assert found.decided_s == 232  # the window's end: by then 32 s have passed since the onset


def test_hysteresis_keeps_an_episode_whole() -> None:
    made = scored(record((NOT_AF, 1000)), (200, 400))
    made.probability[(made.windows.middle_s >= 250) & (made.windows.middle_s < 300)] = 0.5
    assert len(episodes(made.windows, made.probability, 0.9, 0.3)) == 1
    assert len(episodes(made.windows, made.probability, 0.9, 0.6)) == 2


def test_what_lasts_less_than_the_shortest_is_no_episode() -> None:
    made = scored(record((NOT_AF, 1000)), (200, 260))
    assert len(episodes(made.windows, made.probability, 0.9, 0.3, shortest_s=90)) == 1  # seen as 60 s + half a window
    assert episodes(made.windows, made.probability, 0.9, 0.3, shortest_s=93) == []


def test_an_episode_may_last_to_the_end() -> None:
    made = scored(record((NOT_AF, 300), (AF, 300)), (300, 600))
    (found,) = episodes(made.windows, made.probability, 0.9, 0.3)
    assert (found.onset_s, found.end_s) == (300, 599)


def test_true_episodes() -> None:
    assert true_episodes(record((AF, 10), (NOT_AF, 20), (UNUSED, 5), (AF, 15))) == [(0, 10), (35, 49)]


def test_duration_latency_and_long_episodes_by_hand() -> None:
    rhythm = record((NOT_AF, 1000), (AF, 1000), (NOT_AF, 1000), (AF, 700), (NOT_AF, 300))
    figures = score([scored(rhythm, (1100, 2050))], 0.9, 0.3)
    # Found: 1100 to 2050. True: 1000 to 2000 and 3000 to 3700, beat by beat.
    assert figures["duration"]["se"] == pytest.approx(100 * 899 / 1700)
    assert figures["duration"]["sp"] == pytest.approx(100 * (2299 - 51) / 2299)
    assert figures["episodes_10min"] == {"se": 50, "count": 2}
    assert figures["latency_s"] == {"median": 132, "p95": 132}
    assert figures["false_alerts_per_patient_day"] is None


def test_false_alerts_count_in_patients_without_af_only() -> None:
    day = record((NOT_AF, 86_401))
    noisy = scored(day, (1000, 1100), (5000, 5100), (9000, 9100), step=4)
    figures = score([noisy, scored(day, step=4), scored(record((NOT_AF, 500), (AF, 500)), (100, 200))], 0.9, 0.3)
    assert figures["false_alerts_per_patient_day"] == {"mean": 1.5, "median": 1.5, "p95": pytest.approx(2.85), "share_zero": 50}


def test_alerts_are_told_apart() -> None:
    rhythm = record((NOT_AF, 1000), (AF, 500), (NOT_AF, 1000), (UNUSED, 500), (NOT_AF, 1000))
    made = scored(rhythm, (1100, 1400), (2600, 2900), (3500, 3600))
    assert alert_count(made, 0.9, 0.3) == {"af": 1, "flutter": 1, "false": 1}


def test_flutter_counts_neither_way() -> None:
    made = scored(record((NOT_AF, 1000), (UNUSED, 1000)), (1200, 1500))
    figures = se_sp([window_counts(made)])
    assert figures["sp"] == 100
    assert figures["se"] is None
    assert figures["flutter_called"] == pytest.approx(100 * 300 / 968, abs=0.2)
    assert score([made], 0.9, 0.3)["duration"]["sp"] == 100


@pytest.mark.parametrize(
    ("probability", "is_af", "error"),
    [([0.0, 1.0], [False, True], 0.0), ([0.8] * 5, [True] * 4 + [False], 0.0), ([0.9] * 4, [True, True, False, False], 0.4)],
)
def test_calibration_error_by_hand(probability: list[float], is_af: list[bool], error: float) -> None:
    given: NDArray[np.float64] = np.array(probability)
    assert expected_calibration_error(given, np.array(is_af)) == pytest.approx(error)

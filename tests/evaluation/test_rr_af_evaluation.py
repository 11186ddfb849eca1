"""Beats, durations, episodes and false alerts, counted by hand on small records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures.rhythms import AF, NO_INTERVAL, NOT_AF, UNUSED, Rhythm, windows
from evaluation.records import EvaluationError
from evaluation.rr_af import (
    alert_count,
    beats,
    count_joined,
    end_report,
    evaluate_rr_af,
    false_alerts,
    report,
    se_sp,
    seconds,
    window_counts,
)
from evaluation.rr_tracking import (
    RaisedEpisode,
    ScoredRecord,
    TrackedRecord,
    WindowModel,
    beat_labels,
    find_end_delays,
    track_episodes,
    true_episodes,
)
from gateway.alert_tracker import AlertTracker
from gateway.waveform_analysis import utc_s_to_us
from models.findings import Finding
from models.inference.rr_af import is_conclusive
from models.rules.af_tracker import Stretch
from sync.records import AlertRecord

DAY_BEATS = 86_401


def record(*stretches: tuple[int, int]) -> Rhythm:
    """One beat a second; each stretch is a label and its number of beats."""
    labels = np.concatenate([np.full(beats, label, np.int8) for label, beats in stretches])
    return Rhythm("made", "1", 0.001, np.arange(len(labels), dtype=np.float64), labels)


def tracked(rhythm: Rhythm, *called: tuple[int, int]) -> TrackedRecord:
    """Calls AF from each begin to its end, in seconds, with an alert 32 s after each begin."""
    labels = np.zeros(len(rhythm.times_s), np.int8)
    for begin, end in called:
        labels[(rhythm.times_s > begin) & (rhythm.times_s <= end)] = 1
    cut = windows(rhythm, 4)
    probability = np.zeros(len(cut.middle_s))
    for begin, end in called:
        probability[(cut.middle_s > begin) & (cut.middle_s <= end)] = 1.0
    episodes = [RaisedEpisode(a, b, a + 32, b + 90) for a, b in called]
    return TrackedRecord(ScoredRecord(rhythm, cut, probability), labels, episodes, [])


class TestWindows:
    def test_windows_hold_the_last_64_intervals_and_are_partly_filled_at_first(self) -> None:
        cut = windows(record((NOT_AF, 101), (AF, 100)), 4)
        assert cut.rr_s.shape == (201 // 4, 64)
        assert cut.end_s.tolist() == list(range(3, 201, 4))
        assert cut.valid.sum(-1)[:3].tolist() == [3, 7, 11]
        assert cut.valid[16:].all()
        assert (cut.rr_s[cut.valid] == 1).all()
        assert cut.first_s[[0, 15, 16]].tolist() == [0, 0, 4]
        assert cut.middle_s[[0, 15, 16]].tolist() == [2, 32, 36]
        assert (cut.labels == (cut.end_s >= 101 + 32)).all()  # more than 32 of 64 beats

    def test_windows_do_not_cross_a_time_without_beats(self) -> None:
        rhythm = record((NOT_AF, 100))
        rhythm.times_s[50:] += 31
        cut = windows(rhythm, 4)
        assert cut.end_s[cut.part == 1][0] == 50 + 31 + 3
        assert cut.valid[cut.part == 1].sum(-1)[:2].tolist() == [3, 7]
        assert cut.rr_s.max() == 1

    def test_intervals_at_ventricular_beats_are_not_valid(self) -> None:
        plain = record((NOT_AF, 64))
        flags = np.arange(64) == 40
        cut = windows(Rhythm("made", "1", 0.001, plain.times_s, plain.labels, flags), 64)
        assert np.flatnonzero(~cut.valid[0]).tolist() == [0, 40, 41]
        assert cut.labels[0] == NOT_AF


class TestCounts:
    def test_duration_beats_latency_and_long_episodes_by_hand(self) -> None:
        rhythm = record((NOT_AF, 1000), (AF, 1000), (NOT_AF, 1000), (AF, 700), (NOT_AF, 300))
        figures = report([tracked(rhythm, (1100, 2050))])
        # Called: beats 1101 to 2050. True: 1000 to 1999 and 3000 to 3699.
        assert figures["duration"]["se"] == pytest.approx(100 * 899 / 1700)
        assert figures["duration"]["sp"] == pytest.approx(100 * (2299 - 51) / 2299)  # the first beat ends no interval
        assert figures["duration"]["coverage"] == 100
        assert figures["beats"]["se"] == pytest.approx(100 * 899 / 1700)
        assert figures["beats"]["sp"] == pytest.approx(100 * (2300 - 51) / 2300)
        assert figures["episodes_10min"] == {"se": 50, "count": 2, "se_95": pytest.approx([9.45, 90.55], abs=0.01)}
        assert figures["latency_s"] == {"median": 132, "p75": 132, "p95": 132}
        assert figures["false_alerts_per_patient_day"] is None

    def test_inconclusive_or_missing_beats_lower_only_coverage(self) -> None:
        rhythm = record((AF, 50), (NOT_AF, 51))
        rhythm.times_s[80:] += 5.0
        one = tracked(rhythm, (-1, 49))
        one.labels[:20] = -1
        counts = seconds(one)
        assert counts["af"] == counts["af_called"] == 30
        assert counts["not_af"] == 50
        assert counts["not_af_called"] == 0
        assert counts["all"] == 105
        assert beats(one)["not_af"] == 51

    def test_false_alerts_count_only_in_patients_without_af(self) -> None:
        day = record((NOT_AF, DAY_BEATS))
        noisy = tracked(day, (1000, 1100), (2000, 2100), (9000, 9100))
        with_af, short = (
            tracked(record((NOT_AF, 500), (AF, DAY_BEATS)), (100, 200)),
            tracked(record((NOT_AF, 500)), (100, 200)),
        )
        expected = {"mean": 1.5, "median": 1.5, "p95": pytest.approx(2.85), "share_zero": 50, "patients": 2, "alerts": 3}
        expected |= {"days": 2, "worst": {"made/1": 3}, "mean_95": pytest.approx([0.6187 / 2, 8.7673 / 2], abs=1e-4)}
        expected |= {"mean_upper_95": pytest.approx(7.7537 / 2, abs=1e-4)}  # tables of the Poisson distribution
        expected |= {"joined": {"mean": 1, "alerts": 2, "mean_upper_95": pytest.approx(6.2958 / 2, abs=1e-4)}}
        assert false_alerts([noisy, tracked(day), with_af, short]) == expected

    @given(st.lists(st.tuples(st.integers(100, 4000), st.integers(60, 3000)), min_size=1, max_size=8))
    def test_episodes_are_joined_as_the_agent_joins_them(self, parts: list[tuple[int, int]]) -> None:
        tracker, alerts, now_s = AlertTracker("strap", has_rhythm=True), set[str](), 0
        episodes: list[RaisedEpisode] = []
        for pause_s, length_s in parts:
            onset_s = now_s + pause_s
            episodes.append(RaisedEpisode(onset_s, onset_s + length_s, onset_s + 50, onset_s + length_s + 90))
            for end_s, decided_s in ((None, onset_s + 50), (onset_s + length_s, onset_s + length_s + 90)):
                for _ in range(2):  # the first ends an alert that has waited for long enough, the second forgets it
                    tracker.advance(decided_s * 10**6, decided_s * 10**6)
                now_s = decided_s
                finding = Finding("irregular_pulse", onset_s, end_s, "rr_af@1")
                records = tracker.on_finding(finding, utc_s_to_us, decided_s * 10**6)
                alerts |= {record.id for record in records if isinstance(record, AlertRecord)}
        assert count_joined(episodes) == len(alerts)

    def test_counts_alerts_in_af_in_flutter_and_false_alerts(self) -> None:
        rhythm = record((NOT_AF, 1000), (AF, 500), (NOT_AF, 1000), (UNUSED, 500), (NOT_AF, 1000))
        assert alert_count(tracked(rhythm, (1100, 1400), (2600, 2900), (3500, 3600))) == {"af": 1, "flutter": 1, "false": 1}

    def test_flutter_counts_neither_as_af_nor_as_another_rhythm(self) -> None:
        made = tracked(record((NOT_AF, 1000), (UNUSED, 1000)), (1200, 1500))
        figures = report([made])
        assert (figures["duration"]["se"], figures["duration"]["sp"]) == (None, 100)
        assert figures["duration"]["flutter_called"] == pytest.approx(30)
        windowed = se_sp([window_counts(made.scored)])
        assert windowed["sp"] == 100
        assert windowed["flutter_called"] == pytest.approx(100 * 300 / 968, abs=0.5)

    def test_true_episodes(self) -> None:
        assert true_episodes(record((AF, 10), (NOT_AF, 20), (UNUSED, 5), (AF, 15))) == [(0, 10), (35, 49)]

    def test_a_beat_takes_the_label_of_the_stretch_in_which_its_interval_ends(self) -> None:
        stretches = [Stretch(1, 4, True), Stretch(4, 6, False), Stretch(6, 7, None), Stretch(9, 10, True)]
        assert beat_labels(np.arange(12.0), stretches).tolist() == [-1, -1, 1, 1, 1, 0, 0, -1, -1, -1, 1, -1]
        assert beat_labels(np.arange(2.0), []).tolist() == [-1, -1]

    def test_a_time_without_beats_ends_an_episode(self) -> None:
        rhythm = record((AF, 400))
        rhythm.times_s[1:-1] += np.random.default_rng(1).uniform(-0.4, 0.4, 398)
        rhythm.times_s[199:201] = 199, 200
        rhythm.times_s[200:] += 100
        cut = windows(rhythm, 4)
        record_ = track_episodes(ScoredRecord(rhythm, cut, np.where(cut.valid.sum(-1) >= 24, 1.0, np.nan)), AlwaysAf())
        assert [(episode.onset_s, episode.end_s) for episode in record_.episodes] == [(0, 199), (300, 499)]
        assert (record_.labels == 1).sum() == 398


class HalfSecondIsAf:
    """A model whose probability of AF is the share of intervals of 0.5 s."""

    on_threshold = 0.5

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.asarray((valid & (rr_s == 0.5)).sum(-1) / valid.sum(-1))

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return is_conclusive(rr_s, valid)


class TestEndDelays:
    @staticmethod
    def delays(episode: RaisedEpisode, *stretches: tuple[int, int]) -> list[float]:
        rhythm = record(*stretches)
        times_s = np.cumsum(np.where(rhythm.labels == AF, 0.5, 1.0)) - 1.0
        rhythm.times_s[:] = times_s
        cut = windows(rhythm, 4)
        return find_end_delays(ScoredRecord(rhythm, cut, np.zeros(len(cut.end_s))), [episode], HalfSecondIsAf())

    def test_an_end_is_noticed_when_few_of_the_newest_26_intervals_are_those_of_af(self) -> None:
        # AF from 99.5 to 300 s. Each beat is judged: at 322 s three of 26 intervals are those of AF, at 323 s two.
        assert self.delays(RaisedEpisode(99.5, 299.5, 150, 450), (NOT_AF, 100), (AF, 400), (NOT_AF, 500)) == [23]

    def test_it_is_noticed_at_the_latest_when_the_episode_is_closed(self) -> None:
        assert self.delays(RaisedEpisode(99.5, 299.5, 150, 315), (NOT_AF, 100), (AF, 400), (NOT_AF, 500)) == [15]

    def test_an_episode_that_is_raised_after_the_end_counts_from_the_end(self) -> None:
        assert self.delays(RaisedEpisode(99.5, 320.5, 330, 450), (NOT_AF, 100), (AF, 400), (NOT_AF, 500)) == [30]

    @pytest.mark.parametrize("after", [(NOT_AF, 50), (UNUSED, 500)])
    def test_af_that_comes_back_and_flutter_are_no_end(self, after: tuple[int, int]) -> None:
        assert self.delays(RaisedEpisode(99.5, 299.5, 150, 450), (NOT_AF, 100), (AF, 400), after, (AF, 400)) == []

    def test_an_end_after_the_episode_does_not_count(self) -> None:
        assert self.delays(RaisedEpisode(99.5, 250, 150, 280), (NOT_AF, 100), (AF, 400), (NOT_AF, 500)) == []

    def test_the_report_counts_those_within_30_s(self) -> None:
        figures = end_report([0, 10, 20, 40])
        assert {key: figures[key] for key in ("ends", "within_30_s", "median", "longest")} == {
            "ends": 4,
            "within_30_s": 75,
            "median": 15,
            "longest": 40,
        }
        assert end_report([])["within_30_s"] is None


class AlwaysAf:
    """A model that calls every conclusive window AF."""

    on_threshold = 0.5

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.full(len(rr_s), 0.99)

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return is_conclusive(rr_s, valid)


class NeverAf(AlwaysAf):
    """A model that calls no window AF."""

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.full(len(rr_s), 0.01)


class TestFolders:
    @pytest.fixture
    def folder(self, data: Path, tmp_path: Path) -> Path:
        """One AFDB and one NSR2DB record, and a damaged one."""
        for database, name in (("afdb", "04048"), ("nsr2db", "nsr001")):
            (tmp_path / database).mkdir()
            for suffix in (".qrs", ".atr"):
                (tmp_path / database / f"{name}{suffix}").write_bytes((data / database / f"{name}{suffix}").read_bytes())
        (tmp_path / "afdb" / "broken.qrs").write_bytes(b"\x01")
        (tmp_path / "afdb" / "without_atr.qrs").write_bytes((data / "afdb" / "04048.qrs").read_bytes())
        return tmp_path

    def test_reports_by_database_and_record_and_names_damaged_files(self, folder: Path) -> None:
        figures = evaluate_rr_af(folder, lambda _name: AlwaysAf())
        assert set(figures["databases"]) == {"afdb", "nsr2db"}
        assert set(figures["records"]) == {"afdb/04048", "nsr2db/nsr001"}
        assert set(figures["skipped"]) == {"afdb/broken", "afdb/without_atr"}
        assert figures["duration"] == figures["databases"]["afdb"]["duration"]
        assert figures["duration"]["se"] == pytest.approx(100)
        assert figures["duration"]["sp"] == pytest.approx(0)
        assert figures["databases"]["nsr2db"]["duration"]["se"] is None
        assert figures["false_alerts_per_patient_day"]["worst"].keys() == {"nsr2db/nsr001"}
        assert figures["false_alerts_per_patient_day"]["share_zero"] == 0
        json.dumps(figures, allow_nan=False)

    def test_scores_one_database_with_lost_intervals(self, folder: Path) -> None:
        figures = evaluate_rr_af(folder / "nsr2db", lambda _name: AlwaysAf(), drop=0.9)
        assert set(figures["records"]) == {"nsr2db/nsr001"}
        assert figures["duration"]["coverage"] < 1  # hardly ever 24 valid intervals in 64

    def test_a_folder_without_records_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(EvaluationError, match="give the folder that holds afdb, ltafdb, nsr2db"):
            evaluate_rr_af(tmp_path, lambda _name: AlwaysAf())

    def test_each_record_is_scored_with_the_model_of_its_fold(self, folder: Path) -> None:
        folds: dict[str, WindowModel] = {"nsr2db/nsr001": NeverAf()}
        figures = evaluate_rr_af(folder / "nsr2db", lambda name: folds[name])
        assert figures["duration"]["sp"] == 100
        assert figures["false_alerts_per_patient_day"]["alerts"] == 0


def test_a_window_without_intervals_is_not_af() -> None:
    assert windows(record((NO_INTERVAL, 64)), 64).labels.tolist() == [NOT_AF]

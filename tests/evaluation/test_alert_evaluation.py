"""Episode statistics of alerts: known answers on written recordings, and the arithmetic against independent computations."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from scipy import stats

from evaluation.alert_lines import AlertLine, RaisedAlert, trace_alerts
from evaluation.alert_noise import add_alert_noise, list_noise_levels
from evaluation.alert_truth import read_truth
from evaluation.alerts import AlertRun, EcgRecord, Playback, evaluate_alerts, find_alert_records
from evaluation.proportions import poisson_interval, poisson_upper, wilson_interval
from evaluation.spans import complement_spans, intersect_spans, merge_spans, total_s
from models.inference.models import Models

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb

RATE_HZ = 100
DURATION_S = 600
"""Ten minutes: the smallest record in which every rhythm below has its place."""


def write_record(folder: Path, name: str, notes: Sequence[tuple[float, str, str]]) -> EcgRecord:
    """A record of silence with annotations (seconds, symbol, text)."""
    folder.mkdir(parents=True, exist_ok=True)
    silence = np.zeros((DURATION_S * RATE_HZ, 1))
    with warnings.catch_warnings(action="ignore"):
        wfdb.wrsamp(name, RATE_HZ, ["mV"], ["ECG"], silence, fmt=["16"], adc_gain=[200], baseline=[0], write_dir=str(folder))
        wfdb.wrann(
            name,
            "atr",
            np.array([round(at_s * RATE_HZ) for at_s, _, _ in notes]),
            symbol=[symbol for _, symbol, _ in notes],
            aux_note=[text for _, _, text in notes],
            write_dir=str(folder),
        )
    return EcgRecord(f"{folder.name}/{name}", folder / f"{name}.hea")


def rhythms(*changes: tuple[float, str]) -> list[tuple[float, str, str]]:
    return [(at_s, "+", text) for at_s, text in changes]


def line(kind: str, priority: str, onset_s: float, end_s: float | None, decided_s: float, id_: str = "") -> AlertLine:
    return AlertLine(id_ or f"{kind} {onset_s}", kind, priority, onset_s, end_s, decided_s)


def report(records: Sequence[EcgRecord], *lines: AlertLine) -> dict[str, Any]:
    """The report of an agent that raises these alerts in every record."""

    def play(playback: Playback) -> Sequence[AlertLine]:
        assert playback.mv.size == DURATION_S * RATE_HZ
        return lines

    with Progress(disable=True) as progress:
        return evaluate_alerts(records, AlertRun(play, lambda _: Models()), progress, processes=1)


VFDB = rhythms(
    (0, "(N"), (100, "(VT"), (130, "(VFIB"), (150, "(VFL"), (170, "(N"), (300, "(ASYS"), (308, "(NOISE"), (330, "(N")
)


def test_known_answers_for_dangerous_rhythms(tmp_path: Path) -> None:
    """VT of 30 s seen after 6 s, VF of 40 s not seen until its end, asystole of 8 s missed, one high alert outside."""
    record = write_record(tmp_path / "vfdb", "1", VFDB)
    found = report(
        [record],
        line("vt", "medium", 101, None, 104),
        line("vt", "high", 101, None, 106),
        line("vt", "high", 101, 125, 127),
        line("vf", "high", 155, None, 165),
        line("vf", "high", 155, 175, 176),
        line("pause", "high", 500, 505, 504),
    )
    vt, vf, asystole, every = (found["long"][kind] for kind in ("vt", "vf", "asystole", "all"))
    assert (vt["episodes"], vt["found"], vt["covered"], vt["latency_s"]) == (1, 1, 75.0, {"median": 6.0, "p95": 6.0})
    assert (vf["episodes"], vf["seconds"], vf["found"]) == (1, 40.0, 1)
    assert (vf["latency_s"]["p95"], vf["covered"]) == (35.0, round(100 * 5 / 30, 2))
    assert vf["lasting"] == {key: value for key, value in vf.items() if key not in ("seconds", "lasting")}
    assert asystole["episodes"] == 0, "it lasts 8 s"
    assert [(poor["kind"], poor["start_s"], poor["latency_s"], poor["covered"]) for poor in found["poor"]] == [
        ("vt", 100, 6.0, 75.0),
        ("vf", 130, 35.0, 16.67),
    ]
    assert every["covered"] == 40.0, "15 s of 20 s and 5 s of 30 s"
    assert every["latency_s"] == {"median": 20.5, "p95": 33.55}, "numpy's linear interpolation between 6 and 35"
    kinds = found["kinds"]
    assert (kinds["asystole"]["episodes"], kinds["asystole"]["found"], kinds["asystole"]["se"]) == (1, 0, 0.0)
    assert kinds["vt"]["latency_s"]["median"] == 4.0, "of medium priority"
    outside = found["outside"]
    assert outside["hours"] == round((600 - 90 - 50) / 3600, 3), "away from 90 to 180 s and 290 to 340 s"
    assert [(alert["kind"], alert["raised_s"], alert["open_s"]) for alert in outside["alerts"]] == [("pause", 504, 1)]
    assert found["high_per_day"] == round(86400 / 460, 3)
    assert kinds["pause"]["unjudged"] == 1, "no beat is marked in this database"


def test_false_alerts_are_counted_by_kind_priority_and_day(tmp_path: Path) -> None:
    records = [write_record(tmp_path / "nsrdb-2h", name, [(1, "N", ""), (2, "N", "")]) for name in ("a", "b")]
    found = report(
        records,
        line("tachycardia", "medium", 50, 90, 60),
        line("tachycardia", "high", 200, 230, 205),
        line("v_run", "low", 300, 301, 303),
    )
    figures = found["kinds"]["tachycardia"]
    assert (figures["alerts"], figures["false"], figures["ppv"]) == (4, 4, 0.0)
    assert figures["false_per_patient_day"] == {"high": 144.0, "medium": 144.0, "low": 0.0, "all": 288.0}
    assert found["alerts_per_day"] == {"high": 144.0, "medium": 144.0, "low": 144.0, "all": 432.0}
    assert found["outside"]["high"] == 2


def test_beats_show_pauses_rates_and_runs(tmp_path: Path) -> None:
    """60/min; 15 s at 150/min; a pause of 4 s; one of 2.5 s; 4 V at 120/min; 3 V at 80/min."""
    times = [*np.arange(1, 100), *np.arange(100, 115.01, 0.4), *np.arange(116, 150), 153, *np.arange(154, 160), 161.5]
    beats = [(float(at_s), "N", "") for at_s in times]
    beats += [(162 + 0.5 * index, "V", "") for index in range(4)] + [(165.0, "N", "")]
    beats += [(166 + 0.75 * index, "V", "") for index in range(3)] + [(169.0, "N", "")]
    record = write_record(tmp_path / "mitdb", "1", beats)
    truth = read_truth(record.header.with_suffix(".atr"), RATE_HZ, DURATION_S, "mitdb")
    episodes = {
        kind: [(round(start, 1), round(end, 1)) for k, start, end in truth.episodes if k == kind]
        for kind in ("tachycardia", "bradycardia", "pause", "short_pause", "vt", "v_run")
    }
    assert episodes == {
        "tachycardia": [(100.0, 114.8)],
        "bradycardia": [],
        "pause": [(149.0, 153.0)],
        "short_pause": [(159.0, 161.5)],
        "vt": [(162.0, 163.5)],
        "v_run": [(166.0, 167.5)],
    }


def test_the_end_of_the_record_ends_flutter_without_a_mark(tmp_path: Path) -> None:
    record = write_record(tmp_path / "cudb", "1", [(10, "N", ""), (100, "[", ""), (150, "]", ""), (590, "[", "")])
    truth = read_truth(record.header.with_suffix(".atr"), RATE_HZ, DURATION_S, "cudb")
    assert [(kind, start, end) for kind, start, end in truth.episodes] == [("vf", 100.0, 150.0), ("vf", 590.0, 600.0)]
    assert "vt" not in truth.judged, "outside [ ] it is not marked there"


def opened(alert: RaisedAlert) -> list[tuple[str, str, float, float, bool]]:
    return [tuple(span) for span in alert.opened]


def test_an_alert_that_opens_again_is_one_alert_with_two_stretches() -> None:
    lines = [
        line("vt", "medium", 10, None, 13, "a"),
        line("vt", "high", 10, None, 15, "a"),
        line("vt", "high", 10, 20, 22, "a"),
        line("vt", "high", 10, None, 100, "a"),
        line("pause", "high", 40, None, 43, "b"),
        line("asystole", "high", 40, None, 48, "b"),
    ]
    vt, asystole = trace_alerts(lines, 120)
    assert opened(vt) == [("vt", "medium", 13, 15, True), ("vt", "high", 15, 20, True), ("vt", "high", 100, 120, True)]
    assert vt.extents == ((10, 20), (90, 120))
    assert (vt.raised_s, vt.high_raised_s) == (13, (15, 22, 100))
    assert asystole.kind == "asystole"
    assert opened(asystole) == [("pause", "high", 43, 48, True), ("asystole", "high", 48, 120, True)]


def test_an_alert_that_waits_for_its_next_episode_is_open_but_no_episode_lasts() -> None:
    """Two pauses that are reported while they last; a third that had ended when it was reported; 10 min without one."""
    told = [(None, 13, None), (14.0, 15, None), (None, 53, None), (None, 55, 54.0), (None, 84, 82.0), (82.0, 682, None)]
    lines = [AlertLine("a", "pause", "high", 10, end_s, at_s, latest_s, 13) for end_s, at_s, latest_s in told]
    (alert,) = trace_alerts(lines, 900)
    assert opened(alert) == [
        ("pause", "high", 13, 14, True),
        ("pause", "high", 53, 54, True),
        ("pause", "high", 54, 84, False),
        ("pause", "high", 84, 84, True),
        ("pause", "high", 84, 682, False),
    ]
    assert alert.extents == ((10, 14), (43, 54), (74, 84))
    assert alert.high_raised_s == (13,)


spans = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 30)).map(lambda pair: (pair[0], min(100, sum(pair)))), max_size=6)


@given(spans, spans)
def test_time_in_spans_is_what_counting_each_second_gives(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    def seconds(chosen: list[tuple[int, int]]) -> np.ndarray:
        return np.array([any(start <= second < end for start, end in chosen) for second in range(100)])

    one, two = merge_spans(first), merge_spans(second)
    assert total_s(one) == seconds(first).sum()
    assert total_s(intersect_spans(one, two)) == (seconds(first) & seconds(second)).sum()
    assert total_s(complement_spans(first, 100)) == (~seconds(first)).sum()


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 58), (47, 58), (58, 58), (3, 1000)])
def test_wilson_intervals_are_those_of_scipy(count: int, total: int) -> None:
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(count, total) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize("count", [0, 1, 5, 37, 400])
def test_poisson_intervals_are_those_of_the_chi_square_distribution(count: int) -> None:
    low = 0.0 if count == 0 else stats.chi2.ppf(0.025, 2 * count) / 2
    assert poisson_interval(count) == pytest.approx((low, stats.chi2.ppf(0.975, 2 * count + 2) / 2), rel=1e-6)
    assert poisson_upper(count) == pytest.approx(stats.chi2.ppf(0.95, 2 * count + 2) / 2, rel=1e-6)


def test_alarms_are_scored_as_in_the_challenge(tmp_path: Path) -> None:
    """One of each outcome: (1 + 1) / (1 + 1 + 1 + 5 x 1); what comes after the alarm does not count."""
    folder = tmp_path / "cinc2015"
    for name in ("a1", "b2", "v3", "t4"):
        write_record(folder, name, [(1, "N", "")])
    (folder / "ALARMS").write_text("a1,Asystole,1\nb2,Bradycardia,0\nv3,Ventricular_Tachycardia,1\nt4,Tachycardia,0\n")
    records = find_alert_records(tmp_path)
    assert [record.name for record in records] == [f"cinc2015/{name}" for name in ("a1", "b2", "v3", "t4")]

    def play(playback: Playback) -> Sequence[AlertLine]:
        assert playback.mv.size == 300 * RATE_HZ
        assert not playback.ends
        assert playback.limits.tachycardia_rate.value == 140
        return [
            line("asystole", "high", 280, 291, 286),  # open in the last 10 s
            line("asystole", "high", 280, None, 284, "open"),
            line("vt", "high", 270, 289, 275),  # over before them
            line("bradycardia", "medium", 250, None, 260, "b"),
            line("bradycardia", "medium", 250, 262, 263, "b"),
            line("bradycardia", "medium", 250, None, 270, "b"),
            line("bradycardia", "medium", 250, None, 275, "b")._replace(latest_s=273),
        ]

    with Progress(disable=True) as progress:
        found = evaluate_alerts(records, AlertRun(play, lambda _: Models()), progress, processes=1)
    assert found["score"] == found["cinc2015"]["score"] == 25.0
    assert found["cinc2015"]["score_lasting"] == round(100 * 3 / 8, 2), "the bradycardia is over"
    assert {key: found["cinc2015"][key] for key in ("tp", "tn", "fp", "fn")} == {"tp": 1, "tn": 1, "fp": 1, "fn": 1}


def test_an_alert_that_waits_covers_nothing_while_lasting_counts(tmp_path: Path) -> None:
    """Two pauses before a VT that is not seen: the high alert about them is open in it, and no episode lasts."""
    record = write_record(tmp_path / "vfdb", "1", VFDB)
    waits = [
        line("pause", "high", 20, None, 24, "a"),
        line("pause", "high", 20, 26, 27, "a"),
        line("pause", "high", 20, None, 40, "a"),
    ]
    found = report([record], *waits, line("pause", "high", 20, None, 44, "a")._replace(latest_s=43))
    vt = found["long"]["vt"]
    assert (vt["found"], vt["covered"], vt["latency_s"]["p95"]) == (1, 100.0, 0.0)
    assert (vt["lasting"]["found"], vt["lasting"]["covered"]) == (0, 0.0)


def test_high_alerts_outside_are_drawn_with_their_marks(tmp_path: Path) -> None:
    record = write_record(tmp_path / "vfdb", "1", VFDB)

    def play(_: Playback) -> Sequence[AlertLine]:
        return [
            line("pause", "high", 500, 505, 504),
            line("vt", "high", 101, 125, 106),
            line("tachycardia", "medium", 400, 410, 405),
        ]

    with Progress(disable=True) as progress:
        evaluate_alerts([record], AlertRun(play, lambda _: Models(), strips=tmp_path / "strips"), progress, processes=1)
    (drawn,) = (tmp_path / "strips").iterdir()
    assert drawn.name == "vfdb-1-00504.0-pause.svg"
    svg = drawn.read_text()
    marks = [float(x) for x in re.findall(r'class="mark" d="M(\d+) ', svg)]
    assert marks == [15 % 10 * 500, 19 % 10 * 500], "rows of 10 s from 485 s, 500 units a second"
    assert svg.count('class="trace"') == 4


def test_noise_has_the_stated_level_and_an_offset_of_its_own(tmp_path: Path) -> None:
    """At 0 dB the noise has the power of a sine with the amplitude of the QRS complexes; at -6 dB four times as much."""
    folder = tmp_path / "noise"
    folder.mkdir()
    white = np.random.default_rng(2).normal(0, 1, (2, 30 * 360))
    drawn = np.array([np.convolve(channel, np.hanning(36), "same") for channel in white]).T  # below 50 Hz
    for index, kind in enumerate(("BW", "EM", "MA")):
        columns = np.column_stack((np.arange(len(drawn)), np.roll(drawn, 1000 * index, axis=0)))
        scipy.io.savemat(folder / f"{kind}.mat", {kind: columns})
    records = [write_record(tmp_path / "nsrdb-2h", name, [(at_s, "N", "") for at_s in range(1, 599)]) for name in ("a", "b")]
    mv = np.zeros(DURATION_S * RATE_HZ)
    mv[np.arange(1, 599) * RATE_HZ] = 2.0
    added = {
        (record.name, level.kind, level.snr_db): add_alert_noise(record.header, mv, RATE_HZ, level) - mv
        for record in records
        for level in list_noise_levels(folder)
    }
    for (_, _, snr_db), noise in added.items():
        assert noise.std() == pytest.approx(2 / np.sqrt(8) * (1 if snr_db == 0 else 1.995), rel=0.1)
    assert abs(np.corrcoef(added["nsrdb-2h/a", "EM", 0], added["nsrdb-2h/b", "EM", 0])[0, 1]) < 0.5

"""Dangerous rhythms through the whole analysis: one alert for each, as long as it lasts, whatever came before."""

import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from config.limit_profiles import cinc2015_limits
from config.limits import DEFAULT_LIMITS
from gateway.models import load_models
from models.analysis import EcgAnalysis
from models.findings import Finding
from models.inference.models import Models
from models.signal.filters import Samples
from tests.models.known_beats import NORMAL, VENTRICULAR, TimedWaves, Waves, ecg, rhythm

RATE_HZ = 130.0
CHUNK = 73
SINUS = rhythm(NORMAL, 71, 60)
SINUS_END_S = SINUS[-1][0]
ALERT_KINDS = {"pause", "asystole", "no_beats", "bradycardia", "tachycardia", "vt", "v_run", "bigeminy", "trigeminy", "af"}


@pytest.fixture(scope="module")
def all_models() -> Models:
    loaded = load_models()
    assert not loaded.refused
    return loaded


@pytest.fixture(scope="module")
def models(all_models: Models) -> Models:
    """All models without `ecg_organised`: here the rules on beats are tested, not the ventricular monitor."""
    return replace(all_models, ecg_organised=None)


def mv(beats: TimedWaves, seconds: float) -> Samples:
    return ecg(beats, seconds, RATE_HZ)


def analyse(
    parts: Iterable[Samples | float], analysis: EcgAnalysis | None = None, models: Models | None = None
) -> list[tuple[float, Finding]]:
    """Return alerting findings of samples, and of gaps in seconds, each with the stream time at which it was reported."""
    analysis = analysis or EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models or Models())
    found: list[tuple[float, Finding]] = []
    for part in parts:
        if isinstance(part, float):
            found += [(analysis.end_s, finding) for finding in analysis.gap(part).findings]
            continue
        for start in range(0, part.size, CHUNK):
            step = analysis.push(part[start : start + CHUNK])
            found += [(analysis.end_s, finding) for finding in step.findings]
    found += [(analysis.end_s, finding) for finding in analysis.finish().findings]
    return [(t, finding) for t, finding in found if finding.kind in ALERT_KINDS and not finding.inconclusive]


def test_a_tachycardia_of_the_ventricles_is_one_alert_and_not_also_of_the_rate(models: Models) -> None:
    vt = rhythm(VENTRICULAR, 160, 90, start_s=SINUS_END_S + 0.5)
    after = rhythm(NORMAL, 71, 30, start_s=vt[-1][0] + 0.9)
    found = analyse([mv([*SINUS, *vt, *after], after[-1][0] + 2)], models=models)
    assert {finding.kind for _, finding in found} == {"vt"}
    assert len({finding.onset_s for _, finding in found}) == 1
    assert found[-1][1].end_s == pytest.approx(vt[-1][0], abs=0.2)
    assert not found[-1][1].lost


@pytest.mark.parametrize("rate_bpm", [110, 140, 180])
def test_a_short_tachycardia_of_the_ventricles_is_reported_while_it_lasts(rate_bpm: int, models: Models) -> None:
    """Three beats make the alert; the label of the third one needs the fourth."""
    vt = rhythm(VENTRICULAR, rate_bpm, 3.0, start_s=SINUS_END_S + 0.5)
    after = rhythm(NORMAL, 71, 10, start_s=vt[-1][0] + 0.9)
    found = analyse([mv([*SINUS, *vt, *after], after[-1][0] + 1)], models=models)
    assert {finding.kind for _, finding in found} == {"vt"}
    assert found[0][0] <= vt[3][0] + 0.6 + CHUNK / RATE_HZ


@pytest.mark.parametrize(
    ("kind", "waves", "rate_bpm", "beats"),
    [
        ("vt", VENTRICULAR, 105, 5),
        ("vt", VENTRICULAR, 180, 5),
        ("tachycardia", NORMAL, 145, 17),
        ("tachycardia", NORMAL, 220, 17),
    ],
)
def test_an_alarm_of_the_challenge_is_open_after_its_last_beat(
    kind: str, waves: Waves, rate_bpm: int, beats: int, models: Models
) -> None:
    """The detector and the division of the signal take a second."""
    alarm = rhythm(waves, rate_bpm, beats * 60 / rate_bpm + 0.01, start_s=SINUS_END_S + 0.5)[:beats]
    analysis = EcgAnalysis(RATE_HZ, cinc2015_limits(), models)
    found = analyse([mv([*SINUS, *alarm], alarm[-1][0] + 3)], analysis)
    assert kind in {finding.kind for t, finding in found if t <= alarm[-1][0] + 1.3}


def test_a_sinus_tachycardia_that_was_reported_ends_where_one_of_the_ventricles_begins(models: Models) -> None:
    fast = rhythm(NORMAL, 140, 30, start_s=SINUS_END_S + 0.45)
    vt = rhythm(VENTRICULAR, 180, 30, start_s=fast[-1][0] + 0.33)
    found = analyse([mv([*SINUS, *fast, *vt], vt[-1][0] + 1)], models=models)
    ended = next(finding for _, finding in found if finding.kind == "tachycardia" and finding.end_s is not None)
    (onset_s,) = {finding.onset_s for _, finding in found if finding.kind == "vt"}
    assert ended.end_s == pytest.approx(onset_s, abs=0.1)
    assert found[-1][1].kind == "vt"
    assert found[-1][1].lost, "the stream ended in it"


def test_a_sinus_tachycardia_after_a_ventricular_run_is_reported_as_soon_as_without_one(models: Models) -> None:
    """The end of the run waits until the signal is known; the beats after it count meanwhile."""
    run = rhythm(VENTRICULAR, 180, 2, start_s=SINUS_END_S + 0.5)
    fast = rhythm(NORMAL, 150, 20, start_s=run[-1][0] + 0.4)
    found = analyse([mv([*SINUS, *run, *fast], fast[-1][0] + 1)], models=models)
    raised_s, raised = next((t, finding) for t, finding in found if finding.kind == "tachycardia")
    assert raised.onset_s >= run[-1][0] - 0.1
    assert raised_s <= fast[0][0] + DEFAULT_LIMITS.rate_persistence.value + 4


def test_a_standstill_is_a_pause_at_3_s_and_an_asystole_by_10_s_with_one_episode(models: Models) -> None:
    found = analyse([mv(SINUS, 60), mv([], 60)], models=models)
    assert [finding.kind for _, finding in found] == ["pause", "asystole", "asystole"]
    assert len({finding.episode for _, finding in found}) == 1
    (pause_s, pause), (asystole_s, _), (_, ended) = found
    assert pause_s - pause.onset_s <= 4.0
    assert asystole_s - pause.onset_s <= 10.0
    assert ended.lost


@pytest.mark.parametrize("p_mv", [0.11, 0.2])
def test_p_waves_in_a_standstill_are_not_beats(p_mv: float, models: Models) -> None:
    p_waves = mv([(0.4 + 0.8 * i, ((p_mv, 0.0, 0.022),)) for i in range(70)], 60)
    found = analyse([mv(SINUS, 60), p_waves], models=models)
    assert [finding.kind for _, finding in found] == ["pause", "asystole", "asystole"]
    assert found[-1][1].end_s == pytest.approx(120, abs=0.1)


@pytest.mark.parametrize("p_mv", [0.35, 0.55])
def test_tall_p_waves_in_a_standstill_are_known_by_those_before_it(p_mv: float, models: Models) -> None:
    sinus: Waves = ((p_mv, -0.165, 0.022), *NORMAL[1:])
    p_waves = mv([(0.4 + 0.7 * i, ((p_mv, 0.0, 0.022),)) for i in range(80)], 60)
    found = analyse([mv(rhythm(sinus, 71, 60), 60), p_waves], models=models)
    (pause_s, pause), (asystole_s, asystole), _ = found
    assert (pause.kind, asystole.kind) == ("pause", "asystole")
    assert pause_s - pause.onset_s <= 4.0
    assert asystole_s - pause.onset_s <= 10.0
    assert found[-1][1].end_s == pytest.approx(120, abs=0.1)


def test_escape_beats_end_an_asystole_and_are_a_severe_bradycardia_without_further_pauses(models: Models) -> None:
    escape = [(20.0 + 3.1 * i, VENTRICULAR) for i in range(12)]
    found = analyse([mv(SINUS, 60), mv(escape, 55)], models=models)
    kinds = [finding.kind for _, finding in found]
    assert kinds[:4] == ["pause", "asystole", "bradycardia", "asystole"]
    assert set(kinds[4:]) <= {"bradycardia", "v_run"}
    bradycardia = next(finding for _, finding in found if finding.kind == "bradycardia")
    assert bradycardia.measured["critical_bpm"] == 30
    assert bradycardia.measured["longest_s"] > 15
    asystole = [finding for _, finding in found if finding.kind == "asystole"]
    assert asystole[-1].end_s == pytest.approx(80.0, abs=0.1)


def test_a_regular_rhythm_of_20_per_minute_is_one_pause_and_one_bradycardia(models: Models) -> None:
    slow = [(60.5 + 3.05 * i, NORMAL) for i in range(40)]
    found = analyse([mv([*SINUS, *slow], 184)], models=models)
    assert {(finding.kind, finding.onset_s) for _, finding in found if finding.kind in ("pause", "asystole")} <= {
        ("pause", found[0][1].onset_s)
    }
    assert len({finding.onset_s for _, finding in found if finding.kind == "bradycardia"}) == 1


@pytest.mark.parametrize("gap_s", [0.6, 2.0, 30.0])
def test_asystole_after_a_gap_is_reported_within_10_s(gap_s: float, models: Models) -> None:
    found = analyse([mv(SINUS, 60), gap_s, mv([], 30)], models=models)
    assert [finding.kind for _, finding in found][:2] == ["pause", "asystole"]
    assert found[1][0] <= 60 + gap_s + 10


def test_asystole_after_lead_off_is_reported_within_10_s(models: Models) -> None:
    found = analyse([mv(SINUS, 60), np.zeros(int(20 * RATE_HZ)), mv([], 30)], models=models)
    assert [finding.kind for _, finding in found][:2] == ["pause", "asystole"]
    assert 79 <= found[0][1].onset_s <= 82
    assert found[1][0] <= 90.5


def test_no_beats_from_the_start_are_reported_within_20_s_and_again_after_a_minute(models: Models) -> None:
    found = analyse([mv([], 90)], models=models)
    assert [finding.kind for _, finding in found] == ["no_beats"] * 3
    assert found[0][0] <= 20
    assert found[1][0] <= 62
    assert found[1][1].measured["seconds"] >= 60


def test_the_ventricular_monitor_calls_no_beats_an_asystole_only_where_beats_are_known(all_models: Models) -> None:
    assert {finding.kind for _, finding in analyse([mv([], 40)], models=all_models)} == {"no_beats"}
    assert "asystole" in {finding.kind for _, finding in analyse([mv(SINUS, 60), mv([], 20)], models=all_models)}


def test_a_restarted_analysis_knows_beats_and_shapes_of_the_one_before(models: Models) -> None:
    first = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    assert analyse([mv(SINUS, 60)], first) == []
    saved = json.loads(json.dumps(first.state()))
    assert saved["since_beat_s"] < 2
    assert saved["qrs_height_mv"] == pytest.approx(1.15, abs=0.2)
    assert len(saved["conducted_mv"]) == 1
    for away_s, kind in ((30.0, "asystole"), (4000.0, "no_beats")):
        second = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models, saved=saved)
        second.add_time_away(away_s)
        found = analyse([mv([], 16)], second)
        assert found[-1][1].kind == kind
        assert second.state()["conducted_mv"] == saved["conducted_mv"]

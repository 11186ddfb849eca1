"""Alerts of recordings as the live agent would have sent them, and `pulsegate evaluate alerts` from the command line."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from evaluation.alerts import Playback
from evaluation.records import EvaluationError
from gateway.cli import main
from gateway.replay.alert_player import FoldModels, play_alerts, released_models
from models.inference.models import Models
from models.inference.release import RELEASE_DIR

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb

RATE_HZ = 250
WAVES = ((0.12, -0.17, 0.022), (-0.10, -0.028, 0.008), (1.15, 0.0, 0.0105), (-0.22, 0.030, 0.010), (0.28, 0.26, 0.045))
"""Waves of a beat: mV, seconds from the R peak, width in seconds."""
BEATS_S = np.concatenate((np.arange(0.5, 30), np.arange(34.5, 60)))
"""60/min with one pause of 5 s, from 29.5 to 34.5 s."""


def ecg(beats_s: np.ndarray, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(1).normal(0, 0.01, t.size)
    for at_s in beats_s:
        for height_mv, after_s, width_s in WAVES:
            mv += height_mv * np.exp(-(((t - at_s - after_s) / width_s) ** 2) / 2)
    return mv


def test_a_pause_is_raised_while_it_lasts_and_ends_at_the_next_beat() -> None:
    lines = play_alerts(Playback(ecg(BEATS_S, 60), RATE_HZ, DEFAULT_LIMITS, Models()))
    raised, ended = [line for line in lines if line.kind == "pause"]
    assert raised.id == ended.id
    assert (raised.priority, raised.end_s) == ("high", None)
    assert raised.onset_s == pytest.approx(29.5, abs=0.05)
    assert 32.5 <= raised.decided_s <= 34, "3 s after the last beat, plus the delay of the detector and a step of 1 s"
    assert ended.end_s == pytest.approx(34.5, abs=0.1)
    assert ended.decided_s >= 34.5


def test_missing_samples_are_a_lost_link() -> None:
    """No beat is expected where no signal was received."""
    mv = ecg(BEATS_S, 60)
    mv[round(29.8 * RATE_HZ) : round(34.3 * RATE_HZ)] = np.nan
    assert not play_alerts(Playback(mv, RATE_HZ, DEFAULT_LIMITS, Models()))


def test_a_stream_that_is_cut_off_decides_nothing_by_its_end() -> None:
    cut = ecg(BEATS_S, 33.5)
    live = play_alerts(Playback(cut, RATE_HZ, DEFAULT_LIMITS, Models(), ends=False))
    ended = play_alerts(Playback(cut, RATE_HZ, DEFAULT_LIMITS, Models()))
    assert all(line.end_s is None for line in live)
    assert ended[: len(live)] == live


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "vfdb"
    folder.mkdir()
    with warnings.catch_warnings(action="ignore"):
        signal = ecg(BEATS_S, 60)[:, None]
        wfdb.wrsamp("1", RATE_HZ, ["mV"], ["ECG"], signal, fmt=["16"], adc_gain=[200], baseline=[0], write_dir=str(folder))
        texts = ["(N", "(ASYS", "(N"]
        samples = np.array([0, round(29.5 * RATE_HZ), round(34.5 * RATE_HZ)])
        wfdb.wrann("1", "atr", samples, symbol=["+"] * 3, aux_note=texts, write_dir=str(folder))
    status = main(["evaluate", "alerts", "--data", str(tmp_path), "--json", "--strips", str(tmp_path / "strips")])
    report = json.loads(capsys.readouterr().out)
    assert status == 0
    assert report["kinds"]["asystole"]["found"] == report["kinds"]["asystole"]["episodes"] == 1
    assert report["kinds"]["pause"]["true"] == 1
    assert report["high_per_day"] == 0
    assert (report["task"], report["trained_on"], list(report["records"])) == ("alerts", [], ["vfdb/1"])
    assert list((tmp_path / "strips").iterdir()) == [], "no high alert lies outside"


def test_models_of_a_fold_take_the_place_of_the_released_ones(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text('{"a": ["cudb/cu01"], "b": ["cudb/cu05"]}')
    (tmp_path / "a").mkdir()
    shutil.copy(RELEASE_DIR / "ecg_qrs.onnx", tmp_path / "a" / "ecg_qrs.onnx")
    released, fold = released_models("cudb/cu01"), FoldModels(tmp_path)("cudb/cu01")
    assert fold.ecg_qrs is not released.ecg_qrs
    assert fold.ecg_beat is released.ecg_beat
    with pytest.raises(EvaluationError, match="holds no model"):
        FoldModels(tmp_path)("cudb/cu05")
    with pytest.raises(EvaluationError, match="holds out cudb/cu99"):
        FoldModels(tmp_path)("cudb/cu99")

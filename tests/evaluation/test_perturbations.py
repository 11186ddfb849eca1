"""Noise at a given SNR as defined by the Noise Stress Test Database; lost packets; other sampling rates."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.signal

from evaluation.noise import CHANNEL, KINDS, MIX, RATE_HZ, SNR_DB, add_noise, load_noise, noise_rms, qrs_amplitude
from evaluation.perturbations import DROPPED_PERCENT, PACKET_S, RATES_HZ, Ecg, find_noise, list_perturbations, lost_samples
from evaluation.records import EvaluationError
from evaluation.resampling import resampled
from training.ecg_augmentation import TRAINING_CHANNEL


@pytest.fixture(scope="module")
def noise(data: Path) -> dict[str, np.ndarray]:
    return load_noise(data / "noise")


def by_sigamp(samples: np.ndarray) -> float:
    """As in the manual of WFDB's `sigamp`: RMS about the mean of each second, mean of all but the lowest and highest 5 %."""
    levels = sorted(
        float(np.sqrt(np.mean((samples[at : at + 360] - samples[at : at + 360].mean()) ** 2)))
        for at in range(0, len(samples) - 359, 360)
    )
    cut = len(levels) // 20
    return float(np.mean(levels[cut : len(levels) - cut]))


def test_training_and_evaluation_use_different_noise(data: Path, noise: dict[str, np.ndarray]) -> None:
    assert CHANNEL != TRAINING_CHANNEL
    for kind in KINDS:
        stored = scipy.io.loadmat(data / "noise" / f"{kind}.mat")[kind]
        assert np.corrcoef(np.diff(stored[:, 1 + CHANNEL]), np.diff(noise[kind]))[0, 1] > 0.999


@pytest.mark.parametrize("kind", [*KINDS, MIX])
@pytest.mark.parametrize("snr_db", [24, 0, -6])
def test_the_snr_is_that_of_nst(kind: str, snr_db: int, noise: dict[str, np.ndarray]) -> None:
    """nst.c: noise RMS = peak-to-peak amplitude × 10^(-SNR / 20) × √2 / 4."""
    added = add_noise(np.zeros(30 * 360), 360.0, noise, kind, snr_db, 1.6, "a")
    assert by_sigamp(added) == pytest.approx(1.6 * 10 ** (-snr_db / 20) * 2**0.5 / 4, rel=0.05)


def test_amplitude_of_qrs_complexes_by_hand() -> None:
    mv = np.zeros(3600)
    mv[[720, 1440, 2160]] = 1.0
    mv[[725, 1445, 2165]] = -0.5
    assert qrs_amplitude(mv, 360.0, np.array([2.0, 4.0, 6.0])) == pytest.approx(1.5)
    assert np.isnan(qrs_amplitude(mv, 360.0, np.empty(0)))
    assert np.isnan(qrs_amplitude(np.full(3600, np.nan), 360.0, np.array([2.0])))


def test_noise_lasts_throughout_and_repeats_without_a_step(noise: dict[str, np.ndarray]) -> None:
    added = add_noise(np.zeros(90 * 360), 360.0, noise, "BW", 6, 1.0, "a")
    steps = np.abs(np.diff(added))
    assert steps.max() == steps[: 31 * 360].max()
    assert all(noise_rms(part, 360.0) > 0 for part in np.split(added, 9))


def test_the_start_of_the_noise_depends_only_on_the_name_of_the_record(noise: dict[str, np.ndarray]) -> None:
    one, again, other = (add_noise(np.zeros(720), 360.0, noise, "EM", 6, 1.0, name) for name in ("a", "a", "b"))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_missing_samples_stay_missing(noise: dict[str, np.ndarray]) -> None:
    mv = np.where(np.arange(720) % 100 < 10, np.nan, 0.0)
    assert np.array_equal(np.isnan(add_noise(mv, 360.0, noise, "MA", 6, 1.0, "a")), np.isnan(mv))


@pytest.mark.parametrize("rate_hz", [128.0, 130.0, 300.0, 500.0])
def test_noise_keeps_its_power_at_other_rates(rate_hz: float, noise: dict[str, np.ndarray]) -> None:
    added = add_noise(np.zeros(round(60 * rate_hz)), rate_hz, noise, "EM", 0, 8**0.5, "a")
    assert noise_rms(added, rate_hz) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("percent", DROPPED_PERCENT)
def test_drops_the_given_share_of_whole_packets(percent: int) -> None:
    lost = lost_samples(360 * 1800, 360.0, percent / 100, "a")
    assert lost.mean() == pytest.approx(percent / 100, abs=0.002)
    edges = np.flatnonzero(np.diff(lost.astype(int))) + 1
    assert (edges % round(PACKET_S * 360) == 0).all()


@pytest.mark.parametrize("to_hz", RATES_HZ)
def test_resampling_keeps_waveform_and_time(to_hz: int) -> None:
    wave = np.sin(2 * np.pi * 7 * np.arange(3600) / 360 + 0.4)
    wave[1000:1100] = np.nan
    out = resampled(wave, 360.0, to_hz)
    t = np.arange(out.size) / to_hz
    expected = np.sin(2 * np.pi * 7 * t + 0.4)
    inner = (t > 0.3) & (t < 9.7) & ((t < 2.5) | (t > 3.4))
    np.testing.assert_allclose(out[inner], expected[inner], atol=0.01)
    assert np.isnan(out[(t > 2.8) & (t < 3.05)]).all()
    assert np.isfinite(out[(t < 2.77) | (t > 3.06)]).all()


def test_lists_every_perturbation_once(data: Path) -> None:
    every = list_perturbations(data / "noise", drop=True, fs=True)
    assert len({step.path for step in every}) == len(every) == 1 + 4 * len(SNR_DB) + len(DROPPED_PERCENT) + len(RATES_HZ)
    ecg = Ecg("a", np.random.default_rng(1).normal(0, 1, 3600), 360.0, 1.0)
    for step in every:
        changed = step.change(ecg)
        assert changed.mv.size == pytest.approx(changed.rate_hz * 10, abs=1)
        assert (step.path == ()) == (changed is ecg)


def test_finds_the_noise_in_and_beside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "BW.mat").touch()
    (tmp_path / "mitdb").mkdir()
    assert find_noise(tmp_path) == find_noise(tmp_path / "mitdb") == find_noise(tmp_path / "noise") == tmp_path / "noise"
    with pytest.raises(EvaluationError, match="noise/BW"):
        find_noise(tmp_path / "mitdb" / "x")


def test_damaged_noise_gives_an_error(tmp_path: Path) -> None:
    for kind in KINDS:
        scipy.io.savemat(tmp_path / f"{kind}.mat", {kind: np.zeros((5, 5))})
    with pytest.raises(EvaluationError, match="cannot read the noise"):
        list_perturbations(tmp_path, drop=False, fs=False)
    (tmp_path / "BW.mat").write_bytes(b"no")
    with pytest.raises(EvaluationError, match="cannot read the noise"):
        list_perturbations(tmp_path, drop=False, fs=False)


def test_without_scipy_the_error_says_what_to_install(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(EvaluationError, match="--noise and --fs need scipy"):
        list_perturbations(data / "noise", drop=False, fs=False)


def test_the_noise_records_are_at_360_hz(noise: dict[str, np.ndarray]) -> None:
    assert all(wave.size == 30 * RATE_HZ for wave in noise.values())

"""Labels of `ecg_quality` by the artefacts added to a stretch, and its evaluation figures."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from captures.annotations import read_annotations
from models.inference.ecg_quality import BAD, BEATS_ONLY, GOOD, WINDOW_SAMPLES
from models.signal.resample import RATE_HZ
from training.ecg_augmentation import EcgAugmenter
from training.quality_data import (
    AugmentedStretch,
    Stretch,
    Windows,
    assign_folds,
    augmented_windows,
    beat_correlations,
    label_windows,
    mitdb_stretches,
    stack_windows,
)
from training.quality_evaluation import agreement_figures, auc, load_expert_notes, noise_figures, read_quality_notes

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 uses what pandas 3 deprecates
    import wfdb

LENGTH = 3 * WINDOW_SAMPLES


def synthetic_ecg(seed: int = 1) -> Stretch:
    """Return 30 s of P, QRS and T waves as Gaussians, 75 times a minute, with a little noise."""
    t_s = np.arange(LENGTH) / RATE_HZ
    beat_s = np.arange(0.5, 30, 0.8)
    mv = np.random.default_rng(seed).normal(0, 0.005, LENGTH)
    for at_s, height, width_s in ((-0.16, 0.12, 0.02), (0.0, 1.0, 0.012), (0.03, -0.2, 0.012), (0.25, 0.25, 0.04)):
        mv += height * np.exp(-0.5 * ((t_s[:, None] - beat_s - at_s) / width_s) ** 2).sum(-1)
    return Stretch("mitdb/synthetic", mv, beat_s)


def augmented_stretch(mv: NDArray[np.float64], off: NDArray[np.bool_] | None = None) -> AugmentedStretch:
    never_off = np.zeros(LENGTH, np.bool_)
    return AugmentedStretch(mv, never_off if off is None else off, np.full(LENGTH, np.nan), "by hand")


def window_labels(result: AugmentedStretch) -> list[int]:
    return [window.label for window in label_windows(synthetic_ecg(), result)]


class TestLabels:
    def test_a_clean_stretch_is_good(self) -> None:
        assert window_labels(augmented_stretch(synthetic_ecg().mv)) == [GOOD] * 3

    def test_beats_hidden_by_noise_are_bad(self) -> None:
        noise = np.random.default_rng(2).normal(0, 1.0, LENGTH)
        assert window_labels(augmented_stretch(noise)) == [BAD] * 3

    def test_noise_in_one_window_affects_only_that_one(self) -> None:
        """After noise of 1.5 mV the detector may need five seconds to find beats of 1 mV again; after 0.7 mV it does not."""
        mv = synthetic_ecg().mv
        mv[WINDOW_SAMPLES : 2 * WINDOW_SAMPLES] += np.random.default_rng(2).normal(0, 0.7, WINDOW_SAMPLES)
        assert window_labels(augmented_stretch(mv)) == [GOOD, BAD, GOOD]

    def test_slow_artefacts_leave_only_the_beats_usable(self) -> None:
        slow = 0.3 * np.sin(2 * np.pi * 2.3 * np.arange(LENGTH) / RATE_HZ)
        assert window_labels(augmented_stretch(synthetic_ecg().mv + slow)) == [BEATS_ONLY] * 3

    def test_a_lost_packet_is_tolerated(self) -> None:
        mv = synthetic_ecg().mv
        mv[300:370] = np.nan
        assert window_labels(augmented_stretch(mv)) == [GOOD] * 3

    def test_half_of_the_samples_are_needed(self) -> None:
        mv = synthetic_ecg().mv
        mv[: WINDOW_SAMPLES // 2 + 1] = np.nan
        assert window_labels(augmented_stretch(mv)) == [BAD, GOOD, GOOD]

    def test_an_electrode_off_for_a_fifth_of_the_time_is_bad(self) -> None:
        off = np.zeros(LENGTH, np.bool_)
        off[WINDOW_SAMPLES : WINDOW_SAMPLES + WINDOW_SAMPLES // 5] = True
        assert window_labels(augmented_stretch(synthetic_ecg().mv, off)) == [GOOD, BAD, GOOD]

    def test_a_missing_signal_is_bad(self) -> None:
        assert window_labels(augmented_stretch(np.full(LENGTH, np.nan))) == [BAD] * 3


class TestCorrelation:
    def test_gain_and_offset_do_not_matter(self) -> None:
        stretch = synthetic_ecg()
        intact_share = beat_correlations(stretch.mv, 3 * stretch.mv + 7, stretch.beat_s)
        np.testing.assert_allclose(intact_share, 1.0)

    def test_matches_numpy(self) -> None:
        random = np.random.default_rng(1)
        one, other = random.normal(0, 1, (2, 200))
        at = 100
        part = slice(at - round(0.25 * RATE_HZ), at + round(0.45 * RATE_HZ))
        expected = np.corrcoef(one[part], other[part])[0, 1]
        assert beat_correlations(one, other, np.array([at / RATE_HZ]))[0] == pytest.approx(expected)

    def test_a_beat_in_a_gap_has_no_correlation(self) -> None:
        stretch = synthetic_ecg()
        broken = stretch.mv.copy()
        broken[300:330] = np.nan
        lost = (stretch.beat_s > 2.1) & (stretch.beat_s < 2.7)
        assert np.isnan(beat_correlations(stretch.mv, broken, stretch.beat_s)[lost]).all()


@pytest.fixture(scope="module")
def stretches(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Stretch]:
    """Stretches of a single record, for speed."""
    folder = tmp_path_factory.mktemp("data") / "mitdb"
    folder.mkdir()
    for file in (data / "mitdb").glob("122.*"):
        (folder / file.name).symlink_to(file)
    return list(mitdb_stretches(folder.parent))


class TestStretches:
    def test_all_stretches_of_a_clean_record_are_used(self, stretches: list[Stretch], data: Path) -> None:
        assert len(stretches) == 60
        assert all(stretch.mv.size == LENGTH and np.isfinite(stretch.mv).all() for stretch in stretches)
        beats = read_annotations(data / "mitdb" / "122.atr").beats()
        assert sum(stretch.beat_s.size for stretch in stretches) == np.sum(beats < 1800 * 360)

    def test_more_noise_gives_worse_labels(self, stretches: list[Stretch], data: Path) -> None:
        shares = []
        for snr_db in (24.0, 6.0, -6.0):
            random = np.random.default_rng(1)
            augmenter = EcgAugmenter(data, random)
            windows = stack_windows(
                w for stretch in stretches[:6] for w in augmented_windows(stretch, augmenter, random, snr_db)
            )
            shares.append(np.bincount(windows.labels, minlength=3) / len(windows.labels))
        assert shares[0][GOOD] > 0.9
        assert shares[1][BEATS_ONLY] + shares[1][BAD] > 0.8
        assert shares[2][BAD] > 0.7

    def test_the_same_seed_draws_the_same_windows(self, stretches: list[Stretch], data: Path) -> None:
        def make_windows() -> Windows:
            random = np.random.default_rng(7)
            augmenter = EcgAugmenter(data, random)
            return stack_windows(w for stretch in stretches[:5] for w in augmented_windows(stretch, augmenter, random))

        one, other = make_windows(), make_windows()
        assert np.array_equal(one.mv, other.mv, equal_nan=True)
        assert np.array_equal(one.labels, other.labels)


def test_no_patient_is_in_two_folds() -> None:
    patients = np.array([f"{base}/{name}" for base in ("mitdb", "cinc2017") for name in range(20) for _ in range(3)])
    fold = assign_folds(patients)
    assert all(len(set(fold[patients == name])) == 1 for name in patients)
    assert np.bincount(fold).tolist() == [24] * 5


class TestFigures:
    def windows(self) -> Windows:
        count = 8
        return Windows(
            np.zeros((count, WINDOW_SAMPLES), np.float32),
            np.array([0, 0, 0, 0, 1, 1, 2, 2]),
            np.ones(count, np.float32),
            np.array(["a", "a", "b", "b"] * 2),
            np.zeros(count, np.float32),
            np.array(["noise"] * count),
            np.array([1, 1, 1, 1, 1, 1, 0.5, 0.5], np.float32),
            np.ones(count, np.float32),
        )

    def test_agreement_matches_a_manual_count(self) -> None:
        called = np.array([0, 0, 0, 1, 1, 1, 2, 0])
        figures = agreement_figures(self.windows(), np.eye(3)[called])["agreement"]
        assert figures["accuracy"]["value"] == pytest.approx(75)
        assert figures["f1_good"]["value"] == pytest.approx(75)
        assert figures["f1_beats_only"]["value"] == pytest.approx(80)
        assert figures["f1_bad"]["value"] == pytest.approx(200 / 3)
        assert figures["bad_se"]["value"] == pytest.approx(50)
        assert figures["bad_ppv"]["value"] == pytest.approx(100)
        assert figures["ece"]["value"] == pytest.approx(0.25)

    def test_noise_figures_match_a_manual_count(self) -> None:
        row = noise_figures(self.windows(), np.eye(3)[np.array([0, 0, 0, 0, 1, 1, 2, 2])])
        assert (row["good"], row["beats_only"], row["bad"], row["accuracy"]) == (50, 25, 25, 100)
        assert row["beat_f1"] == pytest.approx(87.5)
        assert row["beat_f1_where_not_bad"] == pytest.approx(100)

    def test_auc_matches_scipy(self) -> None:
        random = np.random.default_rng(1)
        one, other = random.integers(0, 9, 40) / 1.0, random.integers(2, 12, 60) / 1.0
        assert auc(one, other) == pytest.approx(mannwhitneyu(one, other).statistic / (40 * 60))

    @pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb 4.3 uses what pandas 3 deprecates
    @pytest.mark.parametrize("record", ["104", "203", "208"])
    def test_quality_notes_match_wfdb(self, data: Path, record: str) -> None:
        path = data / "mitdb" / f"{record}.atr"
        annotation: Any = wfdb.rdann(str(path.with_suffix("")), "atr")
        expected = [
            (int(tick), bool(int(kind) & 1))
            for tick, symbol, kind in zip(annotation.sample, annotation.symbol, annotation.subtype, strict=True)
            if symbol == "~"
        ]
        assert list(read_quality_notes(path.read_bytes())) == expected

    def test_expert_notes_cover_a_record(self, data: Path) -> None:
        mv, noisy, clean = load_expert_notes(data / "mitdb" / "122.hea")
        assert mv.shape == (180, WINDOW_SAMPLES)
        assert not noisy.any()
        assert clean.all()

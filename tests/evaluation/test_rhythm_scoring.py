"""The Challenge's score, coverage and calibration by hand; invalid references; perturbations."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from evaluation.perturbations import Perturbation, list_perturbations
from evaluation.records import EvaluationError
from evaluation.rhythm import LABELS, challenge_records, evaluate_rhythm, figures

SILENT = Progress(disable=True)
SAMPLE = "cinc2017-sample"


def probabilities(*called: str, p: float = 0.97) -> np.ndarray:
    """Probabilities whose most probable classes are these."""
    return np.array([[p if label == one else (1 - p) / 3 for label in LABELS] for one in called])


def test_f1_by_the_rules_of_the_challenge() -> None:
    """Clifford et al. 2017, table 2: F1n = 2 Nn / (ΣN + Σn) and so on; the score is the mean of N, A and O."""
    truth = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    report = figures(probabilities("N", "N", "A", "A", "O", "O", "N", "~"), truth)
    assert report["f1"] == {"N": 66.67, "A": 50.0, "O": 50.0, "~": 100.0}
    assert report["f1_mean"] == pytest.approx(100 * (2 / 3 + 0.5 + 0.5) / 3, abs=0.005)
    assert report["confusion"]["N"] == {"N": 2, "A": 1, "O": 0, "~": 0}
    assert report["accuracy"] == 62.5


def test_a_class_that_does_not_occur_does_not_count() -> None:
    report = figures(probabilities("N", "O"), np.array([0, 2]))
    assert report["f1"] == {"N": 100.0, "A": None, "O": 100.0, "~": None}
    assert report["f1_mean"] == 100.0


def test_coverage_keeps_the_most_confident() -> None:
    wrong = probabilities("A", p=0.4)
    report = figures(np.concatenate((np.tile(probabilities("N", "A", "O"), (3, 1)), wrong)), np.array([0, 1, 2] * 3 + [0]))
    by_fraction = {point["fraction"]: point["f1_mean"] for point in report["coverage"]}
    assert list(by_fraction) == [1.0, 0.95, 0.9, 0.8, 0.7]
    assert by_fraction[1.0] == report["f1_mean"] < 100
    assert by_fraction[0.9] == by_fraction[0.7] == 100


def test_calibration_is_of_the_most_probable_class() -> None:
    report = figures(probabilities(*"NNNNN", p=0.8), np.array([0, 0, 0, 0, 1]))
    assert report["ece"] == pytest.approx(0, abs=1e-9)
    assert figures(probabilities(*"NNNN", p=0.8), np.array([0, 0, 1, 1]))["ece"] == pytest.approx(0.3, abs=1e-4)


def linked(tmp_path: Path, data: Path, names: list[str]) -> Path:
    for name in names:
        for suffix in (".hea", ".mat"):
            (tmp_path / f"{name}{suffix}").symlink_to(data / SAMPLE / f"{name}{suffix}")
    return tmp_path


def test_finds_the_sample_from_the_data_folder_and_from_its_own_folder(data: Path) -> None:
    with challenge_records(data / SAMPLE) as direct, challenge_records(data) as found:
        assert direct == found
        assert len(found) == 48
        assert not any(isinstance(record, str) for record in found.values())


def test_leaves_out_invalid_records_and_names_them(data: Path, tmp_path: Path) -> None:
    folder = linked(tmp_path, data, ["A00178", "A00321", "A00564"])
    (folder / "REFERENCE.csv").write_bytes("\ufeffA00178,N\r\nA00321,X\r\nA99999,A\r\nA00564\r\n\r\nB1,N\r\n".encode())
    (folder / "B1.hea").write_text("nonsense")
    report = evaluate_rhythm(folder, lambda mv, rate_hz: probabilities("N")[0], SILENT)
    assert list(report["records"]) == ["A00178"]
    assert set(report["skipped"]) == {"A00321", "A99999", "A00564", "B1"}
    assert "'X'" in report["skipped"]["A00321"]


def test_fails_when_the_model_returns_no_probabilities(data: Path, tmp_path: Path) -> None:
    folder = linked(tmp_path, data, ["A00178"])
    (folder / "REFERENCE.csv").write_text("A00178,N\n")
    with pytest.raises(EvaluationError, match="A00178"):
        evaluate_rhythm(folder, lambda mv, rate_hz: np.full(4, np.nan), SILENT)


def test_without_a_reference_the_error_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no REFERENCE"):
        evaluate_rhythm(tmp_path, lambda mv, rate_hz: probabilities("N")[0], SILENT)


def test_an_archive_is_unpacked_and_removed_afterwards(data: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cinc2017-dev.tar.xz", "w:xz") as packed:
        for name in ("A00178.hea", "A00178.mat", "REFERENCE.csv"):
            packed.add(data / SAMPLE / name, f"cinc2017/{name}")
    with challenge_records(tmp_path) as found:
        header = found["A00178"].header
        assert header.exists()
    assert not header.exists()


def test_the_error_names_a_damaged_archive(tmp_path: Path) -> None:
    (tmp_path / "cinc2017-dev.tar.xz").write_bytes(b"no archive")
    with pytest.raises(EvaluationError, match="cinc2017-dev"):
        evaluate_rhythm(tmp_path, lambda mv, rate_hz: probabilities("N")[0], SILENT)


def test_perturbations_state_the_change(data: Path, tmp_path: Path) -> None:
    """A classifier that calls every recording with gaps noise: with every tenth packet lost, it calls all of them noise."""
    folder = linked(tmp_path, data, ["A00178", "A00321"])
    (folder / "REFERENCE.csv").write_text("A00178,N\nA00321,N\n")
    steps: list[Perturbation] = list_perturbations(None, drop=True, fs=True)
    report = evaluate_rhythm(folder, lambda mv, rate_hz: probabilities("~" if np.isnan(mv).any() else "N")[0], SILENT, steps)
    assert report["f1_mean"] == 100
    assert report["drop"]["10"]["f1_mean"] == 0
    assert report["drop"]["10"]["f1_mean_change"] == -100
    assert report["fs"]["128"]["f1_mean_change"] == 0

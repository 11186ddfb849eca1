"""The confusion matrix of beat classes and its rates: by hand, by the rules of EC57, and against a second implementation."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress

from evaluation.beats import EXTRA, MISSED, confusion, evaluate_beats, figures, score_record, total
from evaluation.detection import is_received
from evaluation.ec57 import Reference, load_reference
from evaluation.perturbations import list_perturbations
from evaluation.records import EvaluationError, load_annotated, rate_intervals

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb
    import wfdb.processing

SILENT = Progress(disable=True)

cells = st.dictionaries(
    st.tuples(st.sampled_from(["N", "S", "V", "F", "Q", EXTRA]), st.sampled_from(["N", "S", "V", "F", "Q", MISSED])).filter(
        lambda cell: cell != (EXTRA, MISSED)
    ),
    st.integers(0, 1000),
)


def record(labels: str) -> Reference:
    """One beat a second from 301 s on."""
    return Reference(301.0 + np.arange(len(labels)), tuple(labels))


def test_confusion_matrix_by_hand() -> None:
    called = (np.array([301.02, 302.0, 303.0, 304.1, 306.0, 306.5]), list("NNVV?S"))
    counted = confusion(record("NSVFNN"), called)
    assert counted == Counter({
        ("N", "N"): 1, ("S", "N"): 1, ("V", "V"): 1, ("F", "V"): 1, ("N", MISSED): 1, ("N", "Q"): 1, (EXTRA, "S"): 1
    })  # fmt: skip
    rates = figures(counted)
    assert (rates["V"]["se"], rates["V"]["ppv"]) == (100, 100)  # a fusion beat called V is not a false V
    assert (rates["plain"]["V"]["se"], rates["plain"]["V"]["ppv"]) == (100, 50)
    assert (rates["S"]["se"], rates["S"]["ppv"]) == (0, 0)
    assert (rates["F"]["se"], rates["F"]["ppv"]) == (0, None)
    assert rates["confusion"]["N"] == {"N": 1, "S": 0, "V": 0, "F": 0, "Q": 1, "missed": 1}
    assert rates["confusion"]["extra"]["S"] == 1


@given(cells)
def test_rates_follow_the_formulas_of_bxb(counts: dict[tuple[str, str], int]) -> None:
    """Formulas at the end of the manual of bxb.

    VFP = Nv + Sv + Ov + Xv, VFN = Vn + Vs + Vf + Vq + Vo + Vx; SFP = Ns + Vs + Fs + Os + Xs, SFN likewise.
    """
    counted = Counter(counts)
    rates = figures(counted)
    for name, false_at in (("V", ("N", "S", EXTRA)), ("S", ("N", "V", "F", EXTRA))):
        assert rates[name]["tp"] == counted[name, name]
        assert rates[name]["fp"] == sum(counted[truth, name] for truth in false_at)
        assert rates[name]["fn"] == sum(counted[name, label] for label in ("N", "S", "V", "F", "Q", MISSED) if label != name)


@given(cells)
def test_the_matrix_holds_every_beat(counts: dict[tuple[str, str], int]) -> None:
    rates = figures(Counter(counts))
    assert sum(sum(row.values()) for row in rates["confusion"].values()) == sum(counts.values())
    plain = rates["plain"]
    for name in "NSVF":
        assert plain[name]["tp"] + plain[name]["fp"] == sum(row[name] for row in rates["confusion"].values())
        assert rates[name]["fp"] <= plain[name]["fp"]


@pytest.mark.parametrize("name", ["203", "208", "223"])
def test_the_matrix_agrees_with_a_second_implementation(name: str, data: Path, detected: Callable[[str], np.ndarray]) -> None:
    """The labels are random. WFDB reads and pairs the annotations; its window excludes its end."""
    times_s = detected(name)
    labels = np.random.default_rng(3).choice(list("NSVF"), times_s.size).tolist()
    with warnings.catch_warnings(action="ignore"):
        noted = wfdb.rdann(str(data / "mitdb" / name), "atr", sampto=600 * 360 - 1)
    classes = {**dict.fromkeys("NLRej", "N"), **dict.fromkeys("AaJS", "S"), "V": "V", "E": "V", "F": "F", "Q": "Q"}
    beats = [place for place, symbol in enumerate(noted.symbol) if symbol in classes]
    found = np.round(times_s * 360).astype(int)
    partner = wfdb.processing.compare_annotations(noted.sample[beats], found, 55).matching_sample_nums.tolist()
    expected: Counter[tuple[str, str]] = Counter()
    for place, other in zip(beats, partner, strict=True):
        if noted.sample[place] >= 300 * 360:
            expected[classes[noted.symbol[place]], labels[other] if other >= 0 else MISSED] += 1
    for other in set(np.flatnonzero(found >= 300 * 360).tolist()) - set(partner):
        expected[EXTRA, labels[other]] += 1
    truth = load_reference(data / "mitdb" / f"{name}.atr", 360.0).until(600.0)
    assert confusion(truth, (times_s, labels)) == expected


def test_the_annotations_score_100_percent_against_themselves(data: Path) -> None:
    truth = load_reference(data / "mitdb" / "208.atr", 360.0)
    rates = figures(confusion(truth, (truth.times_s, truth.labels)))
    assert all((rates[name]["se"], rates[name]["ppv"]) == (100, 100) for name in "NSVF")


def test_counts_add_up_over_records(data: Path) -> None:
    parts = [confusion(record("NSV"), (np.array([301.0, 303.0]), ["N", label])) for label in "NV"]
    assert total(parts)["V", "V"] == 1
    assert total(parts)["S", MISSED] == 2


def test_leaves_out_paced_and_damaged_records_and_names_them(data: Path, tmp_path: Path) -> None:
    for name in ("101", "102"):
        for suffix in (".hea", ".dat", ".atr"):
            (tmp_path / f"{name}{suffix}").symlink_to(data / "mitdb" / f"{name}{suffix}")
    (tmp_path / "900.hea").write_text("900 1 360 10\n900.dat 16 200 16 0 0 0 0 MLII\n")
    report = evaluate_beats(tmp_path, lambda mv, rate_hz: (np.arange(300.0, 1805.0), ["N"] * 1505), SILENT)
    assert report["paced"] == ["102"]
    assert set(report["skipped"]) == {"900"}
    assert set(report["records"]) == {"101"}
    assert report["V"] == {"se": None, "ppv": None, "f1": None, "tp": 0, "fn": 0, "fp": 0}
    assert sum(report["confusion"]["S"].values()) == 3  # as Moody & Mark 2001 list for 101


def test_intervals_come_from_drawing_records_with_replacement() -> None:
    """Of a perfect record and one without a hit, a draw contains each record zero, one or two times."""
    assert rate_intervals([(10, 0, 0), (0, 0, 10)])["se"] == [0, 100]
    assert rate_intervals([(9, 1, 0)] * 5) == {"se": [100, 100], "ppv": [90, 90], "f1": [94.74, 94.74]}
    assert rate_intervals([(9, 1, 0)]) == {"se": None, "ppv": None, "f1": None}
    assert rate_intervals([(0, 0, 0)] * 3)["se"] is None


def test_a_folder_with_only_paced_records_is_an_error(data: Path, tmp_path: Path) -> None:
    for suffix in (".hea", ".dat", ".atr"):
        (tmp_path / f"102{suffix}").symlink_to(data / "mitdb" / f"102{suffix}")
    with pytest.raises(EvaluationError, match="paced"):
        evaluate_beats(tmp_path, lambda mv, rate_hz: (np.empty(0), []), SILENT)


def test_beats_in_lost_packets_count_only_in_with_lost_beats(data: Path) -> None:
    """A labeller that knows the received beats scores 100 % on these, and less when lost beats count as missed."""
    truth = load_reference(data / "mitdb" / "119.atr", 360.0)
    lost = next(step for step in list_perturbations(None, drop=True, fs=False) if step.path == ("drop", "10"))

    def label(mv: np.ndarray, rate_hz: float) -> tuple[np.ndarray, list[str]]:
        known = is_received(truth.times_s, mv, rate_hz)
        return truth.times_s[known], [name for name, kept in zip(truth.labels, known, strict=True) if kept]

    counted = score_record(load_annotated(data / "mitdb" / "119.hea"), lost, label)
    everything, known = figures(counted.every_beat), figures(counted.received)
    assert known["V"]["se"] == known["V"]["ppv"] == everything["V"]["ppv"] == 100
    assert 75 < everything["V"]["se"] < 95

"""Which evaluated records the cards of the released models name as training data."""

import json
from pathlib import Path

import pytest

from evaluation.training_data import EvaluatedRecord, describe_trained_on, find_trained_on, read_card, record_in
from gateway.cli import main

DS1 = "101 106 108 109 112 114 115 116 118 119 122 124 201 203 205 207 208 209 215 220 223 230".split()  # noqa: SIM905  as in the paper
"""Training records of de Chazal, O'Dwyer & Reilly 2004."""


def records_of(database: str, *names: str) -> list[EvaluatedRecord]:
    return [EvaluatedRecord(name, (database, "data")) for name in names]


def trained_on(capsys: pytest.CaptureFixture[str], task: str, data: Path) -> list[str]:
    assert main(["evaluate", task, "--data", str(data), "--json"]) == 0
    found: list[str] = json.loads(capsys.readouterr().out)["trained_on"]
    return found


def link(folder: Path, header: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file in header.parent.glob(f"{header.stem}.*"):
        (folder / file.name).symlink_to(file)


def test_the_beat_classifier_was_trained_on_ds1_of_mitdb() -> None:
    models = ("ecg_beat", "ecg_rhythm", "ecg_qrs")
    assert find_trained_on(models, records_of("mitdb", *DS1)) == [f"mitdb/{name}" for name in DS1]
    assert find_trained_on(models, records_of("mitdb", "100", "103", "234")) == []


def test_a_database_used_only_for_figures_is_not_training_data() -> None:
    assert find_trained_on(["ecg_qrs"], records_of("mitdb", *DS1)) == []


def test_a_database_that_the_card_rules_out_is_not_training_data() -> None:
    assert find_trained_on(["rr_af"], records_of("ltafdb", "00", "112", "201")) == []
    assert find_trained_on(["rr_af"], records_of("afdb", "04015", "99999")) == ["afdb/04015"]


def test_a_database_without_named_records_counts_as_a_whole() -> None:
    assert find_trained_on(["ecg_qrs"], records_of("cinc2017-sample", "A00001", "A00002")) == ["cinc2017"]


def test_records_that_no_fold_names_are_not_training_data() -> None:
    card = {
        "data": {"used_for_training": ["mitdb"], "mitdb": "ODC-By 1.0"},
        "splits": {"how": "2 folds by patient", "folds": {"fold 0": "101 106", "fold 1": "108"}},
    }
    known = read_card(card)
    assert known.records == {"101", "106", "108"}
    assert known.find(EvaluatedRecord("108", ("mitdb",))) == "mitdb/108"
    assert known.find(EvaluatedRecord("100", ("mitdb",))) is None


def test_a_folder_of_any_other_name_is_searched_by_record_name() -> None:
    assert find_trained_on(["ecg_beat"], records_of("copies", "101", "100")) == ["mitdb/101"]
    assert find_trained_on(["rr_af"], records_of("copies", "04015")) == ["afdb/04015"]
    assert find_trained_on(["ppg_quality"], [EvaluatedRecord("bidmc_01"), EvaluatedRecord("subject_01")]) == [
        "bidmc/bidmc_01",
        "welltory-ppg/subject_01",
    ]


def test_other_databases_are_not_training_data() -> None:
    for folder, name in (("svdb", "800"), ("vfdb", "418"), ("cudb", "cu01"), ("nsrdb-2h", "16265")):
        assert find_trained_on(["ecg_beat", "ecg_rhythm", "ecg_qrs"], records_of(folder, name)) == []


def test_record_in_keeps_the_names_of_the_folders() -> None:
    assert record_in(Path("/data/mitdb/101.hea")) == EvaluatedRecord("101", ("mitdb", "data"))


def test_the_sentence_names_at_most_twelve_records() -> None:
    assert describe_trained_on([]) == "The cards of the evaluated models name none of these records as training data."
    text = describe_trained_on([f"mitdb/{name}" for name in DS1])
    assert text.startswith("The evaluated models were trained on mitdb/101, mitdb/106,")
    assert "mitdb/124 and 10 more. Figures on training data are better than on new patients." in text


def test_evaluate_beats_names_the_training_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half a minute after the learning period of one training record."""
    link(tmp_path / "mitdb", data / "mitdb" / "101.hea")
    header = tmp_path / "mitdb" / "101.hea"
    text = header.read_text().replace(" 650000", f" {330 * 360}", 1)
    header.unlink()
    header.write_text(text)
    assert trained_on(capsys, "beats", tmp_path) == ["mitdb/101"]
    assert trained_on(capsys, "qrs", tmp_path) == []
    assert main(["evaluate", "beats", "--data", str(tmp_path)]) == 0
    assert "The evaluated models were trained on mitdb/101." in " ".join(capsys.readouterr().out.split())


def test_evaluate_rhythm_and_rr_af_name_the_training_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link(tmp_path / "cinc2017-two", data / "cinc2017-sample" / "A00178.hea")
    (tmp_path / "cinc2017-two" / "REFERENCE.csv").write_text("A00178,N\n")
    assert trained_on(capsys, "rhythm", tmp_path) == ["cinc2017/A00178"]
    for database, name in (("afdb", "04048"), ("ltafdb", "112")):
        link(tmp_path / database, data / database / f"{name}.qrs")
    assert trained_on(capsys, "rr-af", tmp_path) == ["afdb/04048"]


def test_evaluate_pulse_names_the_training_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("subject_01", "subject_99"):
        (tmp_path / name).mkdir()
        for file in ("PPG.csv", "RR.txt"):
            (tmp_path / name / file).symlink_to(data / "welltory-ppg" / "subject_01" / file)
    assert trained_on(capsys, "pulse", tmp_path) == ["welltory-ppg/subject_01"]

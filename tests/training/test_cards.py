"""A card has every section in order, and the same content as JSON and as a page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.cards import LICENCES, NOT_A_DEVICE, SECTIONS, CardError, markdown, round_numbers, write_card


def card() -> dict[str, Any]:
    sections: dict[str, Any] = dict.fromkeys(reversed(SECTIONS), "nothing")
    return sections | {
        "name": "example",
        "version": "1",
        "not_a_medical_device": NOT_A_DEVICE,
        "figures": {"f1": {"value": 0.123456, "low": np.float32(0.1), "high": float("nan")}},
        "per_record": {"101": {"se": 99.5, "ppv": 98.0}, "106": {"se": None, "ppv": 97}},
        "known_failures": ["flutter", "paced beats"],
    }


def test_both_files_contain_every_section_in_order(tmp_path: Path) -> None:
    write_card(tmp_path, card())
    stored = json.loads((tmp_path / "example.json").read_text())
    assert tuple(stored) == SECTIONS
    page = (tmp_path / "example.md").read_text()
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert titles == [section.replace("_", " ").capitalize() for section in SECTIONS[2:]]
    assert page.startswith("# example 1\n")
    assert "Not a medical device." in page


def test_rounds_numbers_to_four_significant_digits_and_writes_valid_json(tmp_path: Path) -> None:
    write_card(tmp_path, card())
    text = (tmp_path / "example.json").read_text()
    assert json.loads(text)["figures"] == {"f1": {"value": 0.1235, "low": 0.1, "high": None}}
    assert "NaN" not in text


def test_only_attempts_may_be_missing(tmp_path: Path) -> None:
    whole = card()
    del whole["attempts"]
    write_card(tmp_path, whole)
    for section in sorted(set(SECTIONS) - {"attempts", "name"}):
        part = card()
        del part[section]
        with pytest.raises(CardError, match=f"card of example: missing or unknown sections: {section}"):
            write_card(tmp_path, part)


def test_rejects_an_unknown_section(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="weather"):
        write_card(tmp_path, card() | {"weather": "fine"})
    assert not list(tmp_path.iterdir())


def test_rows_with_the_same_columns_become_a_table() -> None:
    page = markdown(round_numbers(card()))
    assert "| | Se | P+ |\n|---|---|---|\n| 101 | 99.5 | 98.0 |\n| 106 | – | 97 |" in page
    assert "- flutter\n- paced beats" in page


def test_labels_keep_names_and_spell_out_short_keys() -> None:
    figures = {"f1, with ecg_qrs": 99.1, "beat_f1": 98.0, "interval_95": [1, 2], "skipped": {}}
    page = markdown(round_numbers(card() | {"figures": figures}))
    assert "- F1, with ecg_qrs: 99.1\n- beat F1: 98.0\n- 95 % confidence interval: 1, 2\n- skipped: none" in page


def test_rounding_keeps_values_that_are_not_floats() -> None:
    assert round_numbers({"a": [1, True, None, "x", 12345.678], 2: np.int64(3)}) == {"a": [1, True, None, "x", 12350.0], "2": 3}


def test_every_data_source_states_its_licence() -> None:
    assert all("ODC-By 1.0" in text or "CC0" in text for name, text in LICENCES.items() if name != "physionet")

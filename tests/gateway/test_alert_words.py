"""What clinicians and patients read about each kind of alert, in four languages."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from config.limits import DEFAULT_LIMITS
from gateway.alerts import HELD, PRIORITIES
from models.findings import INCONCLUSIVE

LANG = Path(__file__).parents[2] / "cloud" / "page" / "static" / "lang"
LANGUAGES = ("en", "de", "fr", "es")

DIAGNOSES: Final[Mapping[str, str]] = {
    "en": r"fibrillation|flutter|tachycardi|bradycardi|arrhythmi|asystol|bigemin|trigemin|ventric|atrial|hypertens|hypotens"
    r"|hypotherm|fever|heart failure|heart attack|stroke|infarct|cardiac arrest|crisis|hypox|disease|diagnos|danger|abnormal",
    "de": r"flimmern|flattern|tachykard|bradykard|arrhythm|rhythmusstör|asystol|bigemin|trigemin|ventrik|kammer|vorhof|hyperton"
    r"|hypoton|bluthochdruck|unterkühl|fieber|herzschwäche|insuffizienz|infarkt|schlaganfall|krise|stillstand|krank|gefähr|diagnos",
    "fr": r"fibrillation|flutter|tachycard|bradycard|arythmi|asystol|bigémin|trigémin|ventricul|auricul|hypertens|hypotens"
    r"|hypotherm|fièvre|insuffisance|infarctus|\bavc\b|crise|arrêt|maladie|danger|anormal|diagnos",
    "es": r"fibrilaci|aleteo|taquicard|bradicard|arritmi|asistol|bigemin|trigemin|ventricul|auricul|hipertens|hipotens"
    r"|hipoterm|fiebre|insuficiencia|infarto|ictus|crisis|\bparo\b|enfermedad|peligro|anormal|diagn",
}
"""What only a physician says, by language."""

kinds = pytest.mark.parametrize(("language", "kind"), list(product(LANGUAGES, PRIORITIES)))
whys = pytest.mark.parametrize(("language", "why"), list(product(LANGUAGES, INCONCLUSIVE)))
languages = pytest.mark.parametrize("language", LANGUAGES)


def words(language: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((LANG / f"{language}.json").read_text(encoding="utf-8"))
    return loaded


@kinds
def test_every_kind_of_alert_has_a_name_a_reason_and_words_for_the_patient(language: str, kind: str) -> None:
    texts = words(language)
    assert texts["kind"][kind]
    assert texts["reason"][f"{kind}.criterion"]
    assert texts["patient"][f"{kind}.patient"]


@whys
def test_every_reason_not_to_judge_is_said_to_clinician_and_patient(language: str, why: str) -> None:
    texts = words(language)
    assert texts["inconclusive"][why]
    assert texts["patient"][f"{why}.patient"]


@languages
def test_what_was_held_back_is_said_with_its_number(language: str) -> None:
    assert "{held}" in words(language)["reason"][HELD]


@languages
def test_every_number_in_a_reason_has_words_of_its_own(language: str) -> None:
    texts = words(language)
    numbers = {number for reason in texts["reason"].values() for number in re.findall(r"\{(\w+)\}", reason)}
    assert numbers <= texts["measured"].keys()


@languages
def test_patients_are_told_no_diagnosis(language: str) -> None:
    for key, text in words(language)["patient"].items():
        assert not re.search(DIAGNOSES[language], text, re.IGNORECASE), f"{key}: {text}"


@languages
def test_the_list_of_diagnoses_would_notice_the_clinicians_words(language: str) -> None:
    texts = words(language)["kind"]
    for kind in ("af", "tachycardia", "bradycardia", "vt", "bigeminy", "fever"):
        assert re.search(DIAGNOSES[language], texts[kind], re.IGNORECASE), texts[kind]


@kinds
def test_a_patient_is_told_when_to_call_for_help(language: str, kind: str) -> None:
    assert re.search(r"\b112\b", words(language)["patient"][f"{kind}.patient"])


def test_the_manual_names_every_kind_and_every_limit() -> None:
    manual = (LANG.parents[3] / "docs" / "alerts.md").read_text(encoding="utf-8")
    names = {*PRIORITIES, *INCONCLUSIVE, *(field.name for field in fields(DEFAULT_LIMITS))}
    assert {name for name in names if f"`{name}`" not in manual} == set()

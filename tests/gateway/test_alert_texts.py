"""The texts about each kind of alert for clinicians and patients, in four languages."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from cloud.alert_requests import NO_COMMAND_KEY, WAITING
from cloud.store.commands import APPLIED, EXPIRED, REFUSED, SENT
from config.limits import DEFAULT_LIMITS
from gateway.alert_series import (
    AN_HOUR_KEY,
    EPISODES_KEY,
    FASTER_REASON,
    LONGER_REASON,
    LONGEST_KEY,
    MORE_OFTEN_REASON,
    SLOWER_REASON,
)
from gateway.alerts import (
    CLOSED_REASON,
    FALSE_REASON,
    LATE_REASON,
    ORGANISED_REASON,
    RECURRING_REASON,
    SIGNAL_LOST_REASON,
    UNCONFIRMED_REASON,
    UNKNOWN_TIME_REASON,
)
from gateway.priorities import PRIORITIES
from models.findings import INCONCLUSIVE, STALE_REASON
from models.interval_analysis import EXTREME_REASON, INTERVALS_REASON, RATE_REASON, WAVEFORM_REASON
from models.rules.exertion import MOVING_REASON
from sync.commands import CommandKind, Refusal

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
"""Diagnostic terms that texts for patients must not contain, by language."""

kinds = pytest.mark.parametrize(("language", "kind"), list(product(LANGUAGES, PRIORITIES)))
inconclusive_reasons = pytest.mark.parametrize(("language", "reason"), list(product(LANGUAGES, INCONCLUSIVE)))
languages = pytest.mark.parametrize("language", LANGUAGES)


def load_texts(language: str) -> dict[str, Any]:
    texts: dict[str, Any] = json.loads((LANG / f"{language}.json").read_text(encoding="utf-8"))
    return texts


@kinds
def test_every_kind_of_alert_has_a_name_a_reason_and_a_text_for_patients(language: str, kind: str) -> None:
    texts = load_texts(language)
    assert texts["kind"][kind]
    assert texts["reason"][f"{kind}.criterion"]
    assert texts["patient"][f"{kind}.patient"]


@inconclusive_reasons
def test_every_inconclusive_reason_has_texts_for_clinicians_and_patients(language: str, reason: str) -> None:
    texts = load_texts(language)
    assert texts["inconclusive"][reason]
    assert texts["patient"][f"{reason}.patient"]


@languages
def test_the_text_about_several_episodes_contains_their_numbers(language: str) -> None:
    text = load_texts(language)["reason"][RECURRING_REASON]
    assert all(f"{{{number}}}" in text for number in (EPISODES_KEY, LONGEST_KEY, AN_HOUR_KEY))


@languages
def test_every_reason_of_a_latched_or_worse_alert_has_a_text(language: str) -> None:
    reasons = load_texts(language)["reason"]
    latched = (SIGNAL_LOST_REASON, ORGANISED_REASON)
    assert all(reasons[reason] for reason in (*latched, LONGER_REASON, FASTER_REASON, SLOWER_REASON, MORE_OFTEN_REASON))


@languages
def test_the_number_that_an_older_hub_suppressed_has_a_text(language: str) -> None:
    assert "{held}" in load_texts(language)["reason"]["repeat.held"]


@languages
def test_results_that_are_late_or_perhaps_of_another_person_have_a_text(language: str) -> None:
    reasons = load_texts(language)["reason"]
    assert all(reasons[reason] for reason in (LATE_REASON, UNKNOWN_TIME_REASON, UNCONFIRMED_REASON))


@languages
def test_what_is_not_from_an_ecg_or_has_no_newer_value_has_a_text(language: str) -> None:
    reasons = load_texts(language)["reason"]
    assert all(reasons[reason] for reason in (INTERVALS_REASON, RATE_REASON, EXTREME_REASON, STALE_REASON, WAVEFORM_REASON))


@languages
def test_that_the_wearer_moved_has_a_text(language: str) -> None:
    assert load_texts(language)["reason"][MOVING_REASON]


@languages
def test_every_number_in_a_reason_has_a_label(language: str) -> None:
    texts = load_texts(language)
    numbers = {number for reason in texts["reason"].values() for number in re.findall(r"\{(\w+)\}", reason)}
    assert numbers <= texts["measured"].keys()


@languages
def test_texts_for_patients_contain_no_diagnosis(language: str) -> None:
    for key, text in load_texts(language)["patient"].items():
        assert not re.search(DIAGNOSES[language], text, re.IGNORECASE), f"{key}: {text}"


@languages
def test_the_list_of_diagnoses_matches_the_texts_for_clinicians(language: str) -> None:
    texts = load_texts(language)["kind"]
    for kind in ("af", "tachycardia", "bradycardia", "vt", "bigeminy", "fever"):
        assert re.search(DIAGNOSES[language], texts[kind], re.IGNORECASE), texts[kind]


@kinds
def test_every_text_for_patients_contains_the_emergency_number(language: str, kind: str) -> None:
    assert re.search(r"\b112\b", load_texts(language)["patient"][f"{kind}.patient"])


def test_the_manual_lists_every_kind_and_every_limit() -> None:
    manual = (LANG.parents[3] / "docs" / "alerts.md").read_text(encoding="utf-8")
    names = {*PRIORITIES, *INCONCLUSIVE, *(field.name for field in fields(DEFAULT_LIMITS))}
    assert {name for name in names if f"`{name}`" not in manual} == set()


@languages
def test_every_command_end_and_refusal_has_a_text(language: str) -> None:
    texts = load_texts(language)
    assert texts["command_kind"].keys() == {str(kind) for kind in CommandKind}
    assert texts["command_refusal"].keys() == {*map(str, Refusal), NO_COMMAND_KEY}
    assert all(texts[f"command_{state}"] for state in (WAITING, SENT, APPLIED, REFUSED, EXPIRED))
    assert all(texts["reason"][reason] for reason in (CLOSED_REASON, FALSE_REASON))

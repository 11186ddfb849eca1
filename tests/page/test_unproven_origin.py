"""Data of the version before, which no hub signed, is marked in every language; data that a hub signed is not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from cloud.api.app import LANGUAGES, STATIC
from tests.cloud.synthetic import alert, heart_rate
from tests.page.conftest import Clinic

VECTORS = Path(__file__).parents[1] / "cloud" / "vectors"


@pytest.fixture
def migrated_clinic(browser: Any, tmp_path: Path) -> Iterator[Clinic]:
    """A clinic that was started on the files of the version before."""
    clinic = Clinic(tmp_path)
    for vector, name in (("store_v1.db", "blocks.db"), ("clinic_v1.key", "clinic.key")):
        shutil.copyfile(VECTORS / vector, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    clinic.start()
    yield clinic
    assert clinic.stop() == 0


def test_old_alerts_and_sensors_are_marked_and_new_ones_are_not(migrated_clinic: Clinic, monitored: Any) -> None:
    page = monitored.page
    hub = migrated_clinic.make_hub("hub-9", "subject-9")
    migrated_clinic.send("vital", heart_rate(1_000_000, 60.0), hub=hub)
    migrated_clinic.send("alert", alert(id="new"), hub=hub)
    page.goto(migrated_clinic.page)
    new = page.locator(".alert-row", has_text="Patient subject-9")
    for language in LANGUAGES:
        texts = json.loads((STATIC / "lang" / f"{language}.json").read_text())
        page.locator("#language").select_option(language)
        old = page.locator(".alert-row", has_text=texts["origin_unproven_short"]).first
        old.click()
        expect(page.locator("#detail")).to_contain_text(texts["origin_unproven"])
        expect(page.locator("#sensor-state")).to_contain_text(texts["origin_unproven_until"].partition("{")[0].strip())
    page.locator("#language").select_option("en")
    new.click()
    expect(page.locator("#detail-patient")).to_have_text("Patient subject-9")
    expect(page.locator(".detail .unproven")).to_have_count(0)
    expect(new.locator(".unproven")).to_have_count(0)
    expect(page.locator("#sensor-state")).not_to_contain_text("not proven")
    assert monitored.errors == []

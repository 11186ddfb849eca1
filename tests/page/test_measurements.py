"""The page's measurements: results by group with their own times and marks, continuous values, and the sensors' states."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from cloud.api.app import LANGUAGES, STATIC
from drivers.kinds import KINDS
from models.rules.vitals import DOUBTFUL
from sync.records import UNCONFIRMED_FLAG, Record, SpotOrigin, StatusRecord, VitalRecord
from tests.cloud.synthetic import counts, ecg_mv, times, waveform
from tests.page.conftest import Clinic
from tests.page.test_clinic_page import CONTRASTS, open_page, screenshot

SHOWN_CONTINUOUS = {"spo2", "pulse_rate", "steps", "energy", "skin_temperature"}
GROUP_TITLES = {
    "en": ["Blood pressure", "Oxygen saturation", "Body weight", "Body temperature", "Activity"],
    "de": ["Blutdruck", "Sauerstoffsättigung", "Körpergewicht", "Körpertemperatur", "Aktivität"],
    "fr": ["Pression artérielle", "Saturation en oxygène", "Poids", "Température corporelle", "Activité"],
    "es": ["Presión arterial", "Saturación de oxígeno", "Peso corporal", "Temperatura corporal", "Actividad"],
}
HOUR_US = 3_600_000_000


class Sender:
    """Builds records whose times count back from now."""

    def __init__(self) -> None:
        self.now_us = time.time_ns() // 1000
        self._group = 0

    def result(
        self, sensor: str, ago_us: int, values: dict[str, float | str], *flags: str, **origin: Any
    ) -> Iterator[VitalRecord | StatusRecord]:
        """Yield the records of one result. A text is a status."""
        self._group += 1
        spot = SpotOrigin(self._group, **({"time_source": "measured", "is_stored": False, "clock": "set"} | origin))
        at = replace(times(self.now_us), at_us=self.now_us - ago_us)
        for kind, value in values.items():
            if isinstance(value, str):
                yield StatusRecord(sensor, kind, at, value, spot)
            else:
                yield VitalRecord(sensor, kind, at, value, flags, spot)

    def status(self, sensor: str, kind: str, value: str | int) -> StatusRecord:
        return StatusRecord(sensor, kind, times(self.now_us), value)

    def value(self, sensor: str, kind: str, value: float) -> VitalRecord:
        return VitalRecord(sensor, kind, times(self.now_us), value, ("continuous",))


def pressure(systolic: float, diastolic: float) -> dict[str, float | str]:
    return {"systolic": systolic, "diastolic": diastolic, "mean_pressure": 97.0, "pulse_rate_cuff": 71.0}


def make_records() -> Iterator[Record]:
    """A home with six sensors."""
    send = Sender()
    yield from send.result("cuff", HOUR_US // 4, pressure(128.4, 82.0), "irregular_pulse", "sent_in_kpa")
    yield from send.result("cuff", 25 * HOUR_US, pressure(141.0, 91.0), is_stored=True, time_source="corrected")
    yield from send.result("cuff", 0, pressure(192.0, 121.0), UNCONFIRMED_FLAG)
    yield from send.result("cuff", HOUR_US // 8, {"failed_measurement": "blood_pressure", "cuff_status": "cuff_too_loose"})
    yield from send.result("oximeter", 2 * HOUR_US, {"spo2": 93.0, "pulse_rate": 66.0}, time_source="arrival", clock="not_set")
    yield from (
        send.value("oximeter", kind, value) for kind, value in (("spo2", 97), ("pulse_rate", 64), ("pulse_amplitude", 4))
    )
    yield from send.result("scale", HOUR_US, {"weight": 80.35}, user=1)
    yield from send.result("scale", HOUR_US - 2_000_000, {"body_fat": 21.4, "basal_metabolism": 7000.0}, clock=None)
    yield from send.result("scale", 30 * HOUR_US, {"weight": 79.9}, user=1, time_source="unconfirmed")
    yield from send.result("scale", 29 * HOUR_US, {"basal_metabolism": 9110.0}, "placeholder")
    yield from send.result("thermometer", HOUR_US, {"temperature": 37.25})
    yield from send.result("thermometer", 0, {"temperature": 46.0}, "implausible")
    yield from (send.value("watch", "steps", 4321.0), send.value("watch", "motion_x", 0.1))
    yield from (send.value("watch", "glucose_of_a_newer_hub", 5.5), send.value("watch", "measurement_interval", 60.0))
    for sensor, link, battery in (("cuff", "absent", 80), ("scale", "absent", 12), ("watch", "streaming", 70)):
        yield from (send.status(sensor, "link", link), send.status(sensor, "battery", battery))


@pytest.fixture(scope="module")
def home(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    clinic = Clinic(tmp_path_factory.mktemp("home"))
    clinic.start()
    clinic.send("vital", *make_records())
    now_us = time.time_ns() // 1000
    clinic.send("wave", waveform(now_us - 5_000_000, counts(ecg_mv([0.5, 1.3, 2.1, 2.9, 3.7, 4.5], 5.0))))
    yield clinic
    assert clinic.stop() == 0


def group(page: Page, title: str) -> Locator:
    return page.get_by_role("article", name=title, exact=True)


def test_a_blood_pressure_is_one_group_and_says_what_must_be_known_of_each(home: Clinic, monitored: Any) -> None:
    page = monitored.page
    open_page(page, home.page)
    cuff = group(page, "Blood pressure")
    expect(cuff.locator(".measured-value")).to_have_text("128/82 mmHg")  # not that of an unconfirmed person
    expect(cuff.locator(".measured-facts")).to_have_text("Mean97 mmHgPulse71 /min")
    expect(cuff.locator("> div .marks")).to_have_text("Irregular pulse")
    earlier = cuff.locator(".earlier li")
    expect(earlier.locator(".earlier-value")).to_have_text(["192/121 mmHg", "Measurement failed", "141/91 mmHg"])
    expect(earlier.nth(0)).to_contain_text("Not confirmed that it is this patient’s")
    expect(earlier.nth(1)).to_contain_text("Cuff too loose")
    expect(earlier.nth(2)).to_contain_text("time corrected: the sensor’s clock was wrong")
    expect(earlier.nth(2)).to_contain_text("from the sensor’s memory")
    expect(earlier.nth(2)).to_contain_text(re.compile(r"\w{3} \d\d, \d{4}, \d\d:\d\d:\d\d · cuff"))  # not today
    assert monitored.errors == []


def test_the_other_groups_show_the_latest_of_every_sensor(home: Clinic, monitored: Any) -> None:
    page = monitored.page
    open_page(page, home.page)
    oxygen = group(page, "Oxygen saturation")
    expect(oxygen.locator(".measured-value")).to_have_text("97 %")
    expect(oxygen.locator(".measured-facts")).to_have_text("Pulse64 /minPulse amplitude4 %")
    expect(oxygen.locator("> div")).to_contain_text("oximeter · continuous")
    expect(oxygen.locator(".earlier li")).to_contain_text("time of arrival: the sensor’s clock was not set")
    weight = group(page, "Body weight")
    expect(weight.locator(".measured-value")).to_have_text("80.35 kg")
    expect(weight.locator(".measured-facts")).to_have_text("Body fat21.4 %Basal metabolism per day7000 kJ")
    expect(weight.locator(".earlier-value")).to_have_text(["79.9 kg"])  # and not what the scale filled in
    expect(weight.locator(".earlier li")).to_contain_text("time not confirmed: the sensor’s clock may have been set since")
    temperature = group(page, "Body temperature")
    expect(temperature.locator(".measured-value")).to_have_text("37.3 °C")  # not one that no person has
    expect(temperature.locator(".earlier li")).to_contain_text("Implausible value")
    expect(group(page, "Activity").locator(".measured-value")).to_have_text("4321 steps")


def test_a_kind_without_a_text_shows_its_title_and_one_of_a_newer_hub_its_name(home: Clinic, monitored: Any) -> None:
    open_page(monitored.page, home.page)
    expect(group(monitored.page, "glucose of a newer hub")).to_contain_text("5.5")
    expect(group(monitored.page, "Interval of the measurements")).to_contain_text("60 s")
    expect(monitored.page.locator(".measured")).not_to_contain_text("Motion")


def test_every_sensor_has_its_state_in_words_and_one_that_sleeps_raises_no_notice(home: Clinic, monitored: Any) -> None:
    page = monitored.page
    open_page(page, home.page)
    page.route("**/api/sensors", lambda route: route.fulfill(json=route.fetch().json() | {"silent_after_us": 1}))
    page.reload()
    states = page.locator(".sensor-list li")
    expect(states).to_have_text(
        [
            "cuffbattery 80%Waiting for its next use",
            "oximeterWaiting for its next use",
            "scalebattery 12%Waiting for its next use",
            "strap-1No data",
            "thermometerWaiting for its next use",
            "watchbattery 70%No data",
        ]
    )
    notices = page.locator("#notices")
    expect(notices).to_contain_text("watch: no data since")
    expect(notices).not_to_contain_text("cuff")


def test_the_sensor_with_an_ecg_is_selected_first(home: Clinic, monitored: Any) -> None:
    open_page(monitored.page, home.page)
    expect(monitored.page.locator("#sensor-tabs [aria-pressed=true]")).to_have_text("strap-1")
    monitored.page.get_by_role("button", name="cuff", exact=True).click()
    expect(monitored.page.locator("#sensor-tabs [aria-pressed=true]")).to_have_text("cuff")
    home.send("vital", *list(make_records())[-6:])
    expect(monitored.page.locator("#sensor-tabs [aria-pressed=true]")).to_have_text("cuff")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_sufficient_contrast(home: Clinic, monitored: Any, scheme: Any) -> None:
    page = monitored.page
    page.emulate_media(color_scheme=scheme)
    open_page(page, home.page)
    expect(group(page, "Activity")).to_be_visible()
    screenshot(page, f"measurements-{scheme}.png")
    contrasts = page.evaluate(CONTRASTS)
    assert [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_groups_fit_on_a_phone_screen(home: Clinic, browser: Browser, language: str) -> None:
    context = browser.new_context(locale=language, viewport={"width": 360, "height": 740})
    page = context.new_page()
    open_page(page, home.page)
    expect(page.locator(".measured-group h3")).to_have_text(
        [*GROUP_TITLES[language], "glucose of a newer hub", "Interval of the measurements"]
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    clipped = (
        "() => [...document.querySelectorAll('.measured *')]"
        ".filter((n) => n.scrollWidth > n.clientWidth + 1 && getComputedStyle(n).display !== 'inline').map((n) => n.className)"
    )
    assert page.evaluate(clipped) == []
    screenshot(page, f"measurements-narrow-{language}.png")
    context.close()


def test_what_a_person_measures_and_every_doubt_of_a_sensor_have_texts() -> None:
    """The same keys in every language: `test_all_languages_have_the_same_keys_and_placeholders`."""
    texts = json.loads((STATIC / "lang" / "en.json").read_text())
    assert {kind.name for kind in KINDS.values() if kind.is_spot} | SHOWN_CONTINUOUS <= set(texts["measured_kind"])
    assert set(texts["measured_kind"]) <= set(KINDS)
    assert set(texts["flag"]) >= DOUBTFUL

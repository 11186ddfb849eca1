"""The clinician's page in a real browser, with a real clinic process."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import css_colour, pixels, runs
from tests.cloud.synthetic import alert, counts, ecg_mv, heart_rate, strip, waveform

STATIC = Path(__file__).parents[2] / "cloud" / "page" / "static"
ARTEFACTS = Path(__file__).parents[2] / "build" / "artefacts"
LANGUAGES = {
    "en": ("Alerts", "Pause (no beat)", "No beat for 3.7 s (limit 3 s)"),
    "de": ("Alarme", "Pause (kein Herzschlag)", "3,7 s ohne Herzschlag (Grenzwert 3 s)"),
    "fr": ("Alertes", "Pause (aucun battement)", "Aucun battement pendant 3,7 s (limite 3 s)"),
    "es": ("Alertas", "Pausa (sin latido)", "Sin latido durante 3,7 s (límite 3 s)"),
}

# WCAG 2.2, 1.4.3: the contrast of every visible text to the first opaque background behind it.
CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const background = (node) => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (node.closest("svg, noscript, .skip, .visually-hidden")) continue;
    const [a, b] = [luminance(rgb(getComputedStyle(node).color)), luminance(background(node))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.textContent.trim()]);
  }
  return found;
}"""


def beat_marks(strip_picture: Locator) -> list[float]:
    """The x of each beat mark in CSS pixels: the middles of the runs in the mark's colour."""
    row = pixels(strip_picture)[28]
    return runs((np.abs(row - css_colour(strip_picture, "--mark")) < 40).all(axis=1))


def trace_height_mm(strip_picture: Locator) -> float:
    """The height of the dark trace to the right of the calibration pulse."""
    dark = pixels(strip_picture)[36:, 70:].max(axis=2) < 60
    rows = np.flatnonzero(dark.any(axis=1))
    return float(rows[-1] - rows[0]) / 4


def open_page(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#link")).to_have_attribute("data-state", "connected")


def screenshot(page: Page, name: str) -> None:
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / name, full_page=True)


def test_an_alert_appears_live_with_its_strip_and_beats(empty_clinic: Any, monitored: Any) -> None:
    page = monitored.page
    open_page(page, empty_clinic.page)
    expect(page.get_by_text("No alerts. New alerts appear here")).to_be_visible()
    expect(page.get_by_text("No sensor has sent data yet.")).to_be_visible()
    onset_us = time.time_ns() // 1000
    beats_s = [0.5, 1.3, 2.1, 5.8, 6.6, 7.4]
    raised = alert("pause", "high", onset_us, strip=strip(onset_us, beats_s, 8.0), measured={"pause_s": 3.7, "limit_s": 3.0})
    empty_clinic.send("alert", raised)
    row = page.locator(".alert-row")
    expect(row).to_contain_text("Pause (no beat)")
    expect(page.locator("#announcer")).to_have_text("New alert, High priority: Pause (no beat), Patient subject-1, strap-1")
    picture = page.locator(".strip svg")
    expect(picture).to_have_attribute("aria-label", re.compile(r"8 seconds with 6 detected beats"))
    assert "/api/alerts/" not in " ".join(monitored.requests)  # the strip came over the WebSocket
    assert monitored.errors == []
    assert beat_marks(picture) == pytest.approx([60 + 100 * beat for beat in beats_s], abs=1.5)  # 25 mm/s at 4 px/mm
    assert trace_height_mm(picture) == pytest.approx(14.0, abs=1.5)  # R to S: about 1.4 mV at 10 mm/mV


def test_takes_screenshots_of_the_page(clinic: Any, monitored: Any) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    expect(page.locator(".alert-row")).to_have_count(3)
    expect(page.locator("#detail")).to_contain_text("No beat for 3.7 s (limit 3 s)")
    now_us = time.time_ns() // 1000
    clinic.send("wave", waveform(now_us - 1_000_000, counts(ecg_mv([0.5], 1.0))))
    clinic.send("vital", heart_rate(now_us, 73.0))
    expect(page.locator("#heart-rate")).to_have_text("73")
    expect(page.locator("#sensor-state")).to_contain_text("Connected")
    expect(page.locator(".u-over")).to_be_visible()
    page.wait_for_function("document.querySelectorAll('#live-paper canvas').length === 1")
    screenshot(page, "clinic-page.png")
    page.emulate_media(color_scheme="dark")
    screenshot(page, "clinic-page-dark.png")
    assert (ARTEFACTS / "clinic-page.png").stat().st_size > 50_000
    assert monitored.errors == []


def test_lists_the_most_important_alert_first_with_priority_as_colour_shape_word_and_flash_rate(
    clinic: Any, monitored: Any
) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    rows = page.locator(".alert-row")
    expect(rows.locator(".kind")).to_have_text(["Pause (no beat)", "Tachycardia", "Bradycardia"])
    expect(rows.locator(".sign > span")).to_have_text(["High", "Medium", "Low"])
    expect(rows.nth(2)).to_contain_text("Ended, lasted 42 s")
    expect(rows.nth(1)).to_contain_text("Ongoing for 2 min")
    fills = [rows.nth(i).locator(".shape").evaluate("node => getComputedStyle(node).fill") for i in range(3)]
    assert fills == ["rgb(195, 32, 47)", "rgb(255, 210, 31)", "rgb(143, 224, 234)"]  # red, yellow, cyan
    assert len({rows.nth(i).locator(".shape").get_attribute("d") for i in range(3)}) == 3
    flash = "node => [getComputedStyle(node).animationName, 1 / parseFloat(getComputedStyle(node).animationDuration)]"
    high, medium, low = (rows.nth(i).locator(".sign svg").evaluate(flash) for i in range(3))
    assert high[0] == "flash"
    assert 1.4 <= high[1] <= 2.8  # Hz, IEC 60601-1-8:2020, table 2
    assert medium[0] == "flash"
    assert 0.4 <= medium[1] <= 0.8
    assert low[0] == "none"
    page.emulate_media(reduced_motion="reduce")
    assert rows.nth(0).locator(".sign svg").evaluate(flash)[0] == "none"


def test_requests_only_its_own_server(clinic: Any, monitored: Any) -> None:
    open_page(monitored.page, clinic.page)
    expect(monitored.page.locator(".strip svg")).to_be_visible()
    origin = clinic.page.removeprefix("http://").rstrip("/")
    assert len(monitored.requests) > 10
    assert [url for url in monitored.requests if not re.match(rf"(http|ws)://{re.escape(origin)}/", url)] == []
    assert monitored.errors == []


def test_reports_a_lost_connection_and_then_fetches_only_missing_alerts(empty_clinic: Any, monitored: Any) -> None:
    page = monitored.page
    now_us = time.time_ns() // 1000
    empty_clinic.send("alert", alert("af", "medium", now_us))
    open_page(page, empty_clinic.page)
    expect(page.locator(".alert-row")).to_have_count(1)
    assert empty_clinic.stop() == 0
    expect(page.locator("#notices")).to_contain_text("Connection to the clinic server lost")
    expect(page.locator("#link-text")).to_have_text("Connection lost")
    monitored.requests.clear()
    monitored.errors.clear()  # the browser reports each refused connection
    empty_clinic.start()
    empty_clinic.send("alert", alert("pause", "high", now_us + 1))
    expect(page.locator(".alert-row")).to_have_count(2, timeout=20_000)
    expect(page.locator("#notices")).not_to_contain_text("clinic server")
    requested = [url for url in monitored.requests if "/api/alerts" in url]
    assert requested
    assert all(url.endswith("?after_revision=1") or url.endswith("?after_revision=2") for url in requested)


def test_shows_a_notice_for_a_sensor_without_data(empty_clinic: Any, monitored: Any) -> None:
    page = monitored.page
    page.route("**/api/sensors", lambda route: route.fulfill(json=route.fetch().json() | {"silent_after_us": 100_000}))
    empty_clinic.send("vital", heart_rate(time.time_ns() // 1000, 60.0))
    open_page(page, empty_clinic.page)
    expect(page.locator("#notices")).to_contain_text("Patient subject-1, strap-1: no data since")
    expect(page.locator("#sensor-state")).to_contain_text("No data")
    expect(page.locator(".patient-row")).to_contain_text("1 sensor without data")


@pytest.mark.parametrize(
    ("offset_s", "notice", "fact", "rate"),
    [
        (3600.5, "Patient subject-1, hub hub-1: the hub’s clock is 1 h 0 min fast.", "Hub clock1 h 0 min fast", "60"),
        (-3600.5, "Patient subject-1, hub hub-1: data arrives 1 h 0 min late", "StatusData late", "–"),
    ],
)
def test_tells_that_the_hubs_clock_disagrees(
    empty_clinic: Any, monitored: Any, offset_s: float, notice: str, fact: str, rate: str
) -> None:
    """A sensor that sends is not silent, whatever its hub's clock says."""
    page = monitored.page
    open_page(page, empty_clinic.page)
    empty_clinic.send("vital", heart_rate(time.time_ns() // 1000 + round(offset_s * 1e6), 60.0))
    expect(page.locator("#notices")).to_contain_text(notice)
    expect(page.locator("#sensor-state")).to_contain_text(fact)
    expect(page.locator("#heart-rate")).to_have_text(rate)


def test_received_texts_never_become_markup(empty_clinic: Any, monitored: Any) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    now_us = time.time_ns() // 1000
    empty_clinic.send("vital", heart_rate(now_us, 60.0, sensor=hostile))
    empty_clinic.send("alert", alert(hostile, hostile, now_us, sensor=hostile, source=hostile, reasons=(hostile,)))
    open_page(monitored.page, empty_clinic.page)
    expect(monitored.page.locator(".alert-row")).to_contain_text(hostile)
    expect(monitored.page.locator("img[src=x]")).to_have_count(0)
    assert monitored.errors == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_fits_on_a_phone_screen(clinic: Any, browser: Browser, language: str) -> None:
    context = browser.new_context(locale=language, viewport={"width": 360, "height": 740})
    page = context.new_page()
    open_page(page, clinic.page)
    heading, kind, reason = LANGUAGES[language]
    expect(page.locator("#alerts-heading")).to_have_text(heading)
    expect(page.locator(".alert-row .kind").first).to_have_text(kind)
    expect(page.locator(".reasons")).to_contain_text(reason)
    assert page.evaluate("document.documentElement.lang") == language
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    clipped = (
        "() => [...document.querySelectorAll('main *:not(.strip, .strip *, svg *, .visually-hidden)')]"
        ".filter((n) => n.scrollWidth > n.clientWidth + 1 && getComputedStyle(n).display !== 'inline').map((n) => n.className)"
    )
    assert page.evaluate(clipped) == []
    screenshot(page, f"clinic-page-narrow-{language}.png")
    context.close()


def test_keeps_the_selected_language_after_a_reload(clinic: Any, monitored: Any) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    page.get_by_label("Language").select_option("fr")
    expect(page.locator("#alerts-heading")).to_have_text("Alertes")
    expect(page.locator(".disclaimer")).to_contain_text("pas un dispositif médical certifié")
    page.reload()
    expect(page.locator("#alerts-heading")).to_have_text("Alertes")


def test_stores_nothing_in_the_browser_but_the_selected_language(clinic: Any, monitored: Any) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    page.get_by_label("Language").select_option("de")
    expect(page.locator(".strip svg")).to_be_visible()
    assert page.evaluate("Object.entries(localStorage)") == [["pulsegate.language", "de"]]
    assert page.evaluate("sessionStorage.length") == 0
    assert page.evaluate("indexedDB.databases()") == []
    assert page.context.cookies() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_sufficient_contrast(clinic: Any, monitored: Any, scheme: Any) -> None:
    page = monitored.page
    page.emulate_media(color_scheme=scheme)
    open_page(page, clinic.page)
    expect(page.locator(".strip svg")).to_be_visible()
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [(round(ratio, 2), text) for ratio, text in contrasts if ratio < 4.5] == []


def test_can_be_used_with_keyboard_and_screen_reader(clinic: Any, monitored: Any) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    expect(page.locator(".alert-row")).to_have_count(3)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the alerts")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=re.compile("Medium.*Tachycardia"))).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Tachycardia")).to_be_visible()
    expect(page.locator(".alert-row[aria-current=true]")).to_contain_text("Tachycardia")
    expect(page.get_by_role("button", name=re.compile("Medium.*Tachycardia"))).to_be_focused()
    for role in ("banner", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    patient = "Patient subject-1"
    for region in ("Patients", f"Live ECG {patient}", "Alerts", f"Tachycardia {patient}", f"Heart rate trend {patient}"):
        expect(page.get_by_role("region", name=region, exact=True)).to_have_count(1)
    expect(page.get_by_role("img", name=re.compile("ECG strip of 12 seconds with 28 detected beats"))).to_be_visible()
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    active = [node for node in tree if node.get("role", {}).get("value") in {"button", "combobox", "link", "image", "region"}]
    assert [node["role"]["value"] for node in active if not node["name"]["value"].strip()] == []


def test_all_languages_have_the_same_keys_and_placeholders() -> None:
    def keys_and_placeholders(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: keys_and_placeholders(inner) for key, inner in value.items()}
        return sorted(re.findall(r"\{\w+\}", value))

    texts = {language: json.loads((STATIC / "lang" / f"{language}.json").read_text()) for language in LANGUAGES}
    for language in LANGUAGES:
        assert keys_and_placeholders(texts[language]) == keys_and_placeholders(texts["en"]), language

"""The report in a real browser: its script runs under its Content Security Policy and draws each strip at true scale."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from gateway.replay.run import empty_result
from gateway.replay.sources import Source
from reporting.report import render
from sync.records import AlertRecord, Strip
from tests.browser import chromium, css_colour, pixels, runs

ARTEFACTS = Path(__file__).parents[2] / "build" / "artefacts"
RATE_HZ = 125.0
BEATS_S = (1.0, 1.8, 2.6, 6.6, 7.4)
ONSET_S, END_S = 2.6, 6.6


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed after the module: while Playwright's event loop runs, no other test could run one."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pause in 10 s of flat ECG with R waves of 1 mV; the file begins one minute before the strip."""
    samples = np.zeros(1250, np.int32)
    for at_s in BEATS_S:
        samples[round(at_s * RATE_HZ)] = 1000
    start_us = 60_000_000
    beats_us = tuple(start_us + round(at_s * 1e6) for at_s in BEATS_S)
    strip = Strip(start_us, RATE_HZ, 0.001, samples, beats_us, "NNVNN")
    onset_us, end_us = start_us + round(ONSET_S * 1e6), start_us + round(END_S * 1e6)
    result = empty_result(Source(Path("a.hea"), "strap", 0, False, (), iter(())))
    result.end_us = 120_000_000
    alert = AlertRecord("1", "strap", "pause", "high", onset_us, end_us, 0, "rule:pause", (), None, {"pause_s": 4.0}, strip)
    list(result.add((alert,), ()))
    list(result.close())
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render([result], (), datetime(2026, 1, 2, tzinfo=UTC)), encoding="utf-8")
    return path


def open_report(browser: Browser, report: Path, **settings: Any) -> tuple[Page, list[str]]:
    page = browser.new_context(viewport={"width": 1000, "height": 900}, **settings).new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda request: seen.append(request.url))
    page.goto(report.as_uri())
    return page, seen


@pytest.fixture(scope="module")
def page(browser: Browser, report: Path) -> Page:
    return open_report(browser, report)[0]


def test_the_strips_are_drawn_under_the_content_security_policy_and_nothing_else_is_loaded(
    browser: Browser, report: Path
) -> None:
    page, seen = open_report(browser, report)
    assert page.locator(".ecg-paper").count() == 2
    assert seen == [report.as_uri()]
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = true' }))")
    assert page.evaluate("window.ran") is None, "a script that the policy does not name must not run"


def test_rows_of_six_seconds_at_true_size_with_names(page: Page) -> None:
    rows = page.locator(".ecg-paper")
    # 15 mm for the calibration pulse and 6 s at 25 mm/s; heights in mm: 8.5 head, 20 paper, 5.5 foot.
    assert [rows.nth(i).get_attribute("width") for i in range(2)] == ["165mm", "165mm"]
    assert [rows.nth(i).get_attribute("height") for i in range(2)] == ["34mm", "34mm"]
    names = [rows.nth(i).get_attribute("aria-label") for i in range(2)]
    assert names == ["ECG from 1:00 to 1:06, 3 beats", "ECG from 1:06 to 1:10, 2 beats"]
    assert page.evaluate("document.querySelector('.ecg-paper').getBoundingClientRect().width") == pytest.approx(
        165 * 96 / 25.4, abs=0.1
    )


def test_texts_name_intervals_rates_labels_seconds_onset_and_end(page: Page) -> None:
    first, second = (page.locator(".ecg-paper").nth(i).locator("text").all_text_contents() for i in range(2))
    assert first[0] == "onset"
    assert first[1:3] == ["RR ms", "/min"]
    assert {"800", "75", "4000", "15", "V"} <= set(first)
    assert first[-6:] == ["1:00", "1:01", "1:02", "1:03", "1:04", "1:05"]
    assert second[0] == "end"
    assert {"800", "75", "1:06", "1:10"} <= set(second)
    assert "V" not in second


def test_the_trace_is_drawn_at_every_r_peak_and_on_the_baseline(page: Page) -> None:
    picture = page.locator(".ecg-paper").first
    image = pixels(picture)
    quarter_mm = 96 / 25.4 / 4  # in CSS pixels
    top_y, baseline_y, one_mv_y = 34 * quarter_mm, (34 + 15 * 4) * quarter_mm, (34 + 5 * 4) * quarter_mm
    dark = image.max(axis=2) < 120
    peaks_x = [round((60 + 100 * at_s) * quarter_mm) for at_s in BEATS_S[:3]]
    for peak_x in peaks_x:
        column = np.flatnonzero(dark[round(top_y) :, peak_x - 1 : peak_x + 2].any(axis=1)) + top_y
        assert column[0] == pytest.approx(one_mv_y, abs=2), "the R wave reaches 1 mV: 10 mm above the baseline"
    baseline = dark[round(baseline_y) - 2 : round(baseline_y) + 3, round(70 * quarter_mm) : round(640 * quarter_mm)].any(axis=0)
    assert baseline.mean() > 0.95
    pulse = dark[round(one_mv_y) - 2 : round(one_mv_y) + 3, : round(60 * quarter_mm)].any(axis=0)
    assert pulse.sum() == pytest.approx(20 * quarter_mm, abs=3), "the calibration pulse is 1 mV for 200 ms: 5 mm"


def test_beat_marks_onset_and_episode_are_drawn_at_their_times(page: Page) -> None:
    picture = page.locator(".ecg-paper").first
    image = pixels(picture)
    quarter_mm = 96 / 25.4 / 4
    marks = runs((np.abs(image[round(28 * quarter_mm)] - css_colour(picture, "--mark")) < 40).all(axis=1))
    assert marks == pytest.approx([(60 + 100 * at_s) * quarter_mm for at_s in BEATS_S[:3]], abs=1.5)
    below = image[round((34 + 78) * quarter_mm)]
    lines = runs((np.abs(below - css_colour(picture, "--onset")) < 60).all(axis=1))
    assert lines[0] == pytest.approx((60 + 100 * ONSET_S) * quarter_mm, abs=2)
    before, during = (
        image[round(45 * quarter_mm) : round(52 * quarter_mm), round(a * quarter_mm) : round(b * quarter_mm)]
        for a, b in ((250, 300), (450, 500))
    )
    assert during[:, :, 1].mean() < before[:, :, 1].mean() - 5, "the episode is shaded"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_scheme_and_print_is_black_on_white(browser: Browser, report: Path, scheme: Any) -> None:
    page, _ = open_report(browser, report, color_scheme=scheme)
    picture = page.locator(".ecg-paper").first
    bright = np.median(pixels(picture)[50:90])
    assert bright > 200 if scheme == "light" else bright < 60
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"report-{scheme}.png", full_page=True)
    page.emulate_media(media="print")
    assert css_colour(picture, "--trace") == (0, 0, 0)
    assert css_colour(picture, "--paper") == (255, 255, 255)
    assert np.median(pixels(picture)[50:90]) > 200

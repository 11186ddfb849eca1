"""The report passes axe-core, the checker of the Web Content Accessibility Guidelines, and fits on a phone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from reporting.report import render
from reporting.result import ReplayResult
from tests.browser import chromium
from tests.replay.results import make_interval_result, make_pulse_result, make_result, new_result

ARTEFACTS: Final = Path(__file__).parents[2] / "build" / "artefacts"
CREATED: Final = datetime(2026, 1, 2, tzinfo=UTC)
PHONE: Final = 360
REPORTS: Final = {
    "ecg": [make_result(2)],
    "pulse": [make_pulse_result()],
    "intervals": [make_interval_result()],
    "empty": [new_result("empty.jsonl")],
    "all": [
        make_result(1, "a/x.hea"),
        make_pulse_result("b/x.hea"),
        make_interval_result(),
        make_result(0, f"{'n' * 200}.csv"),
    ],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed after the module: while Playwright's event loop runs, no other test could run one."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def open_report(browser: Browser, folder: Path, results: list[ReplayResult], width: int, scheme: Any) -> Page:
    path = folder / "report.html"
    path.write_text(render(results, ("rr_af 1",), CREATED), encoding="utf-8")
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "dark"), (1280, "light")])
@pytest.mark.parametrize("name", list(REPORTS))
def test_passes_axe_and_fits_the_width(browser: Browser, axe: str, tmp_path: Path, name: str, width: int, scheme: str) -> None:
    page = open_report(browser, tmp_path, REPORTS[name], width, scheme)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"report-{name}-{scheme}-{width}.png", full_page=True)
    for details in page.locator("details").all():
        details.evaluate("(node) => { node.open = true; }")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
    assert len(found["passes"]) > 15, "axe has looked at the page"
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_wide_charts_and_tables_are_scrolled_by_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    page = open_report(browser, tmp_path, REPORTS["ecg"], PHONE, "light")
    for scrolled in page.locator(".wide, .scroll").all():
        assert scrolled.get_attribute("tabindex") == "0"
        assert scrolled.get_attribute("aria-label")
    chart = page.locator(".wide").first
    chart.evaluate("(node) => { window.moved = new Promise((done) => node.addEventListener('scroll', done, { once: true })); }")
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.evaluate("window.moved.then(() => true)")
    assert chart.evaluate("(node) => node.scrollLeft") > 0


def test_text_has_enough_contrast_in_charts_too(browser: Browser, tmp_path: Path) -> None:
    """axe does not look at text in SVG."""
    for scheme in ("light", "dark"):
        page = open_report(browser, tmp_path, REPORTS["ecg"], 1280, scheme)
        ratios = page.evaluate(CONTRASTS, "svg.chart text")
        assert len(ratios) > 20
        assert min(ratios) >= 4.5, scheme


CONTRASTS: Final = """(selector) => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = luminance(getComputedStyle(document.querySelector("section")).backgroundColor);
  return [...document.querySelectorAll(selector)].map((node) => luminance(getComputedStyle(node).fill))
    .map((text) => (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05));
}"""
"""The contrast of each text with the section, by the Web Content Accessibility Guidelines 2.1, section 1.4.3."""

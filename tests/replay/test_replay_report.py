"""The report: one well-formed file that loads nothing, with every alert's strip at true scale."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from gateway.replay.run import empty_result
from gateway.replay.sources import Source
from reporting import charts
from reporting.paper import strip_rows
from reporting.report import STRIPS_SHOWN, render
from reporting.result import Replayed, TimedBeat
from sync.records import AlertRecord, GapRecord, QuarantinedRecord, Strip, Times

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Checks nesting; collects tags with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + " "

    def svgs(self, kind: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "svg" and attributes.get("class") == kind]


def result_of(alerts: int = 1, file: str = "a.hea") -> Replayed:
    """Five minutes at 75/min with a gap, a bad payload, and `alerts` pauses of 4 s."""
    result = empty_result(Source(Path(file), "strap", 0, False, ("note <1>",), iter(())))
    result.end_us, result.covered_s, result.ecg_rate_hz = 300_000_000, 290.0, 130.0
    beats = tuple(TimedBeat(round(0.8e6 * index), "N", 1.0) for index in range(1, 370))
    records: list[Any] = [
        GapRecord("strap", "ecg", 100_000_000, 110_000_000, 1300, "the link was lost"),
        QuarantinedRecord("strap", "2a37", Times(5_000_000, 5_000_000, 0), b"\x10", "too short & wrong"),
    ]
    for index in range(alerts):
        onset = 4_000_000 + 5_000_000 * index
        strip = Strip(onset - 3_000_000, 125.0, 0.001, np.zeros(1500, np.int32), (onset, onset + 4_000_000))
        measured = {"pause_s": 4.0, "limit_s": 3.0}
        records.append(
            AlertRecord(
                f"{index}", "strap", "pause", "high", onset, onset + 4_000_000, 0, "rule:pause", (), None, measured, strip
            )
        )
    list(result.add(tuple(records), beats))
    list(result.close())
    return result


def test_the_page_is_whole_and_loads_nothing() -> None:
    html = render([result_of()], ("rr_af 1",), MADE)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href", "srcset"}
    ]
    assert all(address and address.startswith("#") for address in addresses)
    assert not re.search(r"url\(|@import|https?:", html)


def test_it_says_what_a_person_needs() -> None:
    text = " ".join(Page(render([result_of()], ("rr_af 1",), MADE)).text.split())
    for words in (
        "Found in 5:00: pause once (4.0 s).",
        "Not a medical device.",
        "models: rr_af 1",
        "Made 2026-01-02 03:04 UTC",
        "75 /min on average",
        "96.7 % of it at 130 Hz",
        "4.0 s, limit 3 s",
        "the link was lost",
        "1 payload could not be decoded",
        "too short & wrong",
        "note <1>",
    ):
        assert words in text, words


def test_every_picture_has_a_name_and_every_table_its_headings() -> None:
    page = Page(render([result_of()], (), MADE))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 1 + 2 + 2
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[:2] == ["h1", "h2"]
    assert set(headings[2:]) == {"h3"}
    assert all(attributes.get("scope") == "col" for tag, attributes in page.tags if tag == "th")


def test_names_from_files_cannot_become_markup() -> None:
    html = render([result_of(file='<script>alert("x")</script>.csv'), result_of(file="b&b.csv")], (), MADE)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "b&amp;b.csv" in html


def test_a_bad_day_stays_a_page(tmp_path: Path) -> None:
    html = render([result_of(alerts=58)], (), MADE)
    page = Page(html)
    assert len(page.svgs("strip")) == 2 * STRIPS_SHOWN
    assert "18 more strips" in page.text
    assert "8 more rows" in page.text
    assert len(html) < 700_000


def test_years_make_a_page_too() -> None:
    result = result_of()
    result.end_us = 999_999_999_000_000
    assert len(render([result], (), MADE)) < 700_000


def test_an_empty_file_makes_a_page_too() -> None:
    empty = empty_result(Source(Path("a.jsonl"), "strap", 0, True, (), iter(())))
    assert "No alert in 0:00." in Page(render([empty], (), MADE)).text


def test_a_capture_without_ecg_shows_the_sensors_own_rate() -> None:
    result = empty_result(Source(Path("a.jsonl"), "strap", 0, True, (), iter(())))
    result.end_us = 60_000_000
    result.heart_rates.extend((float(t), 70.0 + t % 3) for t in range(60))
    text = " ".join(Page(render([result], (), MADE)).text.split())
    assert "71 /min on average" in text
    assert "As the sensor reported it" in text


def test_a_strip_is_at_true_scale() -> None:
    samples = np.zeros(1500, np.int32)
    samples[125] = 1000
    strip = Strip(10_000_000, 125.0, 0.001, samples, (11_000_000, 12_000_000))
    first, second = strip_rows(strip, lambda at_us: at_us / 1e6, [(11_000_000, "onset")])
    # 10 mm for the calibration pulse and 6 s * 25 mm/s; 1.5 mV * 10 mm/mV and 12 mm for marks; 20 units a mm.
    assert 'viewBox="0 0 3200 540" width="160mm" height="27mm"' in first
    trace = re.search(r'class="trace" d="M200 320l([^"]*)"', first)
    assert trace is not None
    steps = [tuple(map(int, step)) for step in re.findall(r"(-?\d+) (-?\d+)", trace[1])]
    assert len(steps) == 749
    assert {dx for dx, _ in steps} == {4}, "a sample is 4 units: 0.2 mm, 8 ms at 25 mm/s"
    assert steps[124:126] == [(4, -200), (4, 200)], "1 mV is 200 units: 10 mm"
    assert first.count('class="beat"') == 2
    assert '<text class="rr" x="950" y="106">1000</text>' in first
    assert first.count('class="mark"') == 1
    assert 'class="mark"' not in second
    assert 'aria-label="ECG from 0:10 to 0:16, 2 beats"' in first


def test_a_day_is_no_larger_than_what_can_be_seen_of_it() -> None:
    t = np.cumsum(np.full(100_000, 0.86))
    noise = np.random.default_rng(1).normal(0, 10, t.size)
    trend = charts.Trend(t, 70 + noise, 70 + noise / 5)
    svg = charts.timeline("a", float(t[-1]), trend, [], [(1000.0, 2000.0)], [(131.0, "fast")])
    assert len(svg) < 150_000
    assert svg.count('class="gap"') == 1


def test_an_episode_too_short_to_see_is_drawn_all_the_same() -> None:
    nothing = np.array([])
    bars = [charts.Bar(3600.0, 3603.0, "high", "Pause")]
    svg = charts.timeline("a", 86_400.0, charts.Trend(nothing, nothing, nothing), [("Pause", bars)], [], [])
    assert re.search(r'<rect class="bar high" x="[\d.]+" y="[\d.]+" width="4.0"', svg)

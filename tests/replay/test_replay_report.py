"""The report: one well-formed file that loads no other resource, with the samples of every alert's strip."""

import json
import re
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.replay.run import empty_result
from gateway.replay.sources import Source
from reporting import charts
from reporting.report import render
from reporting.result import STRIPS_KEPT
from reporting.strips import draw_trace, strip_json
from reporting.text import format_probability
from sync.records import AlertRecord, GapRecord, IntervalsRecord, Strip, Times, VitalRecord
from tests.replay.results import make_interval_result, make_pulse_result, make_result

CREATED = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Checks nesting; collects tags with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            attributes, script = self.scripts.pop()
            self.scripts.append((attributes, script + data))
        elif "style" not in self.open:
            self.text += data + " "

    @property
    def strips(self) -> list[dict[str, Any]]:
        """The data of the strips."""
        return [json.loads(script) for attributes, script in self.scripts if attributes.get("class") == "strip"]


def test_is_well_formed_and_loads_no_other_resource() -> None:
    html = render([make_result()], ("rr_af 1",), CREATED)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed"}
    addresses = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href", "srcset"}
    ]
    assert all(address and address.startswith("#") for address in addresses)
    assert not re.search(r"url\(|@import|\bimport\b|\bfetch\b", html)
    assert set(re.findall(r"https?://[^\"\s]+", html)) == {"http://www.w3.org/2000/svg"}, "the name of SVG, not an address"


def test_allows_its_one_script_and_style_by_their_hashes_only() -> None:
    html = render([make_result()], ("rr_af 1",), CREATED)
    page = Page(html)
    (script,) = [text for attributes, text in page.scripts if attributes == {"type": "module"}]
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    (policy,) = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert policy == f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'"
    assert not [attributes for _, attributes in page.tags if "style" in attributes]
    assert {attributes.get("type") for attributes, _ in page.scripts} == {"module", "application/json"}


def test_names_findings_sources_and_limits() -> None:
    text = " ".join(Page(render([make_result()], ("rr_af 1",), CREATED)).text.split())
    for words in (
        "Alerts in 5:00 min: pause once (4.0 s).",
        "Not a certified medical device.",
        "models: rr_af 1",
        "Created 2026-01-02 03:04 UTC",
        "75 /min on average",
        "96.7 % at 130 Hz",
        "4.0 s, limit 3 s",
        "the link was lost",
        "Payloads that could not be decoded and are stored as received: 1.",
        "too short & wrong",
        "note <1>",
    ):
        assert words in text, words


def test_without_javascript_the_traces_are_shown_and_a_sentence_says_what_is_missing() -> None:
    html = render([make_result()], (), CREATED)
    assert "<noscript><p>JavaScript is switched off: the strips show the trace only" in html


def test_every_chart_has_a_name_and_every_table_has_headings() -> None:
    page = Page(render([make_result()], (), CREATED))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 1 + 2 + 1
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[:2] == ["h1", "h2"]
    assert set(headings[2:]) == {"h3"}
    assert all(attributes.get("scope") == "col" for tag, attributes in page.tags if tag == "th")


def test_names_from_files_cannot_become_markup() -> None:
    hostile = '<script>alert("x")<b>.csv'
    html = render([make_result(file=hostile), make_result(file="b&b.csv")], (), CREATED)
    assert len(Page(html).scripts) == 3, "one strip for each file and the page's own script"
    assert "&lt;script&gt;" in html
    assert "b&amp;b.csv" in html


def test_labels_from_files_cannot_end_the_strip_data() -> None:
    strip = Strip(0, 125.0, 0.001, np.zeros(10, np.int32), (1,), "</script><b>")
    alert = AlertRecord("0", "strap", "pause", "high", 0, None, 0, "rule:pause", ())
    text = strip_json(alert, strip, int)
    assert "<" not in text
    assert json.loads(text)["strip"]["labels"] == "</script><b>"


def test_leaves_out_strips_and_rows_of_a_day_with_many_alerts() -> None:
    html = render([make_result(alerts=58)], (), CREATED)
    page = Page(html)
    assert len(page.strips) == STRIPS_KEPT
    assert "18 more strips" in page.text
    assert "8 more rows" in page.text
    assert len(html) < 400_000


def test_a_recording_of_years_makes_a_small_page() -> None:
    result = make_result()
    result.end_us = 999_999_999_000_000
    assert len(render([result], (), CREATED)) < 700_000


def test_an_empty_file_makes_a_page() -> None:
    empty = empty_result(Source(Path("a.jsonl"), "strap", 0, True, (), iter(())))
    assert "No ECG or pulse wave in 0.0 s: the rhythm was not checked." in Page(render([empty], (), CREATED)).text


def test_a_capture_without_ecg_shows_the_sensors_own_rate() -> None:
    result = empty_result(Source(Path("a.jsonl"), "strap", 0, True, (), iter(())))
    result.end_us = 60_000_000
    for second in range(60):
        at_us = 1_000_000 * second
        list(result.add((VitalRecord("strap", "heart_rate", Times(at_us, at_us, 0), 70.0 + second % 3),), ()))
    text = " ".join(Page(render([result], (), CREATED)).text.split())
    assert "71 /min on average" in text
    assert "As reported by the sensor" in text


def test_samples_and_times_can_be_restored_from_the_page() -> None:
    samples = np.random.default_rng(1).integers(-2000, 2000, 1500).astype(np.int32)
    samples[125] = 9000
    strip = Strip(10_000_000, 125.0, 0.001, samples, (11_000_000, 12_000_000), "NV")
    alert = AlertRecord("0", "strap", "vt", "high", 11_000_000, None, 0, "rule:vt", ())
    data = json.loads(strip_json(alert, strip, lambda at_us: at_us - 1_000_000))
    assert (data["onset_us"], data["end_us"]) == (10_000_000, None)
    assert (data["strip"]["start_us"], data["strip"]["beats_us"]) == (9_000_000, [10_000_000, 11_000_000])
    assert (data["strip"]["rate_hz"], data["strip"]["labels"]) == (125.0, "NV")
    first, steps = re.findall(r'class="trace" d="M0 (-?\d+)l([^"]*)"', draw_trace(strip, "a"))[0]
    numbers = [int(number) for number in steps.split()]
    assert set(numbers[::2]) == {4}, "500 units are 1 s: 25 mm"
    mv = -np.cumsum([int(first), *numbers[1::2]]) / 200
    assert np.abs(mv - np.clip(samples * 0.001, -3, 3)).max() <= 0.0025 + 1e-9, "rounded to 5 µV and clipped at 3 mV"
    assert mv[125] == 3.0


def test_the_trend_of_a_day_stays_small() -> None:
    t = np.cumsum(np.full(100_000, 0.86))
    noise = np.random.default_rng(1).normal(0, 10, t.size)
    trend = charts.Trend(t, 70 + noise, 70 + noise / 5)
    svg = charts.draw_timeline("a", float(t[-1]), trend, [], [(1000.0, 2000.0)], [(131.0, "fast")])
    assert len(svg) < 150_000
    assert svg.count('class="gap"') == 1


def test_a_very_short_episode_is_drawn_wide_enough_to_see() -> None:
    nothing = np.array([])
    bars = [charts.Bar(3600.0, 3603.0, "high", "Pause")]
    svg = charts.draw_timeline("a", 86_400.0, charts.Trend(nothing, nothing, nothing), [("Pause", bars)], [], [])
    assert re.search(r'<rect class="bar high" x="[\d.]+" y="[\d.]+" width="4.0"', svg)


def test_names_files_without_their_folders() -> None:
    first, second = make_result(file="/home/jane/a.hea"), make_result(file="/home/joe/a.hea")
    first.notes += ["/home/jane/a.hea: cut", "the file /home/jane/a.dat is short"]
    html = render([first, second], (), CREATED)
    assert "/home" not in html
    text = " ".join(Page(html).text.split())
    assert "a.hea (2)" in text
    assert "a.hea: cut" in text
    assert "the file a.dat is short" in text


def test_control_characters_of_a_file_are_written_as_escapes() -> None:
    result = make_result(file="a\x1b[2J.hea")
    result.sensor = "strap\x07"
    result.notes.append("signal 'ECG\x00\x9b'")
    html = render([result], (), CREATED)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", html)
    for shown in (r"a\x1b[2J.hea", r"strap\x07", r"ECG\x00\x9b"):
        assert shown in html


def test_a_pulse_wave_and_intervals_are_called_what_they_are() -> None:
    pulse, intervals = (
        " ".join(Page(render([result], (), CREATED)).text.split()) for result in (make_pulse_result(), make_interval_result())
    )
    for words in (
        "Pulse wave coverage 100.0 % at 64 Hz",
        "Pulses 74",
        "75 /min on average",
        "Dots are single pulses",
        "> 99 %",
    ):
        assert words in pulse, words
    assert "How often each PP interval occurs." in pulse
    assert "RR" not in pulse
    assert "ECG" not in pulse.removesuffix("pulse")
    for words in ("Intervals 59", "60 /min on average", "Dots are single intervals", "No ECG or pulse wave in 59 s"):
        assert words in intervals, words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (1.0, "100 %"), (0.9999999, "> 99 %"), (0.996, "> 99 %"), (0.994, "99 %"), (0.004, "< 1 %"), (0.0, "0 %")],
)
def test_only_a_certain_result_has_a_probability_of_100_percent(value: float | None, shown: str) -> None:
    assert format_probability(value) == shown


def test_a_day_with_a_gap_in_every_second_and_an_alert_in_every_minute_makes_a_small_page() -> None:
    result = make_result(alerts=1440)
    for second in range(86_400):
        from_us = 1_000_000 * second
        list(result.add((GapRecord("strap", "ecg", from_us, from_us + 10_000, 5, "no valid samples"),), ()))
    result.end_us = 86_400_000_000
    html = render([result], (), CREATED)
    text = Page(html).text
    assert len(html) < 1_500_000
    assert "86351 more rows" in text, "of 86,401 gaps 50 are shown"
    assert sum(1 for alert in result.alerts if alert.strip) == STRIPS_KEPT
    assert f"{1440 - STRIPS_KEPT} more strips" in text


@pytest.mark.parametrize("flag", ["implausible", "no_pulse_found", "demonstration"])
def test_heart_rates_that_were_not_measured_are_in_no_figure(flag: str) -> None:
    result = empty_result(Source(Path("a.jsonl"), "strap", 0, False, (), iter(())))
    at = Times(1_000_000, 1_000_000, 0)
    records = (VitalRecord("strap", "heart_rate", at, 70.0, ()), VitalRecord("strap", "heart_rate", at, 255.0, (flag,)))
    assert list(result.add(records, ())) == list(records)
    assert list(result.heart_rates) == [70.0]


def test_intervals_that_are_no_beats_are_in_no_figure() -> None:
    result = make_interval_result()
    before = list(result.intervals_s)
    at = Times(61_000_000, 61_000_000, 0)
    kinds = ("rr_padding", "rr_implausible", "rr_filler", "pp_void", "pp_error")
    list(result.add([IntervalsRecord("strap", kind, at, (900,)) for kind in kinds], ()))
    assert list(result.intervals_s) == before


def test_an_alert_without_an_ecg_says_so(play: Any, tmp_path: Path) -> None:
    path = tmp_path / "strap.csv"
    path.write_text("RR [ms]\n" + "\n".join(["800"] * 30 + ["280"] * 80 + ["800"] * 60))
    result, _ = play(path)
    text = Page(render([result], (), CREATED)).text
    assert "Tachycardia" in text
    assert "rule:tachycardia, from intervals, not an ECG, not confirmed by an ECG" in text

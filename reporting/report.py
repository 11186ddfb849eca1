"""The replay report: one HTML file with trend, alerts and ECG strips that loads nothing from anywhere."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from html import escape
from importlib import metadata
from itertools import groupby
from pathlib import Path
from string import Template
from typing import Final

import numpy as np

from config.limits import DEFAULT_LIMITS
from config.terminal import escape_controls
from reporting import charts
from reporting.assets import read_asset
from reporting.result import VERDICT_TEXTS, Rates, ReplayResult, urgency
from reporting.strips import draw_trace, strip_json
from reporting.text import format_clock, format_probability, format_start, short_names
from sync.records import AlertRecord

TITLES: Final[Mapping[str, str]] = {
    "af": "Possible atrial fibrillation",
    "tachycardia": "Tachycardia",
    "bradycardia": "Bradycardia",
    "pause": "Pause",
    "asystole": "Possible asystole",
    "no_beats": "No heartbeat in the signal",
    "vf": "Possible ventricular fibrillation or flutter",
    "no_signal": "No usable signal",
    "pacing_not_visible": "Pacing not visible",
    "af_burden": "Daily burden of atrial fibrillation",
    "short_pause": "Short pause",
    "vt": "Possible ventricular tachycardia",
    "v_run": "Slow ventricular run",
    "bigeminy": "Ventricular bigeminy",
    "trigeminy": "Ventricular trigeminy",
    "irregular_pulse": "Irregular pulse",
    "irregular_pulse_burden": "Daily burden of irregular pulse",
}
"""The terms of the clinician's page, with "Possible" before the diagnoses. A kind without a title keeps its name."""
SIGNALS: Final = {"ecg": "ECG", "ppg": "Pulse wave", "intervals": "RR interval", None: "Signal"}
BEATS: Final = {"ecg": "beats", "ppg": "pulses", "intervals": "intervals", None: "beats"}
"""What the heart rate is measured from and what is counted, by `ReplayResult.kind`."""
MEASURES: Final[Mapping[str, str]] = {
    "rate_bpm": "{:.0f}/min",
    "pause_s": "{:.1f} s",
    "rr_ms": "RR {:.0f} ms",
    "limit_bpm": "limit {:.0f}/min",
    "limit_s": "limit {:g} s",
    "beats": "{:.0f} beats",
    "cycles": "{:.0f} cycles",
    "limit_beats": "limit {:.0f} beats",
    "limit_cycles": "limit {:.0f} cycles",
    "seconds": "{:.0f} s",
    "episodes": "{:.0f} episodes",
    "longest_s": "longest interval {:.1f} s",
    "episode_s": "latest {:.1f} s",
    "longest_episode_s": "longest {:.1f} s",
    "an_hour": "{:.0f}/h lately",
    "latest_s": "the latest ended {:.0f} s after the onset",
    "origin_unknown": "origin unknown",
    "critical_bpm": "critical limit {:.0f}/min",
    "rate_hz": "{:g} samples a second",
    "limit_hz": "limit {:g} samples a second",
    "maybe_ended": "may have ended",
    "mean_over_s": "averaged over {:.0f} s",
    "af_percent": "AF {:.1f} %",
    "irregular_percent": "irregular pulse {:.1f} %",
    "observed_h": "{:.1f} h observed",
    "limit_percent": "limit {:g} %",
}
"""How each number behind an alert is written, by its key."""
NOT_ECG: Final[Mapping[str, str]] = {
    "not_ecg.intervals": "from intervals, not an ECG",
    "not_ecg.heart_rate": "from the sensor’s heart rate, not an ECG",
    "not_ecg.extreme_rate": "not confirmed by an ECG",
}
"""What the source of an alert without an ECG is, by its reason keys."""
SCROLLED: Final = 'tabindex="0" role="group" aria-label="{}"'
"""A wide chart or table is scrolled on a phone, and by the keyboard if it can have the focus and a name."""
ROWS_SHOWN: Final = 50
"""Rows shown of one table."""
PERIODS_S: Final = (60, 300, 600, 1800, 3600, 14400, 86400)
"""Lengths of one row of the trend's table; the shortest that needs at most 40 rows is used."""


def render(results: Sequence[ReplayResult], models: Sequence[str], created: datetime) -> str:
    """Returns the page. `models` are names with versions for the footer; `created` is the time in UTC."""
    names = [escape_controls(name) for name in short_names([result.file for result in results])]
    sections = [_section(index, name, result) for index, (name, result) in enumerate(zip(names, results, strict=True))]
    contents = "".join(
        f'<li><a href="#file-{index}">{escape(name)}</a> <span class="quiet">{_headline(result)}</span></li>'
        for index, (name, result) in enumerate(zip(names, results, strict=True))
    )
    style = read_asset("static/theme.css") + read_asset("report.css")
    script = read_asset("static/paper.js") + read_asset("report.js")
    return Template(read_asset("report.html")).substitute(
        policy=f"default-src 'none'; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'; base-uri 'none'",
        style=style,
        script=script,
        title=escape(f"Replay of {names[0]}" if len(results) == 1 else f"Replay of {len(results)} files"),
        contents=f'<nav aria-label="Files"><ol>{contents}</ol></nav>' if len(results) > 1 else "",
        sections="".join(sections),
        created=f"{created:%Y-%m-%d %H:%M} UTC",
        version=escape(metadata.version("pulsegate")),
        models=escape(", ".join(models) or "none"),
    )


def _csp_hash(text: str) -> str:
    """The source expression that allows exactly this inline text (Content Security Policy Level 3, section 8.3)."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _text(text: str) -> str:
    """Returns text of foreign origin, such as a name in a file, as HTML without control characters."""
    return escape(escape_controls(text))


def _section(index: int, name: str, result: ReplayResult) -> str:
    rates = result.rates()
    return "".join(
        (
            f'<section id="file-{index}" aria-labelledby="name-{index}"><h2 id="name-{index}">{escape(name)}</h2>',
            f'<p class="lead">{_headline(result)}{_verdict(result)}</p>',
            _facts(result, rates),
            _trend(name, result, rates),
            _alerts(result),
            _rr_plots(result, rates),
            _gaps(result),
            _quarantined(result),
            _notes(name, result),
            "</section>",
        )
    )


def _headline(result: ReplayResult) -> str:
    """Returns one sentence that sums up the alerts, as HTML."""
    length = _duration_text(result.duration_s)
    if not result.alerts and result.kind not in ("ecg", "ppg"):
        return f"No ECG or pulse wave in {length}: the rhythm was not checked."
    if not result.alerts:
        return f"No alerts in {length}."
    parts = []
    for kind, episodes in groupby(sorted(result.alerts, key=urgency), key=lambda alert: alert.kind):
        lengths = [_duration_s(alert, result) for alert in episodes]
        times = "once" if len(lengths) == 1 else f"{len(lengths)} times"
        parts.append(f"<strong>{escape(_title(kind)).lower()}</strong> {times} ({_duration_text(sum(lengths))})")
    text = ", ".join(parts)
    return f"Alerts in {length}: {text}."


def _verdict(result: ReplayResult) -> str:
    """Returns a sentence with the verdict on a short recording, as HTML."""
    verdict = result.verdict
    if verdict is None:
        return ""
    text = escape(VERDICT_TEXTS.get(verdict, verdict))
    return f" Rhythm: {f'<strong>{text}</strong>' if verdict == 'af' else text}."


def _facts(result: ReplayResult, rates: Rates) -> str:
    mean, lowest, highest = rates.mean, rates.lowest, rates.highest
    if mean is None and result.heart_rates:
        mean, lowest, highest = float(np.mean(result.heart_rates)), min(result.heart_rates), max(result.heart_rates)
    start = format_start(result)
    facts = [
        ("Sensor", _text(result.sensor)),
        ("Start", escape(start.replace("T", " ").removesuffix("Z")[:19] + " UTC") if start else "unknown"),
        ("Duration", format_clock(result.duration_s)),
        (f"{SIGNALS[result.kind]} coverage", _coverage(result)),
        (BEATS[result.kind].capitalize(), f"{rates.t.size:,}"),
        ("Heart rate", "unknown" if mean is None else f"<b>{mean:.0f}</b>/min on average"),
        ("Lowest rate", "unknown" if lowest is None else f"{lowest:.0f}/min"),
        ("Highest rate", "unknown" if highest is None else f"{highest:.0f}/min"),
    ]
    return '<dl class="facts">' + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts) + "</dl>"


def _coverage(result: ReplayResult) -> str:
    """Returns the share of the time that has samples; for intervals, the share that they fill."""
    if result.kind is None or not result.duration_s:
        return "none"
    covered_s = sum(result.intervals_s) if result.kind == "intervals" else result.signal.covered_s
    share = f"{100 * min(1.0, covered_s / result.duration_s):.1f} %"
    return share if result.signal.rate_hz is None else f"{share} at {result.signal.rate_hz:.4g} Hz"


def _trend(name: str, result: ReplayResult, rates: Rates) -> str:
    t, per_beat, smoothed = rates.t, rates.per_beat, rates.smoothed
    source = f"Dots are single {BEATS[result.kind]}, the line is the median of five"
    if not t.size:
        t, smoothed = np.array(result.vitals_s), np.array(result.heart_rates)
        per_beat, source = smoothed, "As reported by the sensor" if t.size else "No heart rate is known"
    rows = [
        (_title(kind), [_bar(alert, result) for alert in alerts])
        for kind, alerts in groupby(sorted(result.alerts, key=urgency), key=lambda alert: alert.kind)
    ]
    signal = result.signal
    gaps = [
        (result.seconds(start), result.seconds(end))
        for start, end in sorted(zip(signal.gaps_from_us, signal.gaps_to_us, strict=True))
    ]
    limits = [
        (DEFAULT_LIMITS.tachycardia_rate.value, f"tachycardia from {DEFAULT_LIMITS.tachycardia_rate.value:g}"),
        (DEFAULT_LIMITS.bradycardia_rate.value, f"bradycardia to {DEFAULT_LIMITS.bradycardia_rate.value:g}"),
    ]
    picture = charts.draw_timeline(name, result.duration_s, charts.Trend(t, per_beat, smoothed), rows, gaps, limits)
    shaded = ". Shaded: no signal" if gaps else ""
    caption = (
        f"<figcaption>{source}{shaded}. The bars below the trend are alerts.</figcaption>"
        if rows
        else f"<figcaption>{source}{shaded}.</figcaption>"
    )
    chart = f'<div class="wide" {SCROLLED.format("Heart rate over time")}>{picture}</div>'
    return f"<h3>Heart rate over time</h3><figure>{chart}{caption}</figure>{_periods(rates, result)}"


def _periods(rates: Rates, result: ReplayResult) -> str:
    """Returns the trend as a table, for readers who cannot see the chart."""
    if not rates.t.size:
        return ""
    whole_days = 86400 * math.ceil(result.duration_s / 86400 / 40)
    step = next((step for step in PERIODS_S if result.duration_s / step <= 40), whole_days)
    rows = []
    for start in range(0, int(result.duration_s) + 1, step):
        part = slice(*np.searchsorted(rates.t, (start, start + step)))
        known = rates.smoothed[part][np.isfinite(rates.smoothed[part])]
        figures = [f"{value:.0f}" for value in (np.median(known), known.min(), known.max())] if known.size else ["–"] * 3
        rows.append([format_clock(start), str(rates.t[part].size), *figures])
    return _details(
        "Show as a table", _table(("From", BEATS[result.kind].capitalize(), "Median /min", "Lowest", "Highest"), rows)
    )


def _alerts(result: ReplayResult) -> str:
    if not result.alerts:
        return ""
    rows = [
        [
            escape(_title(alert.kind)),
            f'<span class="tag {escape(alert.priority)}">{escape(alert.priority)}</span>',
            format_clock(result.seconds(alert.onset_us)),
            "–" if alert.end_us is None else format_clock(result.seconds(alert.end_us)),
            _duration_text(_duration_s(alert, result)),
            _measured_text(alert),
            escape(format_probability(alert.probability)),
            escape(", ".join((alert.source, *(NOT_ECG[reason] for reason in alert.reasons if reason in NOT_ECG)))),
        ]
        for alert in result.alerts
    ]
    headings = ("Alert", "Priority", "Onset", "End", "Duration", "Measured", "Probability", "Source")
    shown = sorted((alert for alert in result.alerts if alert.strip), key=urgency)
    left_out = result.strip_count - len(shown)
    more = (
        f"<p>{left_out} more strips of less urgent or later alerts are left out to keep the page small.</p>" if left_out else ""
    )
    strips = "".join(_strip(alert, result) for alert in shown)
    scale = (
        "25 mm/s and 10 mm/mV at full size. Triangles mark detected beats; the numbers between them are the RR interval in ms"
        " and the rate per minute. Letters mark beats that are not normal: S supraventricular, V ventricular, F fusion, ?"
        " unclassified. The calibration pulse at the left edge is 1 mV high and 0.2 s long. The shaded stretch is the episode."
    )
    noscript = (
        "<noscript><p>JavaScript is switched off: the strips show the trace only, without paper, beats and numbers."
        " Nothing else needs it.</p></noscript>"
    )
    pictures = (
        f'<h3>ECG behind the alerts</h3><p class="quiet">{scale}</p>{noscript}<div class="strips">{strips}</div>{more}'
        if shown
        else ""
    )
    return f"<h3>Alerts</h3>{_table(headings, rows)}{pictures}"


def _strip(alert: AlertRecord, result: ReplayResult) -> str:
    if alert.strip is None:
        return ""
    data = strip_json(alert, alert.strip, lambda at_us: at_us - result.start_us)
    start = format_clock(result.seconds(alert.onset_us))
    until = "" if alert.end_us is None else f" to {format_clock(result.seconds(alert.end_us))}"
    tag = f'<span class="tag {escape(alert.priority)}">{escape(alert.priority)}</span>'
    caption = f"<b>{escape(_title(alert.kind))}</b> {tag} {start}{until} · {_measured_text(alert)}"
    picture = draw_trace(alert.strip, f"ECG of {_title(alert.kind)} at {start}")
    script = f'<script type="application/json" class="strip">{data}</script>'
    return f"<figure><figcaption>{caption}</figcaption>{picture}{script}</figure>"


def _rr_plots(result: ReplayResult, rates: Rates) -> str:
    known = ~rates.unknown
    if known.sum() < 20:
        return ""
    name = "PP" if result.kind == "ppg" else "RR"
    caption = f"Each {name} interval against the one before it: a steady rhythm gives one spot, an irregular rhythm a cloud."
    poincare = f"<figure>{charts.draw_poincare(rates.rr_s, known, name)}<figcaption>{caption}</figcaption></figure>"
    caption = f"How often each {name} interval occurs."
    histogram = f"<figure>{charts.draw_histogram(rates.rr_s[known], name)}<figcaption>{caption}</figcaption></figure>"
    return f'<h3>Beat-to-beat intervals</h3><div class="pair">{poincare}{histogram}</div>'


def _gaps(result: ReplayResult) -> str:
    if not result.gaps:
        return ""
    rows = [
        [
            escape(gap.kind),
            format_clock(result.seconds(gap.from_us)),
            _duration_text(((gap.to_us or result.end_us) - gap.from_us) / 1e6),
            "–" if gap.missing is None else f"{gap.missing:,}",
            escape(gap.reason),
        ]
        for gap in result.gaps
    ]
    headings = ("Signal", "Start", "Duration", "Missing samples", "Reason")
    return f"<h3>Gaps</h3>{_table(headings, rows, result.gap_count)}"


def _quarantined(result: ReplayResult) -> str:
    if not result.quarantined:
        return ""
    rows = [
        [
            format_clock(result.seconds(record.times.at_us)),
            f"<code>{_text(record.characteristic)}</code>",
            f"<code>{record.payload[:32].hex(' ')}{'…' if len(record.payload) > 32 else ''}</code>",
            _text(record.reason),
        ]
        for record in result.quarantined
    ]
    count = f"<p>Payloads that could not be decoded and are stored as received: {result.quarantined_count:,}.</p>"
    headings = ("Time", "Characteristic", "Bytes", "Reason")
    return f"<h3>Undecodable payloads</h3>{count}{_table(headings, rows, result.quarantined_count)}"


def _notes(name: str, result: ReplayResult) -> str:
    folder = f"{Path(result.file).parent}/"
    notes = "".join(f"<li>{_text(note.replace(result.file, name).replace(folder, ''))}</li>" for note in result.notes)
    return f"<h3>Notes</h3><ul>{notes}</ul>" if notes else ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], count: int | None = None) -> str:
    """Returns a table; cells are HTML. A long table is followed by the number of rows left out of `count`, or of `rows`."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows[:ROWS_SHOWN])
    left_out = (len(rows) if count is None else count) - ROWS_SHOWN
    more = f"<p>{left_out} more rows are left out; the output of <code>--json</code> has them.</p>" if left_out > 0 else ""
    scrolled = SCROLLED.format(f"Table: {', '.join(headings)}")
    return f'<div class="scroll" {scrolled}><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _bar(alert: AlertRecord, result: ReplayResult) -> charts.Bar:
    onset = result.seconds(alert.onset_us)
    end = onset + _duration_s(alert, result)
    return charts.Bar(
        onset, end, alert.priority, f"{_title(alert.kind)}, {alert.priority}: {format_clock(onset)} to {format_clock(end)}"
    )


def _title(kind: str) -> str:
    return TITLES.get(kind, kind)


def _duration_s(alert: AlertRecord, result: ReplayResult) -> float:
    return ((result.end_us if alert.end_us is None else alert.end_us) - alert.onset_us) / 1e6


def _duration_text(seconds: float) -> str:
    """A duration for people: 3.2 s, 45 s, 4:05 min, 1:02:03 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 60 else f"{format_clock(seconds)} {'h' if seconds >= 3600 else 'min'}"


def _measured_text(alert: AlertRecord) -> str:
    measured = (alert.measured or {}).items()
    return ", ".join(MEASURES[key].format(value) if key in MEASURES else f"{escape(key)} {value:g}" for key, value in measured)

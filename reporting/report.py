"""The replay report: one HTML file with trend, alerts and ECG strips that loads nothing from anywhere."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from html import escape
from importlib import metadata
from itertools import groupby
from string import Template
from typing import Final

import numpy as np

from config.limits import DEFAULT_LIMITS
from reporting import charts
from reporting.assets import read_asset
from reporting.result import Rates, ReplayResult
from reporting.strips import strip_json
from reporting.text import format_clock, format_start
from sync.records import AlertRecord

TITLES: Final[Mapping[str, str]] = {
    "af": "Possible atrial fibrillation",
    "tachycardia": "Tachycardia",
    "bradycardia": "Bradycardia",
    "pause": "Pause",
    "short_pause": "Short pause",
    "vt": "Possible ventricular tachycardia",
    "v_run": "Slow ventricular run",
    "bigeminy": "Ventricular bigeminy",
    "trigeminy": "Ventricular trigeminy",
    "irregular_pulse": "Irregular pulse",
}
"""The terms of the clinician's page, with "Possible" before the diagnoses. A kind without a title keeps its name."""
PRIORITIES: Final = ("high", "medium", "low")
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
    "held": "suppressed since the last alert: {:.0f}",
    "af_percent": "AF {:.1f} %",
    "observed_h": "{:.1f} h observed",
    "limit_percent": "limit {:g} %",
}
"""How each number behind an alert is written, by its key."""
STRIPS_SHOWN: Final = 40
"""Strips shown for one file. At 5 to 10 kB each, a report with this many strips stays below half a megabyte."""
ROWS_SHOWN: Final = 50
"""Rows shown of one table."""
PERIODS_S: Final = (60, 300, 600, 1800, 3600, 14400, 86400)
"""Lengths of one row of the trend's table; the shortest that needs at most 40 rows is used."""


def render(results: Sequence[ReplayResult], models: Sequence[str], created: datetime) -> str:
    """Returns the page. `models` are names with versions for the footer; `created` is the time in UTC."""
    sections = [_section(index, result) for index, result in enumerate(results)]
    contents = "".join(
        f'<li><a href="#file-{index}">{escape(result.file)}</a> <span class="quiet">{_headline(result)}</span></li>'
        for index, result in enumerate(results)
    )
    style = read_asset("static/theme.css") + read_asset("report.css")
    script = read_asset("static/paper.js") + read_asset("report.js")
    return Template(read_asset("report.html")).substitute(
        policy=f"default-src 'none'; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'; base-uri 'none'",
        style=style,
        script=script,
        title=escape(f"Replay of {results[0].file}" if len(results) == 1 else f"Replay of {len(results)} files"),
        contents=f'<nav aria-label="Files"><ol>{contents}</ol></nav>' if len(results) > 1 else "",
        sections="".join(sections),
        created=f"{created:%Y-%m-%d %H:%M} UTC",
        version=escape(metadata.version("pulsegate")),
        models=escape(", ".join(models) or "none"),
    )


def _csp_hash(text: str) -> str:
    """The source expression that allows exactly this inline text (Content Security Policy Level 3, section 8.3)."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _section(index: int, result: ReplayResult) -> str:
    rates = result.rates()
    return "".join(
        (
            f'<section id="file-{index}" aria-labelledby="name-{index}"><h2 id="name-{index}">{escape(result.file)}</h2>',
            f'<p class="lead">{_headline(result)}</p>',
            _facts(result, rates),
            _trend(result, rates),
            _alerts(result),
            _rr_plots(rates),
            _gaps(result),
            _quarantined(result),
            _notes(result),
            "</section>",
        )
    )


def _headline(result: ReplayResult) -> str:
    """Returns one sentence that sums up the alerts, as HTML."""
    length = _duration_text(result.duration_s)
    if not result.alerts:
        return f"No alerts in {length}."
    parts = []
    for kind, episodes in groupby(sorted(result.alerts, key=_urgency), key=lambda alert: alert.kind):
        lengths = [_duration_s(alert, result) for alert in episodes]
        times = "once" if len(lengths) == 1 else f"{len(lengths)} times"
        parts.append(f"<strong>{escape(_title(kind)).lower()}</strong> {times} ({_duration_text(sum(lengths))})")
    text = ", ".join(parts)
    return f"Alerts in {length}: {text}."


def _facts(result: ReplayResult, rates: Rates) -> str:
    mean, lowest, highest = rates.mean, rates.lowest, rates.highest
    if mean is None and result.heart_rates:
        values = [value for _, value in result.heart_rates]
        mean, lowest, highest = float(np.mean(values)), min(values), max(values)
    coverage = 100 * min(1.0, result.covered_s / result.duration_s) if result.duration_s else 0.0
    start = format_start(result)
    facts = [
        ("Sensor", escape(result.sensor)),
        ("Start", escape(start.replace("T", " ").removesuffix("Z")[:19] + " UTC") if start else "unknown"),
        ("Duration", format_clock(result.duration_s)),
        ("ECG coverage", f"{coverage:.1f} %" + (f" at {result.ecg_rate_hz:.4g} Hz" if result.ecg_rate_hz else "")),
        ("Beats", f"{len(result.beats):,}"),
        ("Heart rate", "unknown" if mean is None else f"<b>{mean:.0f}</b>/min on average"),
        ("Lowest rate", "unknown" if lowest is None else f"{lowest:.0f}/min"),
        ("Highest rate", "unknown" if highest is None else f"{highest:.0f}/min"),
    ]
    return '<dl class="facts">' + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts) + "</dl>"


def _trend(result: ReplayResult, rates: Rates) -> str:
    t, per_beat, smoothed = rates.t, rates.per_beat, rates.smoothed
    source = "Dots are single beats, the line is the median of five"
    if not t.size and result.heart_rates:
        t, smoothed = np.array(result.heart_rates, np.float64).T
        per_beat, source = smoothed, "As reported by the sensor"
    rows = [
        (_title(kind), [_bar(alert, result) for alert in alerts])
        for kind, alerts in groupby(sorted(result.alerts, key=_urgency), key=lambda alert: alert.kind)
    ]
    gaps = [
        (result.seconds(gap.from_us), result.seconds(gap.to_us or result.end_us)) for gap in result.gaps if gap.missing != 0
    ]
    limits = [
        (DEFAULT_LIMITS.tachycardia_rate.value, f"tachycardia from {DEFAULT_LIMITS.tachycardia_rate.value:g}"),
        (DEFAULT_LIMITS.bradycardia_rate.value, f"bradycardia to {DEFAULT_LIMITS.bradycardia_rate.value:g}"),
    ]
    picture = charts.draw_timeline(result.file, result.duration_s, charts.Trend(t, per_beat, smoothed), rows, gaps, limits)
    shaded = ". Shaded: no signal" if gaps else ""
    caption = (
        f"<figcaption>{source}{shaded}. The bars below the trend are alerts.</figcaption>"
        if rows
        else f"<figcaption>{source}{shaded}.</figcaption>"
    )
    return f'<h3>Heart rate over time</h3><figure><div class="wide">{picture}</div>{caption}</figure>{_periods(rates, result)}'


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
    return _details("Show as a table", _table(("From", "Beats", "Median /min", "Lowest", "Highest"), rows))


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
            "–" if alert.probability is None else f"{100 * alert.probability:.0f} %",
            escape(alert.source),
        ]
        for alert in result.alerts
    ]
    headings = ("Alert", "Priority", "Onset", "End", "Duration", "Measured", "Probability", "Source")
    shown = sorted((alert for alert in result.alerts if alert.strip), key=_urgency)[:STRIPS_SHOWN]
    left_out = sum(1 for alert in result.alerts if alert.strip) - len(shown)
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
        "<noscript><p>The ECG strips are drawn by JavaScript, which is switched off. Nothing else needs it.</p></noscript>"
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
    return f'<figure><figcaption>{caption}</figcaption><script type="application/json" class="strip">{data}</script></figure>'


def _rr_plots(rates: Rates) -> str:
    known = ~rates.unknown
    if known.sum() < 20:
        return ""
    caption = "Each RR interval against the one before it: a steady rhythm gives one spot, an irregular rhythm a cloud."
    poincare = f"<figure>{charts.draw_poincare(rates.rr_s, known)}<figcaption>{caption}</figcaption></figure>"
    caption = "How often each RR interval occurs."
    histogram = f"<figure>{charts.draw_histogram(rates.rr_s[known])}<figcaption>{caption}</figcaption></figure>"
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
    return f"<h3>Gaps</h3>{_table(('Signal', 'Start', 'Duration', 'Missing samples', 'Reason'), rows)}"


def _quarantined(result: ReplayResult) -> str:
    if not result.quarantined:
        return ""
    rows = [
        [
            format_clock(result.seconds(record.times.at_us)),
            f"<code>{escape(record.characteristic)}</code>",
            f"<code>{record.payload[:32].hex(' ')}{'…' if len(record.payload) > 32 else ''}</code>",
            escape(record.reason),
        ]
        for record in result.quarantined
    ]
    count = f"<p>Payloads that could not be decoded and are stored as received: {result.quarantined_count:,}.</p>"
    return f"<h3>Undecodable payloads</h3>{count}{_table(('Time', 'Characteristic', 'Bytes', 'Reason'), rows)}"


def _notes(result: ReplayResult) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    return f"<h3>Notes</h3><ul>{notes}</ul>" if notes else ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table; cells are HTML. A long table is followed by the number of rows left out."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows[:ROWS_SHOWN])
    left_out = len(rows) - ROWS_SHOWN
    more = f"<p>{left_out} more rows are left out; the output of <code>--json</code> has them.</p>" if left_out > 0 else ""
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _bar(alert: AlertRecord, result: ReplayResult) -> charts.Bar:
    onset = result.seconds(alert.onset_us)
    end = onset + _duration_s(alert, result)
    return charts.Bar(
        onset, end, alert.priority, f"{_title(alert.kind)}, {alert.priority}: {format_clock(onset)} to {format_clock(end)}"
    )


def _urgency(alert: AlertRecord) -> tuple[int, str, int]:
    """Sort key: the most urgent alerts first, then by kind, then by onset."""
    priority = PRIORITIES.index(alert.priority) if alert.priority in PRIORITIES else len(PRIORITIES)
    return priority, alert.kind, alert.onset_us


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

"""The replay's page for people: one HTML file that loads nothing from anywhere."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib import metadata, resources
from itertools import groupby
from string import Template
from typing import Final

import numpy as np

from config.limits import DEFAULT_LIMITS
from reporting import charts
from reporting.paper import strip_rows
from reporting.result import Rates, Replayed
from reporting.text import clock, start_time
from sync.records import AlertRecord

TITLES: Final[Mapping[str, str]] = {
    "af": "Possible atrial fibrillation",
    "tachycardia": "Fast heart rate",
    "bradycardia": "Slow heart rate",
    "pause": "Pause",
    "short_pause": "Short pause",
    "vt": "Possible ventricular tachycardia",
    "v_run": "Several extra beats in a row",
    "bigeminy": "Every second beat extra",
    "trigeminy": "Every third beat extra",
    "irregular_pulse": "Irregular pulse",
}
"""Non-diagnostic wording: a model suggests, a clinician decides. A kind without a title is shown by its name."""
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
    "held": "{:.0f} held back",
    "af_percent": "AF {:.1f} %",
    "observed_h": "{:.1f} h observed",
    "limit_percent": "limit {:g} %",
}
STRIPS_SHOWN: Final = 40
"""Strips of one file: some 10 kB each keeps a page of a bad day below half a megabyte."""
ROWS_SHOWN: Final = 50
PERIODS_S: Final = (60, 300, 600, 1800, 3600, 14400, 86400)


def render(results: Sequence[Replayed], models: Sequence[str], made: datetime) -> str:
    """The page. `models` are names with versions for the footer, `made` is when the report was made (UTC)."""
    sections = [_section(index, result) for index, result in enumerate(results)]
    contents = "".join(
        f'<li><a href="#file-{index}">{escape(result.file)}</a> <span class="muted">{_headline(result)}</span></li>'
        for index, result in enumerate(results)
    )
    return Template(_resource("report.html")).substitute(
        style=_resource("report.css"),
        title=escape(f"Replay of {results[0].file}" if len(results) == 1 else f"Replay of {len(results)} files"),
        contents=f'<nav aria-label="Files"><ol>{contents}</ol></nav>' if len(results) > 1 else "",
        sections="".join(sections),
        made=f"{made:%Y-%m-%d %H:%M} UTC",
        version=escape(metadata.version("pulsegate")),
        models=escape(", ".join(models) or "none"),
    )


def _section(index: int, result: Replayed) -> str:
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


def _headline(result: Replayed) -> str:
    """What was found, in one sentence."""
    length = clock(result.duration_s)
    if not result.alerts:
        return f"No alert in {length}."
    parts = []
    for kind, episodes in groupby(sorted(result.alerts, key=_rank), key=lambda alert: alert.kind):
        lengths = [_length_s(alert, result) for alert in episodes]
        times = "once" if len(lengths) == 1 else f"{len(lengths)} times"
        parts.append(f"<strong>{escape(_title(kind)).lower()}</strong> {times} ({_spoken(sum(lengths))})")
    text = ", ".join(parts)
    return f"Found in {length}: {text}."


def _facts(result: Replayed, rates: Rates) -> str:
    mean, lowest, highest = rates.mean, rates.lowest, rates.highest
    if mean is None and result.heart_rates:
        values = [value for _, value in result.heart_rates]
        mean, lowest, highest = float(np.mean(values)), min(values), max(values)
    coverage = 100 * min(1.0, result.covered_s / result.duration_s) if result.duration_s else 0.0
    start = start_time(result)
    facts = [
        ("Sensor", escape(result.sensor)),
        ("Began", escape(start.replace("T", " ").removesuffix("Z")[:19] + " UTC") if start else "not known"),
        ("Duration", clock(result.duration_s)),
        ("ECG", f"{coverage:.1f} % of it" + (f" at {result.ecg_rate_hz:.4g} Hz" if result.ecg_rate_hz else "")),
        ("Beats", f"{len(result.beats):,}"),
        ("Heart rate", "not known" if mean is None else f"<b>{mean:.0f}</b>/min on average"),
        ("Lowest", "not known" if lowest is None else f"{lowest:.0f}/min"),
        ("Highest", "not known" if highest is None else f"{highest:.0f}/min"),
    ]
    return '<dl class="facts">' + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts) + "</dl>"


def _trend(result: Replayed, rates: Rates) -> str:
    t, each, smoothed = rates.t, rates.each, rates.smoothed
    told = "Dots are single beats, the line the median of five"
    if not t.size and result.heart_rates:
        t, smoothed = np.array(result.heart_rates, np.float64).T
        each, told = smoothed, "As the sensor reported it"
    rows = [
        (_title(kind), [_bar(alert, result) for alert in alerts])
        for kind, alerts in groupby(sorted(result.alerts, key=_rank), key=lambda alert: alert.kind)
    ]
    gaps = [
        (result.seconds(gap.from_us), result.seconds(gap.to_us or result.end_us)) for gap in result.gaps if gap.missing != 0
    ]
    limits = [
        (DEFAULT_LIMITS.tachycardia_rate.value, f"fast from {DEFAULT_LIMITS.tachycardia_rate.value:g}"),
        (DEFAULT_LIMITS.bradycardia_rate.value, f"slow to {DEFAULT_LIMITS.bradycardia_rate.value:g}"),
    ]
    picture = charts.timeline(result.file, result.duration_s, charts.Trend(t, each, smoothed), rows, gaps, limits)
    shaded = "; shaded where there is no signal" if gaps else ""
    caption = (
        f"<figcaption>{told}{shaded}. Bars below are alerts.</figcaption>"
        if rows
        else f"<figcaption>{told}{shaded}.</figcaption>"
    )
    return f'<h3>Heart rate over time</h3><figure><div class="wide">{picture}</div>{caption}</figure>{_periods(rates, result)}'


def _periods(rates: Rates, result: Replayed) -> str:
    """The trend as a table, for those who cannot see it."""
    if not rates.t.size:
        return ""
    whole_days = 86400 * math.ceil(result.duration_s / 86400 / 40)
    step = next((step for step in PERIODS_S if result.duration_s / step <= 40), whole_days)
    rows = []
    for start in range(0, int(result.duration_s) + 1, step):
        part = slice(*np.searchsorted(rates.t, (start, start + step)))
        known = rates.smoothed[part][np.isfinite(rates.smoothed[part])]
        figures = [f"{value:.0f}" for value in (np.median(known), known.min(), known.max())] if known.size else ["–"] * 3
        rows.append([clock(start), str(rates.t[part].size), *figures])
    return _details("The same as a table", _table(("From", "Beats", "Median /min", "Lowest", "Highest"), rows))


def _alerts(result: Replayed) -> str:
    if not result.alerts:
        return ""
    rows = [
        [
            escape(_title(alert.kind)),
            f'<span class="tag {escape(alert.priority)}">{escape(alert.priority)}</span>',
            clock(result.seconds(alert.onset_us)),
            "–" if alert.end_us is None else clock(result.seconds(alert.end_us)),
            _spoken(_length_s(alert, result)),
            _measured(alert),
            "–" if alert.probability is None else f"{100 * alert.probability:.0f} %",
            escape(alert.source),
        ]
        for alert in result.alerts
    ]
    headings = ("Alert", "Priority", "Onset", "End", "Length", "Measured", "Probability", "By")
    shown = sorted((alert for alert in result.alerts if alert.strip), key=_rank)[:STRIPS_SHOWN]
    left_out = sum(1 for alert in result.alerts if alert.strip) - len(shown)
    more = (
        f"<p>{left_out} more strips, of later and less urgent alerts, are left out to keep the page small.</p>"
        if left_out
        else ""
    )
    strips = "".join(_strip(alert, result) for alert in shown)
    scale = "25 mm/s and 10 mm/mV at full size. Triangles are detected beats, numbers the RR intervals in ms."
    pictures = (
        f'<h3>ECG behind the alerts</h3><p class="muted">{scale}</p><div class="strips">{strips}</div>{more}' if shown else ""
    )
    return f"<h3>Alerts</h3>{_table(headings, rows)}{pictures}"


def _strip(alert: AlertRecord, result: Replayed) -> str:
    if alert.strip is None:
        return ""
    marks = [(alert.onset_us, "onset")] + ([(alert.end_us, "end")] if alert.end_us is not None else [])
    rows = "".join(strip_rows(alert.strip, result.seconds, marks))
    until = "" if alert.end_us is None else f" to {clock(result.seconds(alert.end_us))}"
    tag = f'<span class="tag {escape(alert.priority)}">{escape(alert.priority)}</span>'
    caption = f"<b>{escape(_title(alert.kind))}</b> {tag} {clock(result.seconds(alert.onset_us))}{until} · {_measured(alert)}"
    return f"<figure><figcaption>{caption}</figcaption>{rows}</figure>"


def _rr_plots(rates: Rates) -> str:
    known = ~rates.after_gap
    if known.sum() < 20:
        return ""
    told = "Each RR interval against the one before: a steady rhythm is one spot, an irregular one a cloud."
    spread = f"<figure>{charts.poincare(rates.rr_s, known)}<figcaption>{told}</figcaption></figure>"
    counts = f"<figure>{charts.histogram(rates.rr_s[known])}<figcaption>How often each interval occurs.</figcaption></figure>"
    return f'<h3>Beat-to-beat intervals</h3><div class="pair">{spread}{counts}</div>'


def _gaps(result: Replayed) -> str:
    if not result.gaps:
        return ""
    rows = [
        [
            escape(gap.kind),
            clock(result.seconds(gap.from_us)),
            _spoken(((gap.to_us or result.end_us) - gap.from_us) / 1e6),
            "–" if gap.missing is None else f"{gap.missing:,}",
            escape(gap.reason),
        ]
        for gap in result.gaps
    ]
    return f"<h3>Gaps</h3>{_table(('Signal', 'From', 'Length', 'Samples', 'Why'), rows)}"


def _quarantined(result: Replayed) -> str:
    if not result.quarantined:
        return ""
    rows = [
        [
            clock(result.seconds(record.times.at_us)),
            f"<code>{escape(record.characteristic)}</code>",
            f"<code>{record.payload[:32].hex(' ')}{'…' if len(record.payload) > 32 else ''}</code>",
            escape(record.reason),
        ]
        for record in result.quarantined
    ]
    count = result.quarantined_count
    told = f"<p>{count:,} payload{'s' if count > 1 else ''} could not be decoded, and are kept as they came.</p>"
    return f"<h3>Not decoded</h3>{told}{_table(('At', 'Characteristic', 'Bytes', 'Why'), rows)}"


def _notes(result: Replayed) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    return f"<h3>Notes</h3><ul>{notes}</ul>" if notes else ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML. Long tables end with how many rows were left out."""
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows[:ROWS_SHOWN])
    left_out = len(rows) - ROWS_SHOWN
    more = f"<p>{left_out} more rows are left out; they are in the output of <code>--json</code>.</p>" if left_out > 0 else ""
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{content}</details>"


def _bar(alert: AlertRecord, result: Replayed) -> charts.Bar:
    onset = result.seconds(alert.onset_us)
    end = onset + _length_s(alert, result)
    return charts.Bar(onset, end, alert.priority, f"{_title(alert.kind)}, {alert.priority}: {clock(onset)} to {clock(end)}")


def _rank(alert: AlertRecord) -> tuple[int, str, int]:
    """The most urgent first, one kind together, then by time."""
    priority = PRIORITIES.index(alert.priority) if alert.priority in PRIORITIES else len(PRIORITIES)
    return priority, alert.kind, alert.onset_us


def _title(kind: str) -> str:
    return TITLES.get(kind, kind)


def _length_s(alert: AlertRecord, result: Replayed) -> float:
    return ((result.end_us if alert.end_us is None else alert.end_us) - alert.onset_us) / 1e6


def _spoken(seconds: float) -> str:
    """A length as a person says it: 3.2 s, 45 s, 4:05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 60 else f"{clock(seconds)} {'h' if seconds >= 3600 else 'min'}"


def _measured(alert: AlertRecord) -> str:
    return ", ".join(_phrases(alert.measured or {}))


def _phrases(measured: Mapping[str, float]) -> Iterable[str]:
    for key, value in measured.items():
        yield MEASURES[key].format(value) if key in MEASURES else f"{escape(key)} {value:g}"


def _resource(name: str) -> str:
    return (resources.files("reporting") / name).read_text(encoding="utf-8")

"""Formats the report of `pulsegate evaluate alerts` as tables for people; `--json` has every figure."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from config.terminal import escape_controls


def build_alert_tables(report: Mapping[str, Any], title: str = "") -> Iterator[Table]:
    """Yields the tables of a report: dangerous rhythms, kinds, high alerts outside, alarms, noise, and records left out."""
    if "kinds" in report:
        yield _long_table(report["long"], title)
        yield _kind_table(report["kinds"], title)
        yield _outside_table(report["outside"], title)
    if "cinc2015" in report:
        yield _alarm_table(report["cinc2015"])
    for kind, levels in report.get("noise", {}).items():
        for snr_db, noisy in levels.items():
            yield from build_alert_tables(noisy, f", {kind} at {snr_db} dB")
    if report["skipped"]:
        table = Table("record", "reason", title=f"left out{title}")
        for name, reason in report["skipped"].items():
            table.add_row(_literal(name), _literal(reason))
        yield table


def _long_table(long: Mapping[str, Any], title: str) -> Table:
    table = Table(
        *("rhythm", "episodes", "found", "missed", "% (95 %)", "% covered", "latency p95, s", "found", "% covered"),
        title=f"10 s or longer, high alert; last columns: of an episode that lasted{title}",
    )
    for kind, figures in long.items():
        share = _with_interval(figures["se"], figures["se_95"])
        counts = [str(figures[key]) for key in ("episodes", "found", "missed")]
        lasting = figures["lasting"]
        table.add_row(
            *(kind, *counts, share, _text(figures["covered"]), _text(figures["latency_s"]["p95"])),
            *(str(lasting["found"]), _text(lasting["covered"])),
        )
    return table


def _kind_table(kinds: Mapping[str, Any], title: str) -> Table:
    table = Table("kind", "episodes", "Se", "latency p95, s", "alerts", "P+", "false", "a patient-day", title=f"by kind{title}")
    for kind, figures in kinds.items():
        table.add_row(
            _literal(kind),
            str(figures["episodes"]),
            _with_interval(figures["se"], figures["se_95"]),
            _text(figures["latency_s"]["p95"]),
            str(figures["alerts"]),
            _with_interval(figures["ppv"], figures["ppv_95"]),
            str(figures["false"]),
            _text(figures["false_per_patient_day"]["all"]),
        )
    return table


def _outside_table(outside: Mapping[str, Any], title: str) -> Table:
    caption = (
        f"{outside['high']} in {outside['hours']} h: {_with_interval(outside['high_per_hour'], outside['high_per_hour_95'])}"
        f" an hour, at most {_text(outside['high_per_hour_upper_95'])} (one-sided 95 %)"
    )
    table = Table("record", "kind", "onset, s", "raised, s", "open, s", title=f"high alerts outside{title}", caption=caption)
    for alert in outside["alerts"]:
        table.add_row(
            _literal(alert["record"]), alert["kind"], *(_text(alert[key]) for key in ("onset_s", "raised_s", "open_s"))
        )
    return table


def _alarm_table(challenge: Mapping[str, Any]) -> Table:
    table = Table("alarm", "score", "tp", "tn", "fp", "fn", title="CinC 2015: (TP + TN) / (TP + TN + FP + 5 FN)")
    for kind, figures in ({"all": challenge} | challenge["alarms"]).items():
        table.add_row(kind, _text(figures["score"]), *(str(figures[key]) for key in ("tp", "tn", "fp", "fn")))
    return table


def _with_interval(value: Any, interval: Any) -> str:
    return f"{_text(value)} ({interval[0]:.4g}–{interval[1]:.4g})" if interval else _text(value)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _literal(text: str) -> str:
    """Returns a text of a file, such as a record's name, so that rich and the terminal show it as it is."""
    return escape(escape_controls(text))

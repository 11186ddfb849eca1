"""The output of replay: JSON lines for programs, a table for people.

Each line is one JSON object with `type`, `file` and `t`, the seconds from the start of the file (rounded to 1 ms). Lines are
written in the order in which they became final. A gap, finding or alert is written **when it is over** or at the end of the
file, with its final values: `onset` (equal to `t`) and `end`, on the same time scale as `t`. `end` is null only if the episode
was still in progress when the stream ended, or its signal was lost. An alert is over when no further episode can open it
again; it has one line for each kind and priority that it had, with the same `id`, and `raised`, when it came to these. A
`summary` ends the output of each file. Samples are not written.
"""

import io
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from config.terminal import escape_controls
from drivers.kinds import unit_of
from drivers.readings import TICKS_PER_SECOND
from reporting.result import VERDICT_TEXTS, OutputRecord, ReplayResult, TimedBeat, interval_ends
from reporting.text import format_clock, format_probability, format_start
from sync.records import AlertRecord, FindingRecord, GapRecord, IntervalsRecord, QuarantinedRecord, StatusRecord, VitalRecord

if TYPE_CHECKING:
    from rich.table import Table

Json = dict[str, Any]
LONGEST_NAME: Final = 80
"""Most characters of a file name in the table. The column is narrow, so a longer name would take many rows."""
PRIORITY_STYLES: Final[Mapping[str, str]] = {"high": "bold red", "medium": "yellow", "low": "cyan"}


def json_lines(record: OutputRecord, result: ReplayResult) -> Iterator[Json]:
    """Yields the objects for one record or beat: a single one, except for an `IntervalsRecord`, which has one per interval."""
    match record:
        case IntervalsRecord():
            yield from _intervals(record, result)
        case TimedBeat():
            yield _object("beat", result, record.at_us, label=record.label)
        case VitalRecord(kind=kind, value=value, flags=flags):
            fields = {"kind": kind, "value": value, "unit": unit_of(kind), "flags": list(flags), **_origin(record)}
            yield _object("vital", result, record.times.at_us, **fields)
        case StatusRecord(kind=kind, value=value):
            yield _object("status", result, record.times.at_us, kind=kind, value=value, **_origin(record))
        case QuarantinedRecord(characteristic=characteristic, payload=payload, reason=reason):
            fields = {"characteristic": characteristic, "payload": payload.hex(), "reason": reason}
            yield _object("quarantined", result, record.times.at_us, **fields)
        case GapRecord(kind=kind, missing=missing, reason=reason):
            span = _span(result, record.from_us, record.to_us)
            yield _object("gap", result, record.from_us, kind=kind, **span, missing=missing, reason=reason)
        case FindingRecord():
            yield _object(
                "finding",
                result,
                record.onset_us,
                kind=record.kind,
                **_finding_fields(record, result),
                inconclusive=record.inconclusive,
            )
        case AlertRecord():
            more = {
                "priority": record.priority,
                **_finding_fields(record, result),
                "reasons": list(record.reasons),
                "id": record.id,
                "raised": _seconds(result, record.decided_us if record.raised_us is None else record.raised_us),
            }
            yield _object("alert", result, record.onset_us, kind=record.kind, **more)


def summary(result: ReplayResult) -> Json:
    """Returns the object that ends the output of a file: its duration and counts. It is the same in every run on a file.

    `read_as` is what the rates are measured from: `ecg`, `ppg` (its beats are pulses), `intervals`, or null. `verdict` is what
    an ECG of at most a minute shows: `normal`, `af`, `other`, or why nothing can be said, as `too_short` or `noise`; null for
    other files.
    """
    rates = result.rates()
    return _object(
        "summary",
        result,
        result.end_us,
        sensor=result.sensor,
        start=format_start(result),
        duration=round(result.duration_s, 3),
        read_as=result.kind,
        ecg_seconds=round(result.ecg.covered_s, 3),
        ppg_seconds=round(result.ppg.covered_s, 3),
        beats=len(result.signal.beats_us),
        mean_rate=_rounded(rates.mean),
        lowest_rate=_rounded(rates.lowest),
        highest_rate=_rounded(rates.highest),
        verdict=result.verdict,
        alerts=dict(sorted(Counter(alert.kind for alert in result.alerts).items())),
        gaps=result.gap_count,
        quarantined=result.quarantined_count,
        notes=result.notes,
        complete=result.failure is None,
    )


def print_table(results: Sequence[ReplayResult]) -> None:
    """Prints a table with one row per file, one with one row per alert, the verdicts on short recordings, and the notes."""
    from rich.console import Console  # noqa: PLC0415  the JSON output starts 0.1 s faster without it
    from rich.markup import escape  # noqa: PLC0415  as above

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name need not be valid Unicode, and the encoding may lack a character
    console = Console(highlight=False)
    names = _display_names(results)
    console.print(_files_table(results, names))
    if any(result.alerts for result in results):
        console.print(_alerts_table(results, names))
    for result, name in zip(results, names, strict=True):
        if result.verdict:
            console.print(f"{name}: rhythm: {escape(VERDICT_TEXTS.get(result.verdict, result.verdict))}")
        for note in result.notes:
            console.print(f"{name}: {escape(escape_controls(note))}", style="dim")


def _files_table(results: Sequence[ReplayResult], names: Sequence[str]) -> "Table":
    table = _table("Replayed", "File", "Duration", "Beats", "Mean /min", "Alerts", "Gaps", "Errors", "Speed")
    for result, name in zip(results, names, strict=True):
        mean = result.rates().mean
        table.add_row(
            name,
            format_clock(result.duration_s),
            str(len(result.signal.beats_us)),
            "–" if mean is None else f"{mean:.0f}",
            str(len(result.alerts)),
            str(result.gap_count),
            str(result.quarantined_count),
            f"{result.duration_s / result.replay_s:,.0f}×" if result.replay_s > 0 else "–",
        )
    return table


def _alerts_table(results: Sequence[ReplayResult], names: Sequence[str]) -> "Table":
    table = _table("Alerts", "File", "Kind", "Priority", "Onset", "End", "Probability")
    for result, name in zip(results, names, strict=True):
        for alert in result.alerts:
            style = PRIORITY_STYLES.get(alert.priority, "")
            table.add_row(
                name,
                alert.kind,
                f"[{style}]{alert.priority}[/]" if style else alert.priority,
                format_clock(result.seconds(alert.onset_us)),
                "–" if alert.end_us is None else format_clock(result.seconds(alert.end_us)),
                format_probability(alert.probability),
            )
    return table


def _table(title: str, *headings: str) -> "Table":
    from rich import box  # noqa: PLC0415  the JSON output starts 0.1 s faster without it
    from rich.table import Table  # noqa: PLC0415  as above

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="left" if heading in ("File", "Kind", "Priority") else "right")
    return table


def _display_names(results: Sequence[ReplayResult]) -> list[str]:
    """Returns the file names, with their folders where two names are equal; long ones without their middle."""
    from rich.markup import escape  # noqa: PLC0415  as above

    names = [Path(result.file).name for result in results]
    shown = [name if names.count(name) == 1 else result.file for name, result in zip(names, results, strict=True)]
    return [escape(_shorten(escape_controls(name))) for name in shown]


def _shorten(name: str) -> str:
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _object(type_: str, result: ReplayResult, at_us: int, /, **fields: object) -> Json:
    return {"type": type_, "file": result.file, "t": _seconds(result, at_us), **fields}


def _seconds(result: ReplayResult, at_us: int) -> float:
    return round(result.seconds(at_us), 3)


def _span(result: ReplayResult, from_us: int, to_us: int | None) -> Json:
    return {"onset": _seconds(result, from_us), "end": None if to_us is None else _seconds(result, to_us)}


def _finding_fields(record: FindingRecord | AlertRecord, result: ReplayResult) -> Json:
    measured = dict(record.measured) if record.measured else {}
    span = _span(result, record.onset_us, record.end_us)
    return {**span, "probability": record.probability, "measured": measured, "source": record.source}


def _intervals(record: IntervalsRecord, result: ReplayResult) -> Iterator[Json]:
    """Yields each interval at the beat that ends it."""
    for at_us, ticks in interval_ends(record):
        yield _object("interval", result, at_us, kind=record.kind, ms=round(ticks * 1000 / TICKS_PER_SECOND, 3))


def _origin(record: VitalRecord | StatusRecord) -> Json:
    return {"origin": asdict(record.origin)} if record.origin else {}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)

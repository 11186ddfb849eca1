"""Formats reports as tables for people; `--json` has every figure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from config.terminal import escape_controls

COLUMNS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "qrs": tuple((window, key) for window in ("150ms", "50ms") for key in ("se", "ppv", "f1")),
    "beats": tuple((name, key) for name in "VSF" for key in ("se", "ppv")),
    "rr-af": (
        ("duration", "se"),
        ("duration", "sp"),
        ("episodes_10min", "se"),
        ("latency_s", "median"),
        ("false_alerts_per_patient_day", "mean"),
        ("alerts", "af"),
        ("alerts", "flutter"),
        ("alerts", "false"),
    ),
    "pulse": (("pulse_f1",), ("pp_error_ms", "median"), ("pp_error_ms", "p95"), ("coverage",)),
    "rhythm": (("f1_mean",), ("f1", "N"), ("f1", "A"), ("f1", "O"), ("f1", "~"), ("ece",)),
}
"""The columns of a record, a database or a perturbation, by task."""

OWN_TABLES: Final = frozenset(
    {"records", "confusion", "plain", "noise", "drop", "fs", "skipped", "paced", "task", "interval_95", "databases"}
)
"""Parts of a report that have a table of their own, or none."""
RATES: Final = ("se", "ppv", "f1", "tp", "fp", "fn")
PERTURBATIONS: Final = ("noise", "drop", "fs")


def build_tables(task: str, report: Mapping[str, Any]) -> Iterator[Table]:
    """Yields the tables: records, gross figures, databases, confusion matrix, perturbations, and the records left out."""
    columns = COLUMNS[task]
    records: Mapping[str, Any] = report.get("records", {})
    if records:
        yield _rows(f"{task}, by record", "record", dict(records), None if task == "rhythm" else columns)
    yield from _figures(
        task, {key: part for key, part in report.items() if key not in OWN_TABLES}, report.get("interval_95", {})
    )
    if "databases" in report:
        yield _rows(f"{task}, by database", "database", report["databases"], columns)
    if "confusion" in report:
        yield _rows("reference in rows, called in columns", "", report["confusion"], None)
    for kind in PERTURBATIONS:
        if kind in report:
            yield _rows(kind, "perturbation", dict(_perturbations(report[kind])), columns)
    left_out = {name: {"reason": "paced beats"} for name in report.get("paced", ())}
    left_out |= {name: {"reason": reason} for name, reason in dict(report.get("skipped", {})).items()}
    if left_out:
        yield _rows("left out", "record", left_out, None)


def _figures(task: str, report: Mapping[str, Any], intervals: Mapping[str, Any]) -> Iterator[Table]:
    """Yields one row per class or window with Se, P+, F1 and 95 % intervals; then a table of the other figures."""
    spread = dict(_leaves(intervals))
    rates = Table("", *RATES, title=f"{task}, over all records (95 % interval)")
    others = Table("figure", "value", title=f"{task}, over all records")
    flat = dict(_leaves(report))
    for name in dict.fromkeys(path[:-1] for path in flat if {(*path[:-1], key) for key in RATES[:3]} <= flat.keys()):
        rates.add_row(
            " ".join(name), *(_with_interval(flat.pop((*name, key), None), spread.get((*name, key))) for key in RATES)
        )
    for path, value in flat.items():
        others.add_row(" ".join(path), _with_interval(value, spread.get(path)))
    yield from (table for table in (rates, others) if table.row_count)


def _with_interval(value: Any, interval: Any) -> str:
    return f"{_text(value)} ({interval[0]}–{interval[1]})" if interval else _text(value)


def _rows(title: str, head: str, rows: Mapping[str, Mapping[str, Any]], columns: tuple[tuple[str, ...], ...] | None) -> Table:
    """Returns a table with one row per entry; without `columns`, with every figure. Empty columns are left out."""
    leaves = {name: dict(_leaves(row)) for name, row in rows.items()}
    present = dict.fromkeys(path for row in leaves.values() for path in row)
    shown = [path for path in columns if path in present] if columns else list(present)
    table = Table(head, *(" ".join(path) for path in shown), title=title)
    for name, row in leaves.items():
        table.add_row(_literal(name), *(_text(row.get(path)) for path in shown))
    return table


def _perturbations(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields name and figures of each perturbation: the branches that hold figures, not further perturbations."""
    for key, branch in tree.items():
        if all(isinstance(part, Mapping) and part and all(_is_level(level) for level in branch) for part in branch.values()):
            yield from _perturbations(branch, (*path, key))
        else:
            yield " ".join((*path, key)), branch


def _is_level(key: str) -> bool:
    return key.lstrip("-").isdecimal()


def _leaves(branch: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields path and value of every leaf; a list of plain values is a leaf."""
    if isinstance(branch, Mapping):
        for key, part in branch.items():
            yield from _leaves(part, (*path, str(key)))
    elif isinstance(branch, list) and any(isinstance(part, Mapping) for part in branch):
        for index, part in enumerate(branch):
            yield from _leaves(part, (*path, str(index)))
    else:
        yield path, branch


def _text(value: Any) -> str:
    match value:
        case None:
            return "–"
        case float():
            return f"{value:.4g}"
        case list():
            return " ".join(map(_text, value))
        case _:
            return _literal(str(value))


def _literal(text: str) -> str:
    """Returns a text of a file, such as a record's name, so that rich and the terminal show it as it is."""
    return escape(escape_controls(text))

"""Reads an ECG or a pulse wave from a table: first a survey of the whole file, then its samples in chunks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from captures.choice import Choice
from captures.leads import may_be_supply, millivolts_per_unit
from captures.recording import Chunk, ReadOptions, Recording, RecordingError, Samples
from captures.table.cells import CellError, is_missing
from captures.table.checks import Lines, RepeatFinder, check_order
from captures.table.columns import ASK_UNIT, choose_column, find_factor, find_rr, list_titles, show_title
from captures.table.frames import LONGEST_STEP_S, are_frames, interpolate_frames
from captures.table.layout import Column
from captures.table.order import Batch
from captures.table.programs import recognise_program
from captures.table.rows import SHOWN, split_line
from captures.table.scale import Scale, find_scale, fit_timeline
from captures.table.sniff import has_decimal_comma, header_line, is_one_signal, sniff
from captures.table.source import Source, Table
from captures.table.survey import Findings, Plan, mark_gaps, read_samples, survey
from captures.table.text import open_text, read_head
from captures.table.timeline import Timeline, place_samples
from captures.table.times import TimeFormat, find_day, find_format, parse_times
from models.signal.ppg import RATE_HZ

_HEAD_SAMPLES: Final = 1 << 16
"""Number of samples at the start of a file that give the unit of the times and the sampling rate."""
_LEAST_SAMPLES: Final = 2
_SPARSE_SHARE: Final = 0.5
"""If a smaller share of the samples has a time, each packet has one."""
_OFFSET_MV: Final = 300.0
"""A constant voltage beyond this does not come from electrodes (IEC 60601-2-27), but from the supply of an amplifier."""
_NO_OPTIONS: Final = ReadOptions()


def read_table(path: Path, options: ReadOptions = _NO_OPTIONS) -> Recording:
    """Read the ECG column of a text of columns, plain or gzipped; see `Recording`.

    Raises:
        RecordingError: the text is not a table, is damaged, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    table = _open_table(path)
    layout = table.layout
    stated_hz = options.rate_hz or layout.rate_hz
    if options.unit is not None and not millivolts_per_unit(options.unit):
        raise RecordingError(f"{path}: {options.unit[:SHOWN]!r} is not a unit of voltage; {ASK_UNIT}")
    has_rate = stated_hz is not None or _has_times(table)
    column, choice = choose_column(path, layout, options, lambda column: _read_column(table, column), has_rate)
    plan = _plan(path, table, column, choice, options)
    plan, findings = survey(path, plan, stated_hz if plan.source.time is None or stated_hz else None)
    if findings.samples < _LEAST_SAMPLES:
        raise RecordingError(
            f"{path}: column {column.name[:SHOWN]!r} holds {findings.samples} samples; at least two are needed"
        )
    factor, unit = 1.0, column.unit
    if choice.kind == "ecg":
        factor, unit = find_factor(path, column, options.unit, findings.amplitude, findings.level, findings.is_whole)
        if abs(findings.level * factor) < _OFFSET_MV:
            findings.level = 0.0
        elif options.signal is None and may_be_supply(column.name):
            raise RecordingError(
                f"{path}: column {show_title(column)!r} has a constant {findings.level * factor * 1e-3:.3g} V, as a battery"
                " has; if it is the ECG, name it with --column"
            )
    else:
        findings.level = 0.0
    return _build(path, plan, findings, choice, factor, unit, options)


def _open_table(path: Path) -> Table:
    text = open_text(path)
    head = read_head(text)
    layout = recognise_program(head) or sniff(path, head, "\t" if text.separators else "")
    if not layout.program and not layout.time and is_one_signal(head, layout):
        text = replace(text, separators=" \t;" if layout.decimal_comma else " \t,;")
        head = read_head(text)
        layout = sniff(path, [line for line in head if line.strip()], "\t")
    rows = [tuple(split_line(line, layout.delimiter)) for line in head[layout.first_line :] if line.strip()]
    if layout.program and layout.delimiter != ",":
        layout = replace(layout, decimal_comma=layout.decimal_comma or has_decimal_comma(rows))
    fitting = tuple(row for row in rows if len(row) >= layout.width)
    return Table(text, layout, header_line(head, layout), fitting)


def _has_times(table: Table) -> bool:
    """Whether the first rows have times in a known unit."""
    time = table.layout.time
    form = find_format(_time_cells(table, time), table.has_comma(time)) if time else None
    if time is None or form is None:
        return False
    try:
        times = parse_times(table.cells(time), form, table.has_comma(time)) if not table.layout.date else np.empty(0)
    except CellError:
        return True
    times = times[np.isfinite(times)]
    scale = find_scale(times, time, form, "ecg") if times.size >= _LEAST_SAMPLES else Scale(1.0)
    return scale is not None and not scale.is_index


def _read_column(table: Table, column: Column) -> Iterator[Samples]:
    return (batch.values for batch in Source(table, column).read())


def _plan(path: Path, table: Table, column: Column, choice: Choice, options: ReadOptions) -> Plan:
    """Decide from the first rows how rows become samples."""
    layout = table.layout
    stated_hz = options.rate_hz or layout.rate_hz
    rr = find_rr(layout)
    time = layout.time if layout.time and layout.time.number != column.number else None
    if time is None:
        if stated_hz is None:
            raise _ask_rate(path, table, column, options, f"no column of times among its columns ({list_titles(layout)})")
        return _even_plan(Source(table, column, rr=rr), stated_hz)
    form = _find_form(path, table, time)
    source = Source(table, column, time, form, layout.date, rr, is_sparse=_has_sparse_times(table, column, time))
    times, lines, drops_repeats = _read_head(replace(source, step=_find_step(source)))
    if times.size < _LEAST_SAMPLES:
        raise RecordingError(f"{path}: column {column.name[:SHOWN]!r} holds {times.size} samples; at least two are needed")
    source = replace(source, step=_positive_step(times))
    scale = find_scale(times, time, form, choice.kind)
    if form.kind == "calendar" and form.day_first is None and (day_s := find_day(_time_cells(table, time)[0])) is not None:
        scale = Scale(1.0, -day_s)
    if scale is None or scale.is_index:
        return _index_plan(path, source, scale, times, stated_hz, options)
    seconds = (times - times[0]) * scale.unit_s
    check_order(path, source, seconds, lines)
    if choice.kind == "ppg" and stated_hz is None and are_frames(seconds):
        return Plan(source, scale, Timeline(RATE_HZ, LONGEST_STEP_S), drops_repeats=drops_repeats, is_frames=True)
    timeline = fit_timeline(path, seconds, time, stated_hz, choice.kind)
    if timeline is None:
        assert stated_hz
        if options.rate_hz is None:
            raise RecordingError(
                f"{path}: the times in column {show_title(time)!r} do not fit the {stated_hz:g} Hz that the header states; give"
                " the right rate with --rate"
            )
        return _even_plan(replace(source, time=None, form=None, date=None), stated_hz)
    return Plan(source, scale, timeline, drops_repeats=drops_repeats)


def _even_plan(source: Source, rate_hz: float) -> Plan:
    return Plan(source, Scale(1 / rate_hz), Timeline(rate_hz, 0.5 / rate_hz))


def _index_plan(
    path: Path, source: Source, scale: Scale | None, times: Samples, stated_hz: float | None, options: ReadOptions
) -> Plan:
    assert source.time
    title = show_title(source.time)
    if stated_hz is None:
        step = float(np.median(np.diff(times)))
        why = f"has steps of {step:.4g} in an unknown unit" if scale is None else "numbers the samples and holds no times"
        raise _ask_rate(path, source.table, source.signal, options, f"column {title!r} {why}")
    if scale is None:
        return _even_plan(replace(source, time=None, form=None, date=None), stated_hz)
    return Plan(source, replace(scale, unit_s=scale.unit_s / stated_hz), Timeline(stated_hz, 0.5 / stated_hz))


def _ask_rate(path: Path, table: Table, column: Column, options: ReadOptions, why: str) -> RecordingError:
    ask = ""
    if options.unit is None and not millivolts_per_unit(column.unit):
        ask = f", and the unit of the samples {ASK_UNIT}"
    hint = _hint_at_intervals(table, column)
    return RecordingError(f"{path}: {why}; give the sampling rate with --rate{ask}{hint}")


def _hint_at_intervals(table: Table, column: Column) -> str:
    cells = table.cells(column)
    is_like = len(cells) > 1 and sum(cell.isdecimal() and 300 <= int(cell[:9]) <= 2000 for cell in cells) > 0.9 * len(cells)
    return "; numbers of this size may be RR intervals, which are not samples" if is_like else ""


def _has_sparse_times(table: Table, column: Column, time: Column) -> bool:
    """Whether many of the first rows with a sample have no time: each packet has one."""
    given = [
        not is_missing(cell)
        for cell, sample in zip(table.cells(time), table.cells(column), strict=True)
        if not is_missing(sample)
    ]
    return sum(given) < _SPARSE_SHARE * len(given)


def _time_cells(table: Table, time: Column) -> list[str]:
    """The times in the first rows, with their dates."""
    cells, date = table.cells(time), table.layout.date
    return [f"{day} {cell}" for day, cell in zip(table.cells(date), cells, strict=True)] if date else cells


def _find_form(path: Path, table: Table, time: Column) -> TimeFormat:
    cells = _time_cells(table, time)
    form = find_format(cells, table.has_comma(time))
    if form is None:
        odd = cells[0] if cells else ""
        raise RecordingError(
            f"{path}: {odd[:SHOWN]!r} in column {time.name[:SHOWN]!r} is not a time in a known format; write times as seconds"
            " or in ISO 8601"
        )
    return form


def _find_step(source: Source) -> float:
    """The usual step of the times in the first rows, in the unit of the file."""
    batch = next(source.read(), None)
    return 0.0 if batch is None else _positive_step(batch.times[np.isfinite(batch.times)])


def _positive_step(times: Samples) -> float:
    steps = np.diff(times)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def _read_head(source: Source) -> tuple[Samples, Lines, bool]:
    """The times of the first samples in the unit of the file, the numbers of their lines, and whether to drop repeated rows.

    Repeated rows are dropped if each row with the same time as the row before also has the same value.
    """
    batches: list[Batch] = []
    for batch in source.read():
        valid = np.isfinite(batch.values)
        batches.append(batch._replace(times=batch.times[valid], values=batch.values[valid], lines=batch.lines[valid]))
        if sum(part.times.size for part in batches) >= _HEAD_SAMPLES:
            break
    if not batches:
        return np.empty(0), np.empty(0, np.int64), False
    times, values, lines = (np.concatenate(parts) for parts in zip(*(batch[:3] for batch in batches), strict=True))
    same = np.diff(times) == 0
    drops_repeats = bool((values != values[:1]).any()) and not (np.diff(values)[same] != 0).any()
    if drops_repeats:
        kept = ~RepeatFinder().find(times, values)
        times, lines = times[kept], lines[kept]
    return times[:_HEAD_SAMPLES], lines[:_HEAD_SAMPLES], drops_repeats


def _build(
    path: Path, plan: Plan, findings: Findings, choice: Choice, factor: float, unit: str, options: ReadOptions
) -> Recording:
    rate_hz = plan.timeline.rate_hz
    start_us = plan.source.table.layout.start_us
    if plan.scale.unix is not None and plan.source.time:
        start_us = round((findings.start - plan.scale.unix) * plan.scale.unit_s * 1e6)
    rr = plan.source.rr
    in_ms = rr is not None and (
        rr.unit == "ms" or (not rr.unit and findings.rr_s.size > 0 and float(np.median(findings.rr_s)) > 10)
    )
    return Recording(
        name=path.name.removesuffix(".gz").rpartition(".")[0] or path.name,
        rate_hz=rate_hz,
        start_us=start_us,
        notes=_describe(plan, findings, choice, unit, options),
        read_chunks=lambda: _read_chunks(plan, findings, factor),
        kind=choice.kind,
        rr_s=findings.rr_s * 1e-3 if in_ms else findings.rr_s,
        rr_t_s=findings.rr_t_s,
    )


def _read_chunks(plan: Plan, findings: Findings, factor: float) -> Iterator[Chunk]:
    rate_hz = plan.timeline.rate_hz
    end_s = 0.0
    frames = ((times, values) for times, values, _ in read_samples(plan))
    for chunk in interpolate_frames(frames) if plan.is_frames else place_samples(mark_gaps(plan), rate_hz):
        end_s = chunk.start_s + chunk.values.size / rate_hz
        yield chunk._replace(values=(chunk.values - findings.level) * factor)
    if findings.tail_s > findings.last_s + 1.5 / rate_hz and findings.tail_s > end_s:
        yield Chunk(findings.tail_s, np.array([np.nan]), continues=False)


def _describe(plan: Plan, findings: Findings, choice: Choice, unit: str, options: ReadOptions) -> tuple[str, ...]:
    source, layout = plan.source, plan.source.table.layout
    name = show_title(source.signal)
    what = "ECG" if choice.kind == "ecg" else "pulse wave"
    in_unit = f" in {unit}" if choice.kind == "ecg" else ""
    by = f"time from {show_title(source.time)!r}" if source.time else "evenly spaced samples"
    origin = "stated" if options.rate_hz else "by the header" if layout.rate_hz else "by the times"
    if plan.is_frames:
        origin = "interpolated from frames at uneven times"
    notes = [
        f"{what} from column {name!r}{in_unit}, {by}, {plan.timeline.rate_hz:.6g} Hz {origin}",
        *layout.notes,
        *choice.notes,
    ]
    if layout.program:
        notes.insert(0, f"read as a text of {layout.program}")
    if findings.lowest == findings.highest and not choice.notes:
        notes.append(f"column {name!r} is constant (flat): no beats can be found")
    return (*notes, *_describe_times(plan), *_describe_rows(plan, findings))


def _describe_times(plan: Plan) -> Iterator[str]:
    source, layout = plan.source, plan.source.table.layout
    if layout.time and source.time is None:
        yield f"the times in column {layout.time.name[:SHOWN]!r} do not fit the stated rate and are not used; gaps are unknown"
    if source.form and source.form.kind == "calendar" and source.form.day_first is None and plan.scale.unix is None:
        yield "the dates may have the day or the month first, so the start is unknown"
    if source.table.text.separators:
        yield "the numbers of all lines are read as one signal"


def _describe_rows(plan: Plan, findings: Findings) -> Iterator[str]:
    if findings.level:
        yield f"a constant offset of {findings.level:.6g} in the unit of the file is subtracted"
    if findings.wrap_value:
        yield f"the times restart at {findings.wrap_value:.10g} in the unit of the file, and are continued"
    if findings.is_reordered:
        yield "rows were out of order and are read in the order of their times"
    if plan.missing:
        yield f"samples of {', '.join(f'{value:g}' for value in plan.missing)} count as missing"
    if findings.repeated:
        yield f"{findings.repeated} repeated rows (same time and value) are left out"
    if findings.cut_line:
        yield f"row {findings.cut_line}, the last one, is truncated and left out; the rows before it are complete"

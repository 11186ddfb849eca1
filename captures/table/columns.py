"""Chooses the column of the ECG, and finds the unit of its samples."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from captures.choice import IMPLAUSIBLE_MV, Candidate, Choice, choose_signal, list_names
from captures.leads import is_ecg_name, is_ppg_name, millivolts_per_unit
from captures.recording import ReadOptions, RecordingError, Samples
from captures.table.layout import Column, Layout
from captures.table.rows import SHOWN
from captures.table.titles import COUNTS

_SMALLEST_MV: Final = 0.01
"""Smallest amplitude of an ECG: below it is the noise of electrodes."""
_AMPLITUDES_MV: Final = (0.05, 10.0)
"""Peak to peak of an ECG within a beat. Seen as V, mV or µV, these ranges do not overlap."""
_MOST_OFFSET: Final = 20.0
"""Samples whose median is more than this many amplitudes from 0 may be another voltage, such as that of a battery."""
_RR: Final = re.compile(r"rr(?:[\s_-]?intervals?)?", re.IGNORECASE)
ASK_UNIT: Final = "with --unit (V, mV, uV, or counts per millivolt such as 200/mV)"


def choose_column(
    path: Path, layout: Layout, options: ReadOptions, read: Callable[[Column], Iterator[Samples]], has_rate: bool
) -> tuple[Column, Choice]:
    """Choose the column that the user names; otherwise the ECG, or the only column besides the times if it has no title.

    Raises:
        RecordingError: no column is named like an ECG; the message names all options that are needed to read the file.
    """
    time_columns = {column.number for column in (layout.time, layout.date) if column}
    candidates = [Candidate(column.number, column.name, column.unit, _reader(column, read)) for column in layout.columns]
    if options.signal is None and layout.signal is not None:
        return layout.signal, Choice(candidates[layout.signal.number - 1], "ecg")
    if options.signal is None:
        offered = [candidate for candidate in candidates if candidate.number not in time_columns]
        if any(candidate.name for candidate in candidates):  # a separator at the end of the rows adds a column without a title
            offered = [candidate for candidate in offered if candidate.name]
        if len(offered) == 1 and not offered[0].name and not is_ppg_name(path.name):
            return layout.columns[offered[0].number - 1], Choice(offered[0], "ecg")
        choice = _choose_ecg(path, offered, options, has_rate)
    else:
        choice = choose_signal(str(path), "column", candidates, options)
        if is_ppg_name(path.name.partition(".")[0]) and not is_ecg_name(choice.candidate.name):
            choice = Choice(choice.candidate, "ppg", choice.notes)
    return layout.columns[choice.candidate.number - 1], choice


def _reader(column: Column, read: Callable[[Column], Iterator[Samples]]) -> Callable[[], Iterator[Samples]]:
    return lambda: read(column)


def _choose_ecg(path: Path, offered: list[Candidate], options: ReadOptions, has_rate: bool) -> Choice:
    if any(is_ecg_name(candidate.name) for candidate in offered):
        return choose_signal(str(path), "column", offered, options)
    pulse = is_ppg_name(path.name.partition(".")[0]) or any(is_ppg_name(candidate.name) for candidate in offered)
    extra = "" if has_rate else ", and the sampling rate with --rate"
    if not pulse and not all(millivolts_per_unit(candidate.unit) for candidate in offered):
        extra += ", and its unit with --unit"
    try:
        return choose_signal(str(path), "column", offered, options)
    except RecordingError as error:
        what = "; the file's name says that it is a pulse wave" if pulse and "pulse wave" not in str(error) else ""
        raise RecordingError(f"{error}{extra}{what}") from None


def show_title(column: Column) -> str:
    """The title of a column for a message, with its unit; its number where it has none."""
    title = column.name[:SHOWN] or str(column.number)
    return f"{title} [{column.unit[:SHOWN]}]" if column.unit else title


def list_titles(layout: Layout) -> str:
    """The titles of the columns, for a message."""
    return list_names([Candidate(column.number, column.name, column.unit, lambda: iter(())) for column in layout.columns])


def find_rr(layout: Layout) -> Column | None:
    """The column of RR intervals."""
    return next((column for column in layout.columns if _RR.fullmatch(column.name)), None)


def find_factor(
    path: Path, column: Column, unit: str | None, amplitude: float, level: float, is_whole: bool
) -> tuple[float, str]:
    """The millivolts per unit of the samples of a column, and a text that says in which unit they are.

    `amplitude` is the typical one in the unit of the file, 0 if the samples are constant, NaN if it is not known; `level` is
    their median. `unit` is the one that the user states.

    Raises:
        RecordingError: the unit is unknown or cannot be right.
    """
    title = column.name[:SHOWN] or str(column.number)
    if unit is not None:
        return millivolts_per_unit(unit), f"{unit[:SHOWN]} (as stated)"
    factor = millivolts_per_unit(column.unit)
    if factor:
        size = amplitude * factor
        if amplitude > 0 and not _SMALLEST_MV <= size <= IMPLAUSIBLE_MV:
            raise RecordingError(
                f"{path}: column {title!r} is said to be in {column.unit[:SHOWN]}, but {size:.3g} mV peak to peak cannot be an"
                f" ECG; give its unit {ASK_UNIT}"
            )
        return factor, column.unit
    if amplitude == 0:
        return 1.0, "mV (assumed: it is constant)"
    if column.unit and not COUNTS.fullmatch(column.unit):
        raise RecordingError(
            f"{path}: unit {column.unit[:SHOWN]!r} of column {title!r} is not a unit of voltage; give its unit {ASK_UNIT}"
        )
    is_open = is_whole or column.unit or abs(level) > _MOST_OFFSET * amplitude
    names = [] if is_open else _plausible(amplitude)
    if len(names) == 1:
        return millivolts_per_unit(names[0]), f"{names[0]} (inferred from its amplitude of {amplitude:.2g})"
    why = "are whole numbers without a unit: counts or µV" if is_whole else f"have no unit and an amplitude of {amplitude:.3g}"
    raise RecordingError(f"{path}: the samples in column {title!r} {why}; give their unit {ASK_UNIT}")


def _plausible(amplitude: float) -> list[str]:
    low, high = _AMPLITUDES_MV
    return [unit for unit in ("V", "mV", "uV") if low <= amplitude * millivolts_per_unit(unit) <= high]

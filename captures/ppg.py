"""Reads PPG recordings with reference heart beats: phone cameras with RR intervals, and monitors with an ECG.

A camera recording is a folder with `PPG.csv` and `RR.txt`, as in the Welltory PPG dataset. `PPG.csv` has the times of the
frames in ms and the mean of each colour. `RR.txt` has the RR intervals in ms of a chest strap worn at the same time, on its own
clock. A monitor recording is a file `*Signals.csv`, also `.gz`, with columns `Time [s]`, `PLETH` and `II`, as in BIDMC. Cells
that are not numbers count as missing.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.files import read_file
from captures.recording import RecordingError
from captures.streams import read_text
from captures.table.frames import LONGEST_STEP_S
from models.signal.chain import EcgChain
from models.signal.filters import Fir, lowpass
from models.signal.ppg import PPG, RATE_HZ
from models.signal.resample import MAX_RATE_HZ, MIN_RATE_HZ

SHORTEST_S: Final = 5.0
LONGEST_S: Final = 7 * 86_400.0
_STEPS_S: Final = (2e-3, 0.2)
"""Seconds between two samples: shortest and longest. Times without a unit get the unit that fits this range."""

_WINDOW_SAMPLES: Final = round(10 * RATE_HZ)
"""Length of the windows in which the periodicity of the pulse is measured: 10 s."""
_LAGS: Final = slice(round(0.33 * RATE_HZ), round(1.5 * RATE_HZ))
"""Lags of one pulse at 180 to 40/min, in samples."""

Table = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class PpgRecording:
    """One evenly sampled PPG with reference heart beats.

    `ppg` (n,) in the file's unit, NaN where samples are missing. `beats_s` (beats,) are seconds since the first sample where
    `same_clock`; otherwise seconds since the first reference beat, whose time is unknown.
    """

    name: str
    ppg: NDArray[np.float64]
    rate_hz: float
    beats_s: NDArray[np.float64]
    same_clock: bool
    notes: tuple[str, ...] = ()


def find_ppg(data: Path) -> list[Path]:
    """Returns every recording at any depth below a folder: `PPG.csv` and `*Signals.csv`, also `.gz`."""
    return sorted(path for path in data.rglob("*.[cC][sS][vV]*") if path.is_file() and _kind(path))


def read_ppg(path: Path) -> PpgRecording:
    """Reads one recording at a path from `find_ppg`.

    Raises:
        RecordingError: the file or its reference is missing, damaged or of another format; the message says what to do.
    """
    try:
        return _read_camera(path) if _kind(path) == "camera" else _read_monitor(path)
    except FileNotFoundError as error:
        raise RecordingError(
            f"{error.filename}: no such file; add it: it holds the reference beats of the recording"
        ) from error
    except OSError as error:
        raise RecordingError(f"{path}: cannot read the file: {error.strerror or error}; check its permissions") from error


def _kind(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    if name == "ppg.csv":
        return "camera"
    return "monitor" if name.endswith("signals.csv") else None


def _read_camera(path: Path) -> PpgRecording:
    table = _read_table(path)
    time_column, *channels = _columns(path, table)
    if not channels:
        raise RecordingError(f"{path}: no column besides the times; add the columns R, G and B")
    at_s, order, notes = _sort_times(path, table[time_column])
    found = {name: _resample_evenly(at_s, table[name][order]) for name in channels}
    best = max(found, key=lambda name: _periodicity(found[name]))
    if not np.isfinite(found[best]).any():
        raise RecordingError(f"{path}: no column holds samples; record it again")
    beats_s = np.concatenate(([0.0], np.cumsum(_read_intervals(path.parent / "RR.txt"))))
    return PpgRecording(path.parent.name, found[best], RATE_HZ, beats_s, False, (*notes, f"column {best}"))


def _read_monitor(path: Path) -> PpgRecording:
    table = _read_table(path)
    time_column = _columns(path, table)[0]
    wanted = {name: next((column for column in table if column.lower() == name), None) for name in ("pleth", "ii")}
    missing = [name.upper() for name, column in wanted.items() if column is None]
    if missing:
        raise RecordingError(f"{path}: no column {' and no column '.join(missing)} among {', '.join(table)}; add it")
    known = np.flatnonzero(np.isfinite(table[time_column]))
    duration_s = float(np.ptp(table[time_column][known])) if known.size else 0.0
    if not SHORTEST_S <= duration_s <= LONGEST_S or (np.diff(table[time_column][known]) < 0).any():
        raise RecordingError(f"{path}: times must be in s, increase, and span {SHORTEST_S:g} s to a week; correct them")
    rate_hz = (
        float(known[-1] - known[0]) / duration_s
    )  # some times are rounded to 10 ms, so only the whole duration gives the rate
    if not max(PPG.min_rate_hz, MIN_RATE_HZ) <= rate_hz <= min(PPG.max_rate_hz, MAX_RATE_HZ):
        raise RecordingError(
            f"{path}: {rate_hz:g} samples per second, outside {MIN_RATE_HZ:g} to {PPG.max_rate_hz:g}; resample it"
        )
    ppg, ecg = (table[str(wanted[name])] for name in ("pleth", "ii"))
    chain = EcgChain(rate_hz)
    beats_s = np.array([beat.t_s for beat in (*chain.push(ecg), *chain.finish())])
    name = re.sub(r"_?signals\.csv(\.gz)?$", "", path.name, flags=re.IGNORECASE) or path.parent.name
    return PpgRecording(name, ppg, rate_hz, beats_s, True)


def _read_table(path: Path) -> Table:
    """Returns the columns that are not empty, by name."""
    try:
        text = read_text(path)
        rows = [row for row in csv.reader(text.splitlines(), delimiter=";" if ";" in text[:200] else ",") if row]
    except csv.Error as error:
        raise RecordingError(f"{path}: damaged or not a table of numbers ({error}); fetch the file again") from error
    if len(rows) < 3:
        raise RecordingError(f"{path}: holds {len(rows)} rows; a header row and at least two samples are needed")
    names = [name.strip() for name in rows[0]]
    values = np.full((len(rows) - 1, len(names)), np.nan)
    for line, row in enumerate(rows[1:]):
        for column, cell in enumerate(row[: len(names)]):
            values[line, column] = _parse_number(cell)
    return {name: values[:, column] for column, name in enumerate(names) if np.isfinite(values[:, column]).any()}


def _parse_number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return np.nan
    return value if abs(value) < 1e30 else np.nan


def _columns(path: Path, table: Table) -> list[str]:
    """Returns the names of the columns, the time column first."""
    time_column = next((name for name in table if re.match(r"time|t$|t[\s_\[(]|elapsed", name, re.IGNORECASE)), None)
    if time_column is None:
        raise RecordingError(f"{path}: no time column among {', '.join(table) or 'its columns'}; name a column time")
    return [time_column, *(name for name in table if name != time_column)]


def _sort_times(path: Path, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp], tuple[str, ...]]:
    """Returns increasing times in seconds since the first, the rows that they belong to, and notes."""
    known = np.flatnonzero(np.isfinite(times))
    order = known[np.argsort(times[known], kind="stable")]
    order = order[np.concatenate(([True], np.diff(times[order]) > 0))] if order.size else order
    if order.size < 3:
        raise RecordingError(f"{path}: fewer than three samples have a time; add the times")
    notes = (
        ()
        if order.size == times.size
        else (f"rows left out because their time is missing or repeated: {times.size - order.size}",)
    )
    since = times[order] - times[order[0]]
    step = float(np.median(np.diff(since)))
    unit_s = next((unit for unit in (1.0, 1e-3, 1e-6, 1e-9) if _STEPS_S[0] <= step * unit <= _STEPS_S[1]), None)
    if unit_s is None:
        raise RecordingError(
            f"{path}: steps of {step:g} in the times do not fit the sampling rate of a PPG; give the times in ms"
        )
    seconds = since * unit_s
    if not SHORTEST_S <= seconds[-1] <= LONGEST_S:
        raise RecordingError(f"{path}: {seconds[-1]:.3g} s long; a recording must last {SHORTEST_S:g} s to a week")
    return seconds, order, notes


def _resample_evenly(at_s: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolates samples at uneven times on a grid of 50 Hz; NaN in gaps."""
    known = np.isfinite(values)
    grid = np.arange(int(at_s[-1] * RATE_HZ) + 1) / RATE_HZ
    if known.sum() < 2:
        return np.full(grid.size, np.nan)
    at_s, values = at_s[known], values[known]
    after = np.clip(np.searchsorted(at_s, grid), 1, at_s.size - 1)
    even: NDArray[np.float64] = np.interp(grid, at_s, values, left=np.nan, right=np.nan)
    even[at_s[after] - at_s[after - 1] > LONGEST_STEP_S] = np.nan
    return even


def _periodicity(ppg: NDArray[np.float64]) -> float:
    """Returns the autocorrelation of the signal at the best lag of one pulse: median over windows of 10 s, -1 to 1."""
    known = np.flatnonzero(np.isfinite(ppg))
    if known.size < _WINDOW_SAMPLES or not np.ptp(ppg[known]):
        return -1.0
    filled = np.interp(np.arange(ppg.size), known, ppg[known])
    smooth, drift = Fir(lowpass(6.0, RATE_HZ, 16)), Fir(lowpass(0.5, RATE_HZ, 50))
    band = np.concatenate((smooth.push(filled), smooth.finish())) - np.concatenate((drift.push(filled), drift.finish()))
    found: list[float] = []
    for start in range(0, band.size - _WINDOW_SAMPLES + 1, _WINDOW_SAMPLES // 2):
        part = band[start : start + _WINDOW_SAMPLES]
        correlation = np.correlate(part, part, "full")[_WINDOW_SAMPLES - 1 :]
        found.append(float(correlation[_LAGS].max() / correlation[0]) if correlation[0] > 0 else -1.0)
    return float(np.median(found))


def _read_intervals(path: Path) -> NDArray[np.float64]:
    """Reads RR intervals in seconds from a text of numbers in ms (or in s, if their median is at most 10)."""
    text = read_file(path).decode("utf-8-sig", errors="replace")
    cells = [cell for cell in re.split(r"[\s,;]+", text) if cell]
    values = np.array([_parse_number(cell) for cell in cells])
    if values.size < 3 or not np.isfinite(values).all() or (values <= 0).any():
        raise RecordingError(f"{path}: not a list of RR intervals in ms; correct the file")
    return values / 1e3 if np.median(values) > 10 else values

"""Recordings from which `ecg_organised` is trained, with what is known about the rhythm at each moment.

The rhythm is known by halves in many places: cudb leaves ventricular tachycardia unmarked, a false alarm tells only what there
was not. A moment therefore holds a set of classes that are possible, and the loss asks for their total probability.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from captures.annotations import BEATS, Annotations, read_annotations
from config.files import replacing
from models.signal.offline import resample_recording
from models.signal.resample import RATE_HZ
from models.signal.rhythm_window import ASYSTOLE, CLASSES, JUDGED_S, NOISE, ORGANISED, VF, VT
from training.cache import source_digest

Sets = NDArray[np.uint8]

GRID_S: Final = 0.2
"""Step at which the possible classes are stated, the length of the agent's hop."""

FOLDS: Final = 5
MARGIN_S: Final = 1.0
"""Nothing is stated this close to a change of the rhythm: experts mark it to about a second."""

FAST_RR_S: Final = 0.55
"""Beats of cudb closer than this may be an unmarked ventricular tachycardia."""

MAX_RR_S: Final = 2.5
MAX_MINUTES: Final = {"svdb": 15, "nsrdb-2h": 40}
"""Length of the training recordings where much of the same rhythm is available."""

ALARM_S: Final = 300.0
ALARM_WINDOW_S: Final = 10.0
"""CinC 2015: an alarm at 300 s belongs to an event in the ten seconds before it (Clifford 2015)."""


def possible(*classes: int) -> int:
    """Return a set of classes as bits."""
    return sum(1 << index for index in classes)


ANY: Final = 0
"""Nothing is known."""

VFDB: Final = {
    "VT": possible(VT),
    "VF": possible(VF),
    "VFIB": possible(VF),
    "VFL": possible(VF),
    "ASYS": possible(ASYSTOLE),
    "HGEA": possible(ORGANISED, VT),
    "NOISE": ANY,
}
MITDB: Final = {"VT": possible(VT), "VFL": possible(VF), "IVR": possible(ORGANISED)}
ALARMS: Final = {
    ("Asystole", True): possible(ASYSTOLE),
    ("Asystole", False): possible(ORGANISED, VT, NOISE),
    ("Bradycardia", True): possible(ORGANISED),
    ("Bradycardia", False): possible(ORGANISED, NOISE),
    ("Tachycardia", True): possible(ORGANISED, VT),
    ("Tachycardia", False): possible(ORGANISED, NOISE),
    ("Ventricular_Flutter_Fib", True): possible(VF),
    ("Ventricular_Flutter_Fib", False): possible(ORGANISED, VT, NOISE),
    ("Ventricular_Tachycardia", True): possible(ORGANISED, VT),
    ("Ventricular_Tachycardia", False): possible(ORGANISED, NOISE),
}
BEFORE_ALARM: Final = possible(ORGANISED, VT, NOISE)


@dataclass(frozen=True, slots=True)
class OrganisedRecording:
    """One recording.

    Attributes:
        patient: `database/record`.
        fold: of the cross-validation.
        mv: (n,) at 125 Hz as resampled, NaN where samples are missing.
        sets: (m,) the possible classes as bits, one every 0.2 s; `ANY` where nothing is known.
    """

    patient: str
    fold: int
    mv: NDArray[np.float32]
    sets: Sets

    @property
    def database(self) -> str:
        return self.patient.split("/")[0]


def load_recordings(data: Path, cache: Path, progress: Progress) -> list[OrganisedRecording]:
    """Return all recordings; they are cached as long as the code is the same."""
    sources = source_digest(sys.modules[__name__])
    if not (cache.exists() and np.load(cache)["sources"] == sources):
        cache.parent.mkdir(parents=True, exist_ok=True)
        found = list(_read_recordings(data, progress))
        with replacing(cache) as draft:
            np.savez(
                draft,
                sources=sources,
                patients=[name for name, _, _ in found],
                sizes=[mv.size for _, mv, _ in found],
                counts=[sets.size for _, _, sets in found],
                mv=np.concatenate([mv for _, mv, _ in found]),
                sets=np.concatenate([sets for _, _, sets in found]),
            )
    with np.load(cache) as store:
        names = store["patients"].tolist()
        signals = np.split(store["mv"], np.cumsum(store["sizes"])[:-1])
        states = np.split(store["sets"], np.cumsum(store["counts"])[:-1])
    folds = assign_folds(names, states)
    return [OrganisedRecording(name, folds[name], mv, sets) for name, mv, sets in zip(names, signals, states, strict=True)]


def assign_folds(names: Sequence[str], states: Sequence[Sets]) -> dict[str, int]:
    """Return the fold of every recording: whole patients, in turn by how long they fibrillate.

    The recordings of CinC 2015 are numbered so that one patient's lie together: they are divided into blocks of numbers.
    """
    by_duration = sorted(zip(names, states, strict=True), key=lambda entry: (-int(np.sum(entry[1] == possible(VF))), entry[0]))
    alarms = sorted((name for name in names if name.startswith("cinc2015/")), key=lambda name: int(name[10:-1]))
    folds = {name: at * FOLDS // len(alarms) for at, name in enumerate(alarms)}
    others = dict.fromkeys(_person(name) for name, _ in by_duration if name not in folds)
    turn = {person: at % FOLDS for at, person in enumerate(others)}
    return folds | {name: turn[_person(name)] for name in names if name not in folds}


_SAME_PERSON: Final = {"svdb/829": "svdb/828", "svdb/876": "svdb/828", "svdb/877": "svdb/828"} | {
    "svdb/879": "svdb/878",
    "svdb/883": "svdb/882",
}


def _person(name: str) -> str:
    return _SAME_PERSON.get(name, name)


def _read_recordings(data: Path, progress: Progress) -> Iterator[tuple[str, NDArray[np.float32], Sets]]:
    """Yield name, signal and possible classes of every recording."""
    headers = [
        header
        for database in ("vfdb", "cudb", "mitdb", "svdb", "nsrdb-2h")
        for header in sorted((data / database).glob("*.hea"))
    ]
    for header in progress.track(headers, description="recordings"):
        database = header.parent.name
        mv = _read_signal(header, MAX_MINUTES.get(database))
        sets = mark_sets(database, read_annotations(header.with_suffix(".atr")), open_recording(header).rate_hz, mv.size)
        yield f"{database}/{header.stem}", mv, sets
    for name, kind, is_true in progress.track(read_alarms(data), description="alarms"):
        mv = _read_signal(data / "cinc2015" / f"{name}.hea", None)[: round(ALARM_S * RATE_HZ)]
        sets = np.full(round(mv.size / RATE_HZ / GRID_S), BEFORE_ALARM, np.uint8)
        sets[-round(ALARM_WINDOW_S / GRID_S) :] = ANY
        sets[-round((4.0 if is_true else ALARM_WINDOW_S) / GRID_S) :] = ALARMS[kind, is_true]
        yield f"cinc2015/{name}", mv[-round(60 * RATE_HZ) :], sets[-round(60 / GRID_S) :]


def read_alarms(data: Path) -> list[tuple[str, str, bool]]:
    """Return record, kind and truth of the alarms of CinC 2015."""
    rows = [line.split(",") for line in (data / "cinc2015" / "ALARMS").read_text().split()]
    return [(name, kind, truth == "1") for name, kind, truth in rows]


def _read_signal(header: Path, minutes: float | None) -> NDArray[np.float32]:
    recording = open_recording(header)
    end = None if minutes is None else round(60 * minutes * recording.rate_hz)
    return resample_recording(recording.mv[:end], recording.rate_hz).astype(np.float32)


def mark_sets(database: str, notes: Annotations, rate_hz: float, samples: int) -> Sets:
    """Return the possible classes as bits, one set every 0.2 s, of a record of `samples` at 125 Hz."""
    grid_s = np.arange(0.5, round(samples / RATE_HZ / GRID_S), dtype=np.float64) * GRID_S
    sets = np.full(grid_s.size, possible(ORGANISED), np.uint8)
    beats_s: NDArray[np.float64] = notes.beats() / rate_hz
    if database == "cudb":
        sets = _cudb_sets(notes, rate_hz, grid_s)
    elif database in ("vfdb", "mitdb"):
        table = VFDB if database == "vfdb" else MITDB
        rhythms = [
            table.get(name[1:], possible(ORGANISED)) for name in notes.rhythm_at(np.rint(grid_s * rate_hz).astype(np.int64))
        ]
        sets = np.array(rhythms, np.uint8)
    if database in ("mitdb", "svdb"):
        _forget_runs(sets, grid_s, beats_s, [mark for mark in notes.symbol if mark in BEATS])
    return _forget_changes(sets)


def _cudb_sets(notes: Annotations, rate_hz: float, grid_s: NDArray[np.float64]) -> Sets:
    """Return the classes of cudb: fibrillation between [ and ]; otherwise organised where beats are slow."""
    beats_s = notes.beats() / rate_hz
    after = np.searchsorted(beats_s, grid_s)
    edges = np.concatenate(([-np.inf], beats_s, [np.inf]))
    rr_s = edges[after + 1] - edges[after]
    sets = np.where(rr_s > MAX_RR_S, ANY, np.where(rr_s < FAST_RR_S, possible(ORGANISED, VT), possible(ORGANISED)))
    for at, mark in zip((notes.sample / rate_hz).tolist(), notes.symbol, strict=True):
        if mark == "~":
            sets[np.abs(grid_s - at) < 3.0] = ANY
    start_s = None
    for at, mark in [*zip((notes.sample / rate_hz).tolist(), notes.symbol, strict=True), (np.inf, "]")]:
        if mark == "[":
            start_s = at
        elif mark == "]" and start_s is not None:
            sets[(grid_s >= start_s) & (grid_s < at)] = possible(VF)
            start_s = None
    return sets.astype(np.uint8)


def _forget_runs(sets: Sets, grid_s: NDArray[np.float64], beats_s: NDArray[np.float64], symbols: Sequence[str]) -> None:
    """State nothing where three or more ventricular beats follow each other outside marked tachycardia."""
    ventricular = np.array([mark in "VE" for mark in symbols])
    edges = np.flatnonzero(np.diff(np.concatenate(([0], ventricular.astype(np.int8), [0])))).reshape(-1, 2)
    for first, end in edges[edges[:, 1] - edges[:, 0] >= 3].tolist():
        inside = (grid_s > beats_s[first] - 0.5) & (grid_s < beats_s[end - 1] + 0.5)
        sets[inside & (sets == possible(ORGANISED))] = ANY


def _forget_changes(sets: Sets) -> Sets:
    """State nothing near a change of the rhythm."""
    kept = sets.copy()
    margin = round(MARGIN_S / GRID_S)
    for at in np.flatnonzero(sets[1:] != sets[:-1]).tolist():
        kept[max(at + 1 - margin, 0) : at + 1 + margin] = ANY
    return kept


def steady_sets(sets: Sets) -> Sets:
    """Return the possible classes of a window that ends at each moment: those of its last three seconds, if equal."""
    width = round(JUDGED_S / GRID_S)
    steady = np.full(sets.size + 1, ANY, np.uint8)
    if sets.size >= width:
        parts = np.lib.stride_tricks.sliding_window_view(sets, width)
        steady[width:] = np.where((parts == parts[:, :1]).all(axis=1), parts[:, -1], ANY)
    return steady


def unpack(sets: Sets) -> NDArray[np.float32]:
    """Return sets (n,) as rows of 0 and 1, (n, 5)."""
    return ((sets[:, None] >> np.arange(len(CLASSES))) & 1).astype(np.float32)

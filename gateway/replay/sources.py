"""Turns files into the pipeline's input: readings with the time at which a sensor would have sent them."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from captures import Recording, RecordingError, UnknownKindError, open_recording
from captures import jsonl as capture
from captures.files import check_regular_file
from captures.jsonl import CaptureError
from drivers.readings import Reading, Waveform
from drivers.registry import Registry
from gateway.timeline import GAP_TOLERANCE_PERIODS, NS_PER_S, Arrival
from models.signal.resample import MAX_RATE_HZ, MIN_RATE_HZ

SCALE_MV: Final = 0.001
"""mV per unit of a replayed sample. 1 µV divides the resolution of every database and strap replayed (5 µV for MIT-BIH, 1 µV
for CinC 2017 and Polar) and is below the noise of any surface electrode."""
LARGEST_MV: Final = 1_000.0
"""No electrode gives more: monitors are tested with an offset of 300 mV (IEC 60601-2-27). Larger values in a file are clipped,
so every sample fits in 32 bits."""
STEP_S: Final = 1.0
"""Length of ECG in one step, similar to a notification of a strap: findings and strips are then those of the live agent."""
INVALID_SAMPLES: Final = "no valid samples in the recording"
LINK_LOST: Final = "the link was lost"


class SourceError(Exception):
    """A file that cannot be replayed. The message is one line: which file, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next input: readings, or an interruption with its reason, or neither at the end of the file."""

    arrival: Arrival
    readings: tuple[Reading, ...] = ()
    interruption: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An opened file. `start_us` is its start time, 0 if unknown. `steps` raises `SourceError` where the file is damaged."""

    path: Path
    sensor: str
    start_us: int
    start_known: bool
    notes: tuple[str, ...]
    steps: Iterator[Step]

    def arrival(self, t: float) -> Arrival:
        """Returns the clock readings `t` seconds after the start of the file."""
        return arrival_at(self.start_us, t)


def arrival_at(start_us: int, t: float) -> Arrival:
    """Returns the clock readings `t` seconds after `start_us`; the monotonic clock starts at 0 with the file."""
    return Arrival(start_us + round(t * 1e6), round(t * NS_PER_S))


def open_source(path: Path, registry: Registry, sensor: str | None = None) -> Source:
    """Opens a recording (WFDB, CSV) or a capture (JSON lines); its first bytes decide. `sensor` replaces the name in the file.

    Raises:
        SourceError: the file is missing, unreadable, damaged, or neither a recording nor a capture.
    """
    try:
        if path.is_dir():
            raise SourceError(f"{path}: is a folder; give the files in it")
        check_regular_file(path)
        with path.open("rb") as file:
            begin = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
        if not begin:
            raise SourceError(f"{path}: the file is empty; give a recording or a capture")
        if begin.startswith(b"{"):
            return _open_capture(path, registry, sensor)
        return _open_recording(path, open_recording(path), sensor)
    except UnknownKindError as error:
        raise SourceError(
            f"{path}: neither a recording nor a capture; give a WFDB header (.hea), a CSV file (.csv, .tsv, .csv.gz) or a"
            " capture (JSON lines that `pulsegate record` wrote)"
        ) from error
    except (RecordingError, CaptureError) as error:
        raise SourceError(str(error)) from error
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the file: {error.strerror or error}; check its permissions") from error


def _open_recording(path: Path, recording: Recording, sensor: str | None) -> Source:
    if not recording.segments:
        raise SourceError(f"{path}: no valid ECG sample in the file; give another recording")
    if not MIN_RATE_HZ <= recording.rate_hz <= MAX_RATE_HZ:
        supported = f"only {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz; resample it or correct its header"
        raise SourceError(f"{path}: an ECG at {recording.rate_hz:g} Hz is not supported, {supported}")
    start_us = recording.start_us or 0
    invalid_s = recording.segments[0].start_s
    notes = (f"the first {invalid_s:.3f} s contain no valid sample",) if invalid_s > 0 else ()
    steps = _recording_steps(recording, start_us)
    return Source(path, sensor or recording.name, start_us, recording.start_us is not None, recording.notes + notes, steps)


def _recording_steps(recording: Recording, start_us: int) -> Iterator[Step]:
    rate_hz = recording.rate_hz
    chunk = max(1, round(STEP_S * rate_hz))
    tolerated_s = (1 + GAP_TOLERANCE_PERIODS) / rate_hz
    end_s: float | None = None
    for segment in recording.segments:
        if end_s is not None and segment.start_s - end_s > tolerated_s:
            yield Step(arrival_at(start_us, end_s), interruption=INVALID_SAMPLES)
        for first in range(segment.first, segment.last + 1, chunk):
            stop = min(first + chunk, segment.last + 1)
            end_s = segment.start_s + (stop - 1 - segment.first) / rate_hz
            microvolts = np.clip(recording.mv[first:stop], -LARGEST_MV, LARGEST_MV) / SCALE_MV
            samples = tuple(np.rint(microvolts).astype(np.int64).tolist())
            at = arrival_at(start_us, end_s)
            yield Step(at, (Waveform("ecg", samples, rate_hz, SCALE_MV, at.mono_ns),))
    invalid_s = (recording.mv.size - 1 - recording.segments[-1].last) / rate_hz
    if end_s is not None and invalid_s > tolerated_s:
        yield Step(arrival_at(start_us, end_s), interruption=INVALID_SAMPLES)
        yield Step(arrival_at(start_us, end_s + invalid_s + 1 / rate_hz))


def _open_capture(path: Path, registry: Registry, sensor: str | None) -> Source:
    header = capture.read_header(path)
    steps = _capture_steps(path, header, registry)
    return Source(path, sensor or header.sensor, header.started_us, True, (), steps)


def _capture_steps(path: Path, header: capture.CaptureHeader, registry: Registry) -> Iterator[Step]:
    device, last_t = header.device, 0.0
    try:
        for entry in capture.read_entries(path):
            match entry:
                case capture.Payload(t, characteristic, payload):
                    readings = registry.decode(characteristic, payload, device)
                    device = device.updated(readings)
                    yield Step(arrival_at(header.started_us, t), readings)
                case capture.LinkEvent(t, "disconnected"):
                    yield Step(arrival_at(header.started_us, t), interruption=LINK_LOST)
                case capture.LinkEvent(t):
                    yield Step(arrival_at(header.started_us, t))
                case capture.TruncatedLine(line):
                    note = f"line {line}, the last one, is truncated and ignored; the lines before it are complete"
                    yield Step(arrival_at(header.started_us, last_t), note=note)
                    return
            last_t = entry.t
    except CaptureError as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the rest of the file: {error.strerror or error}; check the disk") from error

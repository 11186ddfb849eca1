"""Turns files into the pipeline's input: readings with the time at which a sensor would have sent them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from captures import NO_OPTIONS, PayloadCapture, ReadOptions, Recording, RecordingError, RrRecording, open_file
from captures.payloads import LinkEvent, Payload, Truncation
from captures.recording import Piece, Samples
from drivers.conversation import Moment
from drivers.readings import TICKS_LIMIT, TICKS_PER_SECOND, Intervals, Reading, Waveform
from drivers.registry import Registry
from drivers.sensor_decoder import SensorDecoder
from gateway.timeline import GAP_TOLERANCE_PERIODS, NS_PER_S, Arrival
from models.signal.ppg import PPG
from models.signal.resample import ECG

ECG_SCALE_MV: Final = 0.001
"""mV per unit of a replayed ECG sample. 1 µV divides the resolution of every database and strap replayed (5 µV for MIT-BIH,
1 µV for CinC 2017 and Polar) and is below the noise of any surface electrode."""
LARGEST_ECG_MV: Final = 2_000_000.0
"""The largest ECG that 32 bits hold in this unit: 2000 V, above any offset of an electrode or supply. A step with larger
values gets a coarser unit."""
LARGEST_SAMPLE: Final = 1e12
"""Larger than any sample in mV or in counts of 32 bits. A larger number is damaged, and is clipped so that its square stays
finite."""
STEP_S: Final = 1.0
"""Length of ECG in one step, similar to a notification of a strap: findings and strips are then those of the live agent."""
WAVEFORMS: Final = {"ecg": ECG, "ppg": PPG}
"""What the pipeline accepts of each kind of recording."""
PULSE_WAVE_NOTE: Final = "read as a pulse wave (PPG), not as an ECG: beats are pulses, which follow the R peaks by 0.2 to 0.4 s"
INTERVALS_NOTE: Final = "holds RR intervals only, without an ECG: rate and rhythm are judged by them alone"
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


def open_source(path: Path, registry: Registry, sensor: str | None = None, options: ReadOptions = NO_OPTIONS) -> Source:
    """Open a file of any kind that `captures` reads. `sensor` replaces the name in the file.

    Raises:
        SourceError: the file is missing, unreadable, damaged, or neither a recording nor a capture.
    """
    try:
        match open_file(path, options):
            case Recording() as recording:
                return _open_recording(path, recording, sensor)
            case RrRecording() as intervals:
                return _open_intervals(path, intervals, sensor)
            case PayloadCapture() as capture:
                return _open_capture(path, capture, registry, sensor)
    except RecordingError as error:
        raise SourceError(str(error)) from error


def _open_recording(path: Path, recording: Recording, sensor: str | None) -> Source:
    accepted = WAVEFORMS[recording.kind]
    first = next(recording.read_pieces(), None)
    if first is None or not first.values.size:
        raise SourceError(f"{path}: no valid sample of {accepted.name} in the file; give another recording")
    if not accepted.min_rate_hz <= recording.rate_hz <= accepted.max_rate_hz:
        supported = f"only {accepted.min_rate_hz:g} to {accepted.max_rate_hz:g} Hz; resample it or correct its rate"
        raise SourceError(f"{path}: {accepted.name} at {recording.rate_hz:g} Hz is not supported, {supported}")
    start_us = recording.start_us or 0
    notes = [*recording.notes]
    if recording.kind == "ppg":
        notes.append(PULSE_WAVE_NOTE)
    if first.start_s > 0:
        notes.append(f"the first {first.start_s:.3f} s contain no valid sample")
    steps = recording_steps(path, recording, start_us)
    return Source(path, sensor or recording.name, start_us, recording.start_us is not None, tuple(notes), steps)


def recording_steps(path: Path, recording: Recording, start_us: int) -> Iterator[Step]:
    rate_hz = recording.rate_hz
    tolerated_s = (1 + GAP_TOLERANCE_PERIODS) / rate_hz
    end_s: float | None = None
    is_clipped = False
    try:
        for start_s, values in _regroup(recording.read_pieces(), rate_hz):
            if end_s is not None and start_s - end_s > tolerated_s:
                yield Step(arrival_at(start_us, end_s), interruption=INVALID_SAMPLES)
            if not values.size:
                yield Step(arrival_at(start_us, start_s))
                return
            end_s = start_s + (values.size - 1) / rate_hz
            at = arrival_at(start_us, end_s)
            largest = float(np.abs(values).max())
            note = None
            if largest > LARGEST_SAMPLE and not is_clipped:
                is_clipped = True
                note = f"samples beyond ±{LARGEST_SAMPLE:g} are clipped, the first of them {end_s:.0f} s after the start"
            samples, scale = _to_integers(recording.kind, values, largest)
            yield Step(at, (Waveform(recording.kind, samples, rate_hz, scale, at.mono_ns),), note=note)
    except RecordingError as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the rest of the file: {error.strerror or error}; check the disk") from error


def _regroup(pieces: Iterator[Piece], rate_hz: float) -> Iterator[tuple[float, Samples]]:
    """Yield the samples in steps of `STEP_S`, each with the time of its first one.

    The last step of a stretch without a gap may be shorter. Invalid samples at the end of the file give an empty step there.
    """
    length = max(1, round(STEP_S * rate_hz))
    begin_s, count, rest = 0.0, 0, np.empty(0)
    for piece in pieces:
        if not piece.continues:
            if rest.size:
                yield begin_s + count / rate_hz, rest
            begin_s, count, rest = piece.start_s, 0, np.empty(0)
            if not piece.values.size:
                yield begin_s, rest
        rest = np.concatenate((rest, piece.values))
        full = rest.size - rest.size % length
        for first in range(0, full, length):
            yield begin_s + count / rate_hz, rest[first : first + length]
            count += length
        rest = rest[full:]
    if rest.size:
        yield begin_s + count / rate_hz, rest


def _to_integers(kind: str, values: Samples, largest: float) -> tuple[tuple[int, ...], float]:
    """The values as integers of 32 bits, and the value of one unit. `largest` is the largest value without its sign.

    A pulse wave has any unit: counts of 24 bits, or a camera's mean of 255 with pulses of 0.1. Its unit is a power of two, so
    that counts stay exact, and the largest value uses 30 bits.
    """
    if largest > LARGEST_SAMPLE:
        values, largest = np.clip(values, -LARGEST_SAMPLE, LARGEST_SAMPLE), LARGEST_SAMPLE
    scale = ECG_SCALE_MV
    if kind != "ecg" or largest > LARGEST_ECG_MV:
        scale = math.ldexp(1.0, math.frexp(largest)[1] - 30) if largest else 1.0
    return tuple(np.rint(values / scale).astype(np.int64).tolist()), scale


def _open_intervals(path: Path, recording: RrRecording, sensor: str | None) -> Source:
    start_us = recording.start_us or 0
    ticks = np.clip(np.rint(recording.rr_s * TICKS_PER_SECOND), 0, TICKS_LIMIT - 1).astype(np.int64).tolist()
    steps = (
        Step(arrival_at(start_us, t), (Intervals("rr", (tick,)),))
        for t, tick in zip(recording.t_s.tolist(), ticks, strict=True)
    )
    too_long = int(np.sum(recording.rr_s * TICKS_PER_SECOND >= TICKS_LIMIT))
    notes = (
        *recording.notes,
        INTERVALS_NOTE,
        *((f"intervals above 64 s are written as 64 s: {too_long}",) if too_long else ()),
    )
    return Source(path, sensor or recording.name, start_us, recording.start_us is not None, notes, steps)


def _open_capture(path: Path, capture: PayloadCapture, registry: Registry, sensor: str | None) -> Source:
    header = capture.header
    if not (sensor or header.sensor):
        raise SourceError(f"{path}: does not name its sensor; name it with --as SENSOR")
    steps = _capture_steps(path, capture, registry)
    return Source(path, sensor or header.sensor, header.started_us, header.started_us > 0, capture.notes, steps)


def _capture_steps(path: Path, capture: PayloadCapture, registry: Registry) -> Iterator[Step]:
    started_us, last_t = capture.header.started_us, 0.0
    decoder = SensorDecoder(registry, capture.header.device)
    is_empty = True
    try:
        for entry in capture.read_entries():
            match entry:
                case Payload(t, characteristic, payload):
                    is_empty = False
                    arrival = arrival_at(started_us, t)
                    yield Step(arrival, decoder.decode(characteristic, payload, Moment(arrival.wall_us)))
                case LinkEvent(t, "disconnected"):
                    yield Step(arrival_at(started_us, t), interruption=LINK_LOST)
                case LinkEvent(t):
                    yield Step(arrival_at(started_us, t))
                case Truncation(note):
                    yield Step(arrival_at(started_us, last_t), note=note)
                    return
            last_t = entry.t
        if is_empty:
            yield Step(arrival_at(started_us, last_t), note="the capture holds no payload of a sensor")
    except RecordingError as error:
        raise SourceError(str(error)) from error
    except OSError as error:
        raise SourceError(f"{path}: cannot read the rest of the file: {error.strerror or error}; check the disk") from error

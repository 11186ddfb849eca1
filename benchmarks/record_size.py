"""Bytes an ECG sample in blocks of 10 s, and the time to encode and decode them: `python -m benchmarks.record_size`.

The frames are those of a strap: 73 samples each with the sensor's time, received at the connection events of a radio link and
timed by `gateway.timeline`; heart rate, skin contact and RR intervals arrive once a second.
"""

import csv
import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cbor2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from captures import open_recording
from drivers.readings import Waveform
from evaluation.resampling import resampled
from gateway.timeline import Arrival, WaveformTimeline
from sync.cbor import decode_cbor
from sync.format_1 import records as format_1
from sync.record_codec import decode_records, encode_records
from sync.records import IntervalsRecord, Record, StatusRecord, Times, VitalRecord, WaveformRecord, type_name

RATE_HZ: Final = 130.0
SCALE_MV: Final = 0.001
"""A Polar H10 sends microvolts."""
FRAME: Final = 73
"""Samples in one notification of a Polar H10."""
BLOCK_S: Final = 10.0
BLOCK_OVERHEAD: Final = 145
"""Bytes of a block besides its plaintext: prefix, header and tag."""
SECONDS: Final = 600.0
CONNECTION_INTERVAL_NS: Final = 30_000_000
SENSOR: Final = "polar-h10-1"
MITDB: Final = ("101", "106", "203", "208")
PARTS: Final = {"samples": {"samples", "counts"}, "times": {*Times.__slots__, "rate_hz"}}
"""The fields whose values are counted as each part of a block."""


def read_polar(path: Path) -> tuple[NDArray[np.int32], list[int]]:
    """Return the microvolts and the RR intervals (1/1024 s) of a recording."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ticks = [round(float(row["rr"]) * 1.024) for row in rows if row["rr"]]
    return np.array([round(float(row["ecg"]) * 1000) for row in rows], np.int32), ticks


def read_mitdb(path: Path) -> NDArray[np.int32]:
    """Return a record of the MIT-BIH database as a strap would send it."""
    recording = open_recording(path)
    mv = resampled(recording.mv[: round(SECONDS * recording.rate_hz)], recording.rate_hz, RATE_HZ)
    return np.round(mv / SCALE_MV).astype(np.int32)


class Arrivals:
    """Arrival times of notifications: at a connection event, one in twenty after retries."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(5)

    def at(self, sent_ns: float) -> Arrival:
        delay_ns = self._random.uniform(5e6, 35e6) + (self._random.exponential(60e6) if self._random.random() < 0.05 else 0.0)
        event_ns = -(-(sent_ns + delay_ns) // CONNECTION_INTERVAL_NS) * CONNECTION_INTERVAL_NS
        mono_ns = round(event_ns + self._random.uniform(0.2e6, 1.5e6))
        wall_ns = mono_ns * (1 + 3e-6) + self._random.uniform(0, 400)  # the wall clock is slewed, and read a little later
        return Arrival(1_790_000_000_000_000 + int(wall_ns / 1000), 12_345_678_901_234 + mono_ns)


def make_waveforms(samples: NDArray[np.int32]) -> list[Record]:
    """Return the records of the frames; the strap's clock is 12 ppm fast and its rate 130.16 Hz, as measured on one."""
    timeline, arrivals, found = WaveformTimeline(SENSOR, "ecg"), Arrivals(), []
    for first in range(0, len(samples) - FRAME, FRAME):
        last_ns = round((first + FRAME) / 130.16 * 1e9)
        frame = Waveform(
            "ecg", tuple(samples[first : first + FRAME].tolist()), RATE_HZ, SCALE_MV, 780_000_000 * 10**9 + last_ns
        )
        record = timeline.assign_times(frame, arrivals.at(last_ns * (1 + 12e-6))).record
        assert record is not None
        found.append(record)
    return found


def make_vitals(ticks: Sequence[int], seconds: float) -> list[Record]:
    """Return the records of one notification a second."""
    arrivals, found, beats = Arrivals(), [], iter(np.cumsum(ticks).tolist())
    waiting = next(beats, None)
    for second in range(1, int(seconds)):
        arrival = arrivals.at(second * 1.0012e9)
        times, now = Times(arrival.wall_us, arrival.wall_us, arrival.mono_ns), []
        while waiting is not None and waiting <= second * 1024:
            now.append(waiting)
            waiting = next(beats, None)
        found.append(VitalRecord(SENSOR, "heart_rate", times, 60 + second // 7 % 20))
        found.append(StatusRecord(SENSOR, "skin_contact", times, True))
        if now:
            found.append(IntervalsRecord(SENSOR, "rr", times, tuple(np.diff(now, prepend=now[0] - 900).tolist())))
    return found


def cut_blocks(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records of each 10 s."""
    blocks: dict[int, list[Record]] = {}
    for record in records:
        assert isinstance(record, WaveformRecord | VitalRecord | IntervalsRecord | StatusRecord)
        blocks.setdefault(int(record.times.arrived_us // (BLOCK_S * 1e6)), []).append(record)
    return list(blocks.values())[1:-1]


def deflate_samples(samples: NDArray[np.int32]) -> bytes:
    """Return samples as format 1 packs them: first differences, byte-shuffled and deflated."""
    deltas = np.diff(samples.astype("<i8"), prepend=0).astype("<i4")
    return zlib.compress(deltas.view(np.uint8).reshape(-1, 4).T.tobytes(), 6)


def as_map(record: Record, pack: Callable[[NDArray[np.int32]], Any]) -> dict[str, Any]:
    """Return the map of a record alone, as in format 1."""
    fields = asdict(record)
    return {"type": type_name(record), **{n: pack(v) if isinstance(v, np.ndarray) else v for n, v in fields.items()}}


def encode_format_1(records: Sequence[Record]) -> bytes:
    """Encode a block as format 1 did."""
    return cbor2.dumps([as_map(record, deflate_samples) for record in records])


def split_plaintext(records: Sequence[Record]) -> dict[str, int]:
    """Return the bytes of a block by what they hold; the names of fields are in `rest`."""
    plaintext = encode_records(records)
    columns = [column for item in decode_cbor(plaintext, limit_bytes=len(plaintext))["items"] for column in item.items()]
    sizes = {part: sum(len(v) for k, v in columns if k in names and isinstance(v, bytes)) for part, names in PARTS.items()}
    return {**sizes, "rest": len(plaintext) - sum(sizes.values()), "block": BLOCK_OVERHEAD}


def mean_size(blocks: Sequence[Sequence[Record]], encode: Callable[[Sequence[Record]], bytes]) -> float:
    """Return the mean size of a block with its overhead."""
    return float(np.mean([len(encode(block)) + BLOCK_OVERHEAD for block in blocks]))


def microseconds(work: Callable[[Any], Any], inputs: Sequence[Any]) -> float:
    """Return the mean of the fastest of five rounds."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for one in inputs:
            work(one)
        rounds.append((time.perf_counter() - start) / len(inputs) * 1e6)
    return round(min(rounds))


FORMATS: Final[dict[str, Callable[[Sequence[Record]], bytes]]] = {
    "format 2": encode_records,
    "format 1": encode_format_1,
    "CBOR": lambda block: cbor2.dumps([as_map(record, np.ndarray.tolist) for record in block]),
    "JSON": lambda block: json.dumps([as_map(record, np.ndarray.tolist) for record in block]).encode(),
}
DECODERS: Final = {"format 2": decode_records, "format 1": format_1.decode_records}


def measure(samples: NDArray[np.int32], ticks: Sequence[int]) -> dict[str, Any]:
    """Return bytes a sample and microseconds a block of one recording."""
    waves = cut_blocks(make_waveforms(samples))
    vitals = cut_blocks(make_vitals(ticks, len(samples) / RATE_HZ))
    joined = [np.concatenate([record.samples for record in block if isinstance(record, WaveformRecord)]) for block in waves]
    n = float(np.mean([len(one) for one in joined]))
    parts = [split_plaintext(block) for block in waves]
    seconds = [block[i : i + 2] for block in waves for i in range(0, len(block) - 1, 2)]
    return {
        **{f"{name}, waveforms": round(mean_size(waves, encode) / n, 3) for name, encode in FORMATS.items()},
        **{
            f"{name}, with vitals": round(sum(mean_size(blocks, encode) for blocks in (waves, vitals)) / n, 3)
            for name, encode in FORMATS.items()
        },
        "format 1, waveforms in blocks of 1 s": round(mean_size(seconds, encode_format_1) / (2 * FRAME), 3),
        "parts of format 2": {part: round(float(np.mean([one[part] for one in parts])) / n, 3) for part in parts[0]},
        "samples deflated": round(float(np.mean([len(deflate_samples(one)) for one in joined])) / n, 3),
        **{f"{name}, encode_us": [microseconds(FORMATS[name], blocks) for blocks in (waves, vitals)] for name in DECODERS},
        **{
            f"{name}, decode_us": [
                microseconds(decode, [FORMATS[name](block) for block in blocks]) for blocks in (waves, vitals)
            ]
            for name, decode in DECODERS.items()
        },
    }


def main() -> None:
    """Prints the figures of each recording."""
    data = Path(os.environ.get("PULSEGATE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    console = Console(soft_wrap=True)
    polar, ticks = read_polar(data / "polar-h10" / "polar_h10.csv")
    recordings = {"polar-h10": polar} | {f"mitdb {name}": read_mitdb(data / "mitdb" / f"{name}.hea") for name in MITDB}
    for name, samples in recordings.items():
        console.print(name)
        console.print(measure(samples, ticks))


if __name__ == "__main__":
    main()

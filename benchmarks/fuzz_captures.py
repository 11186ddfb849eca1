"""Feeds damaged files to the readers of recordings and captures: only their declared errors may come out.

    python -m benchmarks.fuzz_captures SEEDS [--inputs N] [--start N] [--processes N]

Each file below the folder SEEDS is a seed, with the files beside it. Input number N is always the same: `--start N --inputs 1`
repeats it. An input fails if another exception is raised, a message is longer than 700 characters or has several lines, a chunk
breaks its contract, or reading takes longer than 10 s or 1 GiB. The exit status is 0 if none fails.
"""

import argparse
import math
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import track

from captures import PayloadCapture, ReadOptions, Recording, RecordingError, RrRecording, open_file
from captures.recording import CHUNK_SAMPLES

SEED_LIMIT_BYTES: Final = 1 << 20
LARGEST_INPUT_BYTES: Final = 4 << 20
TIME_LIMIT_S: Final = 10
MEMORY_LIMIT_BYTES: Final = 1 << 30
MESSAGE_LIMIT: Final = 700
BATCH: Final = 500
TOKENS: Final = tuple(
    b"\x00|\xff|-|,|;|\t|\n|\r\n|\"|'|[|]|{|}|#|0|-1|1e400|nan|inf|-32768|9999999999999999999999|2147483648|4294967295|0.0001|:|/"
    b"|T|Z|e|ecg|time|mV|uV|RR|PM|\xef\xbb\xbf|\xff\xfe".split(b"|")
)
OPTIONS: Final = (
    *[ReadOptions()] * 4,
    ReadOptions(rate_hz=250.0),
    ReadOptions(unit="uV"),
    ReadOptions(signal="1"),
    ReadOptions(signal="2", unit="mV", rate_hz=130.0),
    ReadOptions(signal="1", unit="200/mV", rate_hz=360.0),
)


@dataclass(frozen=True, slots=True)
class Seed:
    """A file to open, and the files of its folder by name."""

    name: str
    files: dict[str, bytes]


def load_seeds(folder: Path) -> list[Seed]:
    """Returns a seed for each file of at most `SEED_LIMIT_BYTES`; the larger ones beside it are left out.

    Files named `expect.json` describe a case and are not seeds.
    """
    seeds: list[Seed] = []
    for parent in sorted({path.parent for path in folder.rglob("*") if path.is_file()}):
        paths = [path for path in sorted(parent.iterdir()) if path.is_file() and path.name != "expect.json"]
        files = {path.name: path.read_bytes() for path in paths if path.stat().st_size <= SEED_LIMIT_BYTES}
        seeds += [Seed(name, files if len(files) <= 8 else {name: content}) for name, content in files.items()]
    return seeds


def mutate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Returns the content with up to four random changes; `other` is the content of another seed."""
    data = bytearray(content)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else min(len(data), int(rng.expovariate(1 / 200)))
        length = rng.choice((1, 1, 2, 4, 16, 200))
        match rng.randrange(9):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.randbytes(length)
            case 2:
                data[at:at] = rng.choice(TOKENS)
            case 3:
                data[at : at + length] = rng.choice(TOKENS)
            case 4:
                del data[at : at + length]
            case 5:
                del data[at:]
            case 6:
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 300))
            case 7:
                begin = rng.randrange(len(other) + 1)
                data[at:at] = other[begin : begin + rng.choice((16, 200, 4000))]
            case _:
                data[at:at] = rng.choice(TOKENS) * rng.choice((1, 5000, 100_000))
    return bytes(data[:LARGEST_INPUT_BYTES])


def read_all(path: Path, options: ReadOptions) -> str:
    """Reads a file to its end and checks what the readers promise; returns what became of it."""
    try:
        opened = open_file(path, options)
        match opened:
            case Recording():
                _check_chunks(opened)
            case RrRecording():
                assert opened.t_s.shape == opened.rr_s.shape
                assert np.isfinite(opened.t_s).all()
                assert (opened.rr_s > 0).all()
            case PayloadCapture():
                for _ in opened.read_entries():
                    pass
    except RecordingError as error:
        message = str(error)
        assert message, "an empty message"
        assert "\n" not in message, "a message of several lines"
        assert len(message.replace(str(path), "")) <= MESSAGE_LIMIT, f"a message of {len(message)} characters"
        return "refused"
    return type(opened).__name__


def _check_chunks(recording: Recording) -> None:
    assert math.isfinite(recording.rate_hz)
    assert recording.rate_hz > 0
    last_s = -math.inf
    for chunk in recording.read_chunks():
        assert chunk.values.ndim == 1
        assert chunk.values.size <= CHUNK_SAMPLES
        assert math.isfinite(chunk.start_s)
        assert chunk.start_s >= last_s
        assert not np.isinf(chunk.values).any()
        last_s = chunk.start_s


def make_input(number: int, seeds: Sequence[Seed], folder: Path) -> tuple[Path, ReadOptions]:
    """Writes input `number` into the folder; returns the path to open and the options."""
    rng = random.Random(number)
    seed, other = rng.choice(seeds), rng.choice(seeds)
    damaged = rng.choice(list(seed.files))
    for name, content in seed.files.items():
        (folder / name).write_bytes(mutate(content, other.files[other.name], rng) if name == damaged else content)
    return folder / seed.name, rng.choice(OPTIONS)


def run_batch(job: tuple[Path, int, int]) -> tuple[Counter[str], list[str]]:
    """Reads the inputs of a batch; returns the counts of outcomes, and a line for each failure."""
    source, first, count = job
    seeds = load_seeds(source)
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(first, first + count):
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm") as name:
            path, options = make_input(number, seeds, Path(name))
            signal.alarm(TIME_LIMIT_S)
            try:
                outcomes[read_all(path, options)] += 1
            except Exception as error:  # noqa: BLE001 - whatever comes out is what is looked for
                where = traceback.extract_tb(error.__traceback__)[-1]
                failures.append(
                    f"input {number} ({path.name}, {options}): {type(error).__name__}: {str(error)[:200]}"
                    f" at {Path(where.filename).name}:{where.lineno}"
                )
            finally:
                signal.alarm(0)
    return outcomes, failures


def _on_alarm(_number: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {TIME_LIMIT_S} s")


def _prepare_process() -> None:
    signal.signal(signal.SIGALRM, _on_alarm)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY_LIMIT_BYTES, used + MEMORY_LIMIT_BYTES))


def _batches(arguments: argparse.Namespace) -> Iterator[tuple[Path, int, int]]:
    end = arguments.start + arguments.inputs
    for first in range(arguments.start, end, BATCH):
        yield arguments.seeds, first, min(BATCH, end - first)


def main() -> int:
    """Runs the inputs and prints the counts of outcomes and each failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_captures")
    parser.add_argument("seeds", type=Path, help="folder of valid and damaged files")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    outcomes: Counter[str] = Counter()
    failures = 0
    batches = list(_batches(arguments))
    with multiprocessing.get_context("spawn").Pool(arguments.processes, _prepare_process) as pool:
        for counts, lines in track(pool.imap_unordered(run_batch, batches), total=len(batches), console=console):
            outcomes.update(counts)
            failures += len(lines)
            for line in lines:
                console.print(line, markup=False, highlight=False)
    console.print(f"{outcomes.total() + failures} inputs: {dict(outcomes.most_common())}, {failures} failures", highlight=False)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

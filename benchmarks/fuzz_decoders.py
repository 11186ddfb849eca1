"""Fuzzes every decoder, conversation and reassembly of the drivers with atheris, which follows their coverage.

    python -m benchmarks.fuzz_decoders [--inputs N] [--seconds S] [--folder DIR]

`benchmarks.fuzz_inputs` says what an input is and when it fails. It also fails if it takes longer than `TIME_LIMIT_S`, or if
the process keeps more and more objects. What has been found is in DIR, so an interrupted run continues: inputs that reached new
code in `corpus`, the number of inputs so far in `count`, failed inputs in `failures`. To repeat one, give its path. The exit
status is 0 if none failed.
"""

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROOT: Final = Path(__file__).parents[1]
VECTORS: Final = ROOT / "tests" / "drivers" / "vectors"

INPUTS: Final = 5_000_000
TIME_LIMIT_S: Final = 20
"""Seconds after which an input hangs. The slowest one repeats its last payload, a long frame, 150 times: 0.13 s by itself, and
up to 4 s with atheris on a machine that does other work."""
LONGEST_INPUT: Final = 1024
"""Two notifications of the largest MTU (517)."""
MEMORY_LIMIT_MB: Final = 1024
REPORT_EVERY: Final = 10_000
OBJECTS_AFTER: Final = 20_000
"""Inputs after which every cache is filled."""
MORE_OBJECTS: Final = 5_000
"""Objects that the process may have beyond those after `OBJECTS_AFTER` inputs: hundreds of inputs would leave a trace."""


def run_worker(folder: Path, inputs: int, seconds: int, repeated: Path | None) -> None:
    """Fuzz in this process, and write the number of inputs to standard output every `REPORT_EVERY`. Does not return."""
    import atheris  # noqa: PLC0415 - it must instrument the drivers before they are imported

    with atheris.instrument_imports(include=["drivers"]):
        from drivers.registry import load_drivers  # noqa: PLC0415

        registry = load_drivers()
    from benchmarks.fuzz_inputs import Harness  # noqa: PLC0415

    harness = Harness(registry)
    write_seeds(folder, list(harness.make_seeds(VECTORS)))
    done = most = 0

    def check(data: bytes) -> None:
        nonlocal done, most
        harness.check_input(data)
        done += 1
        if done == OBJECTS_AFTER:
            most = count_objects() + MORE_OBJECTS
        if done % REPORT_EVERY == 0:
            print(done, flush=True)
            assert not most or count_objects() < most, f"objects grow: {count_objects()} after {done} inputs"

    options = [f"-runs={inputs}", f"-max_total_time={seconds}", f"-timeout={TIME_LIMIT_S}", f"-max_len={LONGEST_INPUT}"]
    options += [f"-rss_limit_mb={MEMORY_LIMIT_MB}", f"-artifact_prefix={folder / 'failures'}/", "-verbosity=0"]
    paths = [str(repeated)] if repeated else [str(folder / "corpus"), str(folder / "seeds")]
    atheris.Setup([sys.argv[0], *options, *paths], check)
    atheris.Fuzz()


def write_seeds(folder: Path, seeds: Sequence[bytes]) -> None:
    """Replace the folder's seeds by these."""
    for name in ("seeds", "corpus", "failures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in (folder / "seeds").iterdir():
        path.unlink()
    for number, seed in enumerate(seeds):
        (folder / "seeds" / f"{number:05}").write_bytes(seed)


def count_objects() -> int:
    """The containers that are alive."""
    gc.collect()
    return len(gc.get_objects())


def read_count(folder: Path) -> int:
    """How many inputs earlier runs had."""
    path = folder / "count"
    return int(path.read_text()) if path.exists() else 0


def run(folder: Path, inputs: int, seconds: int) -> int:
    """Run a worker for the inputs that remain, and show how far it is. Returns its exit status."""
    before = read_count(folder)
    if before >= inputs:
        return 0
    command = [sys.executable, "-m", "benchmarks.fuzz_decoders", "--worker", "--folder", str(folder)]
    command += ["--inputs", str(inputs - before), "--seconds", str(seconds)]
    columns = (TextColumn("inputs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("w") as log, Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("inputs", total=inputs, completed=before)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if not line.strip().isdecimal():  # atheris writes the traceback of a failure
                    log.write(line)
                    continue
                done = before + int(line)
                (folder / "count").write_text(str(done))
                progress.update(task, completed=done)
    return worker.returncode


def main() -> int:
    """Fuzz, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_decoders")
    parser.add_argument("input", nargs="?", type=Path, help="a failed input to repeat")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="inputs in all, with those of earlier runs")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so many seconds; 0: do not")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker or arguments.input:
        run_worker(arguments.folder, 1 if arguments.input else arguments.inputs, arguments.seconds, arguments.input)
    started = time.monotonic()
    status = run(arguments.folder, arguments.inputs, arguments.seconds)
    took_s = time.monotonic() - started
    corpus = len(list((arguments.folder / "corpus").iterdir()))
    print(f"{read_count(arguments.folder)} inputs so far, {took_s:.0f} s in this run, {corpus} inputs in the corpus")
    for path in sorted((arguments.folder / "failures").iterdir()):
        print(f"failed: {path}; give it as an argument to repeat it")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())

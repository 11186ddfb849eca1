"""Fuzzes decoders with atheris, which follows their coverage: those of the drivers, or those of messages on the wire.

    python -m benchmarks.fuzz_decoders {drivers,messages} [--inputs N] [--seconds S] [--folder DIR]

`benchmarks.fuzz_inputs` and `benchmarks.fuzz_messages` say what an input is and when it fails. It also fails if it takes longer
than `TIME_LIMIT_S`, or if the process keeps more and more objects. What has been found is in DIR, so an interrupted run
continues: inputs that reached new code in `corpus`, the number of inputs so far in `count`, failed inputs in `failures`. To
repeat one, give its path. The exit status is 0 if none failed.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

ROOT: Final = Path(__file__).parents[1]
VECTORS: Final = ROOT / "tests" / "drivers" / "vectors"

INPUTS: Final = {"drivers": 5_000_000, "messages": 1_000_000}
TIME_LIMIT_S: Final = 20
"""Seconds after which an input hangs. The slowest one repeats its last payload, a long frame, 150 times: 0.13 s by itself, and
up to 4 s with atheris on a machine that does other work."""
LONGEST_INPUT: Final = {"drivers": 1024, "messages": 8192}
"""Two notifications of the largest MTU (517), and the longest of the valid messages with room for changes."""
MEMORY_LIMIT_MB: Final = 1024
REPORT_EVERY: Final = 10_000
OBJECTS_AFTER: Final = 20_000
"""Inputs after which every cache is filled."""
MORE_OBJECTS: Final = 5_000
"""Objects that the process may have beyond those after `OBJECTS_AFTER` inputs: hundreds of inputs would leave a trace."""


class Target(NamedTuple):
    """What is fuzzed: the check of an input, the first inputs, and how inputs ended by decoder, if that is counted.

    `change` makes an input of another one, for a seed; None leaves that to atheris.
    """

    check_input: Callable[[bytes], None]
    seeds: Sequence[bytes]
    count_outcomes: Callable[[], dict[str, tuple[int, int]]] = dict
    change: Callable[[bytes, int], bytes] | None = None


def load_drivers_target(atheris: Any) -> Target:
    """The drivers, which atheris must instrument before they are imported."""
    with atheris.instrument_imports(include=["drivers"]):
        from drivers.registry import load_drivers  # noqa: PLC0415

        registry = load_drivers()
    from benchmarks.fuzz_inputs import Harness  # noqa: PLC0415

    harness = Harness(registry)
    return Target(harness.check_input, list(harness.make_seeds(VECTORS)))


def load_messages_target(atheris: Any) -> Target:
    """The decoders of messages."""
    with atheris.instrument_imports(include=["sync", "cloud.validate"]):
        from benchmarks.fuzz_messages import Harness, Mutator  # noqa: PLC0415

    harness = Harness()
    mutator = Mutator(harness.decoders, 0)
    return Target(harness.check_input, list(harness.make_seeds()), harness.list_counts, mutator.change)


LOADERS: Final = {"drivers": load_drivers_target, "messages": load_messages_target}


def run_worker(name: str, folder: Path, inputs: int, seconds: int, repeated: Path | None) -> None:
    """Fuzz in this process, and write the number of inputs to standard output every `REPORT_EVERY`. Does not return."""
    import atheris  # noqa: PLC0415 - it must instrument the decoders before they are imported

    target = LOADERS[name](atheris)
    write_seeds(folder, target.seeds)
    before = read_outcomes(folder)
    done = most = 0

    def check(data: bytes) -> None:
        nonlocal done, most
        target.check_input(data)
        done += 1
        if done == OBJECTS_AFTER:
            most = count_objects() + MORE_OBJECTS
        if done % REPORT_EVERY == 0:
            print(done, flush=True)
            write_outcomes(folder, before, target.count_outcomes())
            assert not most or count_objects() < most, f"objects grow: {count_objects()} after {done} inputs"

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        assert target.change is not None
        return target.change(data, seed)[:max_size]

    options = [f"-runs={inputs}", f"-max_total_time={seconds}", f"-timeout={TIME_LIMIT_S}", f"-max_len={LONGEST_INPUT[name]}"]
    options += [f"-rss_limit_mb={MEMORY_LIMIT_MB}", f"-artifact_prefix={folder / 'failures'}/", "-verbosity=0"]
    paths = [str(repeated)] if repeated else [str(folder / "corpus"), str(folder / "seeds")]
    changing = {} if target.change is None else {"custom_mutator": change}
    atheris.Setup([sys.argv[0], *options, *paths], check, **changing)
    atheris.Fuzz()


def read_outcomes(folder: Path) -> dict[str, list[int]]:
    """Return how many inputs each decoder accepted and refused so far."""
    path = folder / "outcomes.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_outcomes(folder: Path, before: dict[str, list[int]], counts: dict[str, tuple[int, int]]) -> None:
    """Write the outcomes of earlier runs and of this one together."""
    total = {
        name: [old + new for old, new in zip(before.get(name, (0, 0)), found, strict=True)] for name, found in counts.items()
    }
    (folder / "outcomes.json").write_text(json.dumps(total))


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


def run(name: str, folder: Path, inputs: int, seconds: int) -> int:
    """Run a worker for the inputs that remain, and show how far it is. Returns its exit status."""
    before = read_count(folder)
    if before >= inputs:
        return 0
    command = [sys.executable, "-m", "benchmarks.fuzz_decoders", name, "--worker", "--folder", str(folder)]
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
    parser.add_argument("target", choices=LOADERS, help="whose decoders")
    parser.add_argument("input", nargs="?", type=Path, help="a failed input to repeat")
    parser.add_argument("--inputs", type=int, help="inputs in all, with those of earlier runs")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so many seconds; 0: do not")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name, inputs = arguments.target, arguments.inputs or INPUTS[arguments.target]
    folder = arguments.folder or ROOT / "build" / "fuzz" / name
    if arguments.worker or arguments.input:
        run_worker(name, folder, 1 if arguments.input else inputs, arguments.seconds, arguments.input)
    started = time.monotonic()
    status = run(name, folder, inputs, arguments.seconds)
    took_s = time.monotonic() - started
    corpus = len(list((folder / "corpus").iterdir()))
    for decoder, (accepted, refused) in read_outcomes(folder).items():
        print(f"{decoder}: {accepted} accepted, {refused} refused")
    print(f"{name}: {read_count(folder)} inputs so far, {took_s:.0f} s in this run, {corpus} inputs in the corpus")
    for path in sorted((folder / "failures").iterdir()):
        print(f"failed: {path}; give it as an argument to repeat it")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())

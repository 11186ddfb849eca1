"""`pulsegate replay`: plays recordings through the agent's pipeline, as fast as possible or at a chosen speed."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from captures import ReadOptions
from captures.leads import millivolts_per_unit
from config.contexts import NO_CONTEXTS, ContextError, Contexts, make_contexts, parse_contexts
from config.limits import DEFAULT_LIMITS
from config.terminal import escape_controls
from drivers.registry import Registry, load_drivers
from gateway.models import load_models
from gateway.pipeline import Pipeline
from gateway.replay.destination import find_wrong_destination, write_page
from gateway.replay.output import json_lines, print_table, summary
from gateway.replay.progress import show_progress
from gateway.replay.sources import Source, SourceError, Step, open_source
from gateway.waveform_analysis import Output
from models.inference.models import Models
from reporting.result import OutputRecord, ReplayResult

USAGE_ERROR: Final = 2
"""The exit status of argparse for options that it refuses."""


def replay(args: argparse.Namespace) -> int:
    """Runs the command. Each failure is one line on stderr.

    Returns 0 if every file was replayed completely, 2 for options that contradict each other, 1 for any other failure.
    """
    problem = _find_wrong_usage(args)
    if problem:
        _fail(problem)
        return USAGE_ERROR
    problem = find_wrong_destination(args.report, args.files, force=args.force) if args.report else None
    if problem:
        return _fail(problem)
    try:
        models = load_models()
        return _fail(" ".join(models.refused)) if models.refused else _replay_files(args, models)
    except BrokenPipeError:
        # The reader of the output has closed it, as `head` does. Without a redirection, Python reports the error again at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"cannot write the output: {error.strerror or error}; free space or choose another destination")


def _replay_files(args: argparse.Namespace, models: Models) -> int:
    registry = load_drivers()
    player = Player(models, registry, args.speed, contexts=make_contexts(parse_contexts(args.contexts)))
    options = ReadOptions(args.signal, args.unit, args.rate_hz, args.gatt)
    results: list[ReplayResult] = []
    status = 0
    with show_progress(len(args.files), json_output=args.json) as progress:
        for path in args.files:
            try:
                source = progress.watch(open_source(path, registry, args.sensor, options))
            except SourceError as error:
                status = _fail(str(error))
                continue
            result = empty_result(source)
            results.append(result)
            records = player.play(source, result)
            if args.json:
                _write_json(records, result, beats=args.beats)
            else:
                for _ in records:
                    pass
            if result.failure:
                status = _fail(result.failure)
    if results and not args.json:
        print_table(results)
    if args.report and not results:
        return _fail("no file was replayed, so no report was written; correct the files named above")
    if args.report:
        status = max(status, _write_report(args.report, results, models))
    return status


def _find_wrong_usage(args: argparse.Namespace) -> str | None:
    if args.beats and not args.json:
        return "--beats: the table has no room for single beats; add --json"
    if args.force and not args.report:
        return "--force: there is no report to replace; add --report OUT.html"
    if args.unit is not None and not millivolts_per_unit(args.unit):
        return f"--unit {args.unit[:40]}: not a unit of voltage; give V, mV, uV, nV or counts per millivolt such as 200/mV"
    try:
        make_contexts(parse_contexts(args.contexts))
    except ContextError as error:
        return f"--context: {error}"
    return None


@dataclass(frozen=True, slots=True)
class Player:
    """Plays each source through its own pipeline. `speed` is a multiple of real time; None plays as fast as possible."""

    models: Models
    registry: Registry
    speed: float | None = None
    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    contexts: Contexts = NO_CONTEXTS

    def play(self, source: Source, result: ReplayResult) -> Iterable[OutputRecord]:
        """Yields records and beats as they become final and fills `result`; damage in the file sets `result.failure`."""
        start_s = self.now()
        pipeline = Pipeline(source.sensor, DEFAULT_LIMITS, self.models, contexts=self.contexts)
        try:
            for step in source.steps:
                self._wait(start_s, (step.arrival.wall_us - source.start_us) / 1e6)
                result.end_us = max(result.end_us, step.arrival.wall_us)
                if step.note:
                    result.notes.append(step.note)
                yield from _add_output(result, _feed(pipeline, step))
        except SourceError as error:
            result.failure = str(error)
            result.notes.append(f"replayed only in part: {error}")
        yield from _add_output(result, pipeline.finish(source.arrival(result.duration_s)))
        yield from result.close()
        result.replay_s = self.now() - start_s

    def _wait(self, start_s: float, t: float) -> None:
        if self.speed is not None:
            self.sleep(max(0.0, start_s + t / self.speed - self.now()))


def empty_result(source: Source) -> ReplayResult:
    """Returns the result of a file before its replay."""
    return ReplayResult(
        str(source.path), source.sensor, source.start_us, source.start_known, list(source.notes), source.start_us
    )


def _add_output(result: ReplayResult, output: Output) -> Iterable[OutputRecord]:
    return result.add(output.records, output.beats)


def _feed(pipeline: Pipeline, step: Step) -> Output:
    if step.interruption:
        return pipeline.on_interruption(step.interruption, step.arrival)
    return pipeline.feed(step.readings, step.arrival)


def _write_json(records: Iterable[OutputRecord], result: ReplayResult, *, beats: bool) -> None:
    for record in records:
        for item in json_lines(record, result):
            if beats or item["type"] != "beat":
                sys.stdout.write(json.dumps(item, allow_nan=False) + "\n")
    sys.stdout.write(json.dumps(summary(result), allow_nan=False) + "\n")
    sys.stdout.flush()


def _write_report(path: Path, results: list[ReplayResult], models: Models) -> int:
    from reporting.report import render  # noqa: PLC0415  only a report needs it

    page = render(results, models.names, datetime.now(UTC))
    try:
        write_page(path, page.encode("utf-8", errors="replace"))  # a file name need not be valid Unicode
    except OSError as error:
        return _fail(f"cannot write the report {path}: {error.strerror or error}; choose another destination")
    return 0


def _fail(message: str) -> int:
    sys.stderr.write(f"pulsegate replay: {escape_controls(message)}\n")
    return 1

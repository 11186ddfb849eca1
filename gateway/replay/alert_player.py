"""Plays an ECG through the agent's pipeline; returns its alerts at the times at which the live agent would have sent them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from captures.recording import Recording, split_chunks
from evaluation.alert_lines import AlertLine
from evaluation.alerts import AlertRun, Playback
from evaluation.records import EvaluationError
from gateway.models import load_models, replace_models
from gateway.pipeline import Pipeline
from gateway.replay.sources import arrival_at, recording_steps
from gateway.waveform_analysis import Output
from models.inference.models import Models
from models.inference.session import ModelError
from reporting.result import LATEST_KEY
from sync.records import AlertRecord

SENSOR: Final = "ecg"
FOLDS_FILE: Final = "folds.json"
"""A JSON object in a folder of folds: the name of each fold's folder to the list of the records held out, `database/record`."""


def play_alerts(playback: Playback) -> list[AlertLine]:
    """Plays samples in steps of one second, as a strap sends them; missing samples interrupt the link."""
    rate_hz = playback.rate_hz
    recording = Recording(SENSOR, rate_hz, None, (), lambda: split_chunks(None, playback.mv, rate_hz))
    pipeline = Pipeline(SENSOR, playback.limits, playback.models, contexts=playback.contexts)
    lines: list[AlertLine] = []
    for step in recording_steps(Path(SENSOR), recording, 0):
        if step.interruption:
            lines += _alert_lines(pipeline.on_interruption(step.interruption, step.arrival))
        else:
            lines += _alert_lines(pipeline.feed(step.readings, step.arrival))
    if playback.ends:
        lines += _alert_lines(pipeline.finish(arrival_at(0, playback.mv.size / rate_hz)))
    return lines


def _alert_lines(output: Output) -> Iterator[AlertLine]:
    for record in output.records:
        if isinstance(record, AlertRecord):
            onset_s, decided_s = record.onset_us / 1e6, record.decided_us / 1e6
            end_s = None if record.end_us is None else record.end_us / 1e6
            latest_s = (record.measured or {}).get(LATEST_KEY) if end_s is None else None
            raised_s = decided_s if record.raised_us is None else record.raised_us / 1e6
            since_s = None if latest_s is None else onset_s + latest_s
            yield AlertLine(record.id, record.kind, record.priority, onset_s, end_s, decided_s, since_s, raised_s)


def make_alert_run(folds: Path | None = None) -> AlertRun:
    """Returns how `pulsegate evaluate alerts` plays records: with the released models, or with those of a cross-validation."""
    return AlertRun(play_alerts, FoldModels(folds) if folds else released_models)


def released_models(name: str) -> Models:
    """Returns the released models, whatever the record.

    Raises:
        EvaluationError: the release was refused.
    """
    del name
    return _released()


@cache
def _released() -> Models:
    loaded = load_models()
    if loaded.refused:
        raise EvaluationError(" ".join(loaded.refused))
    return loaded


@dataclass(frozen=True, slots=True)
class FoldModels:
    """The models of a cross-validation: for each record those of the fold that held it out.

    The folder holds `folds.json` and one folder a fold with the models of that fold, such as `ecg_beat.onnx`. Where a fold
    lacks a model, the released one is taken.
    """

    folder: Path

    def __call__(self, name: str) -> Models:
        """Returns the models for a record, `database/record`.

        Raises:
            EvaluationError: no fold holds it out, or a file is missing or damaged.
        """
        fold = _read_folds(self.folder).get(name)
        if fold is None:
            raise EvaluationError(f"no fold in {self.folder / FOLDS_FILE} holds out {name}")
        return _load_fold(self.folder / fold)


@cache
def _read_folds(folder: Path) -> dict[str, str]:
    try:
        folds: dict[str, list[str]] = json.loads((folder / FOLDS_FILE).read_bytes())
        return {name: fold for fold, names in folds.items() for name in names}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise EvaluationError(f"cannot read {folder / FOLDS_FILE}: {error}") from error


@cache
def _load_fold(folder: Path) -> Models:
    try:
        return replace_models(_released(), folder)
    except (ModelError, OSError) as error:
        raise EvaluationError(str(error)) from error

"""`pulsegate evaluate`: loads the models, scores them on annotated recordings, and prints the report."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from config.limits import DEFAULT_LIMITS
from evaluation.alert_noise import list_noise_levels
from evaluation.alert_tables import build_alert_tables
from evaluation.alerts import AlertRun, evaluate_alerts, find_alert_records
from evaluation.beats import Labelled, Labeller, evaluate_beats
from evaluation.detection import detect, evaluate_qrs
from evaluation.perturbations import DROPPED_PERCENT, Perturbation, find_noise, list_perturbations
from evaluation.pulse import drop_packets, evaluate_pulse
from evaluation.records import EvaluationError, annotated_headers
from evaluation.rhythm import DATABASE, Classifier, evaluate_rhythm
from evaluation.rr_af import evaluate_rr_af
from evaluation.tables import build_tables
from evaluation.training_data import EvaluatedRecord, describe_trained_on, find_trained_on, record_in
from models.analysis import EcgAnalysis
from models.inference.ecg_beat import EcgBeat
from models.inference.ecg_qrs import EcgQrs
from models.inference.ecg_rhythm import EcgRhythm, record_probabilities
from models.inference.models import Models
from models.inference.ppg_quality import PpgQuality
from models.inference.release import open_release, read_release_file
from models.inference.rr_af import RrAf
from models.signal.offline import condition

RUNS: Final = Path(__file__).parents[1] / "training" / "runs"
"""Where training keeps the float models that the released int8 models are quantized from."""

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate, on which data, and how.

    `databases` and `alert_run` are those of the task `alerts`; `rr-af` takes the models for each record from `alert_run`.
    """

    data: Path
    precision: str
    perturbations: Sequence[Perturbation]
    drop: bool
    progress: Progress
    noise: Path | None
    databases: Sequence[str]
    alert_run: AlertRun


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the command: `run` makes the report, `find_records` names the records in it, `models` are the model ids."""

    run: Callable[[Request], Report]
    models: tuple[str, ...]
    find_records: Callable[[Path, Report], list[EvaluatedRecord]]


def evaluate(arguments: Namespace, alert_run: AlertRun) -> int:
    """Runs the command; `alert_run` plays records through the agent's pipeline.

    Raises:
        EvaluationError, ModelError: nothing can be evaluated.
    """
    data: Path = arguments.data
    if not data.exists():
        raise EvaluationError(f"{data}: no such folder; give the folder that holds the recordings")
    noise = (arguments.noise_data or find_noise(data)) if arguments.noise else None
    perturbations = list_perturbations(noise, drop=arguments.drop, fs=arguments.fs)
    task = TASKS[arguments.task]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        run = replace(alert_run, strips=arguments.strips)
        request = Request(data, arguments.precision, perturbations, arguments.drop, progress, noise, arguments.databases, run)
        report = task.run(request)
    models = () if arguments.models else _released_models(task.models)
    trained_on = find_trained_on(models, task.find_records(data, report))
    header = {"task": arguments.task, "precision": arguments.precision, "data": str(data), "trained_on": trained_on}
    try:
        if arguments.json:
            _print_json(header | to_json(report))
        else:
            tables = build_alert_tables(report) if arguments.task == "alerts" else build_tables(arguments.task, report)
            _print_tables(tables, describe_trained_on(trained_on))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the error again at exit
        raise EvaluationError(f"cannot write the output: {error.strerror}; free space or choose another destination") from error
    return 0


def _print_json(report: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    sys.stdout.flush()


def _print_tables(tables: Iterable[Table], trained_on: str) -> None:
    console = Console()
    for table in tables:
        console.print(table)
    console.print(trained_on, highlight=False)
    sys.stdout.flush()


def first_skipped(report: Mapping[str, Any]) -> str:
    """Returns the first skipped record and the reason, or which files are expected where no record was found."""
    skipped = dict(report["skipped"])
    return next((f"{name}: {reason}" for name, reason in skipped.items()), "give a folder with PPG.csv beside RR.txt")


def model_bytes(name: str, precision: str) -> bytes:
    """Returns a model's file: the released int8 model, or the float model that training left.

    Raises:
        ModelError: the released file is damaged.
        EvaluationError: there is no float model.
    """
    if precision == "int8":
        return read_release_file(f"{name}.onnx")
    path = RUNS / name / f"{name}.float.onnx"
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"cannot read the float model {path}: run make train to create it") from error


def to_json(value: Any) -> Any:
    """Returns the value with numpy's types as Python's, and None for numbers that are not finite."""
    match value:
        case Mapping():
            return {str(key): to_json(part) for key, part in value.items()}
        case list() | tuple():
            return [to_json(part) for part in value]
        case np.ndarray():
            return to_json(value.tolist())
        case np.generic():
            return to_json(value.item())
        case float():
            return value if np.isfinite(value) else None
        case _:
            return value


def load_noise_classifier(precision: str) -> EcgQrs | None:
    """Returns the beat classifier that the detector uses in noise; None where the release has none, as in the agent.

    Raises:
        ModelError: the released file is damaged.
        EvaluationError: there is no float model.
    """
    if precision == "int8" and not _released_models(("ecg_qrs",)):
        return None
    return EcgQrs(model_bytes("ecg_qrs", precision))


def _released_models(names: Iterable[str]) -> list[str]:
    files = open_release().files
    return [name for name in names if f"{name}.onnx" in files]


def _qrs(request: Request) -> Report:
    detector = partial(detect, classifier=load_noise_classifier(request.precision))
    return evaluate_qrs(request.data, request.progress, request.perturbations, detector)


def _beats(request: Request) -> Report:
    models = Models(
        ecg_beat=EcgBeat(model_bytes("ecg_beat", request.precision)),
        ecg_rhythm=EcgRhythm(model_bytes("ecg_rhythm", request.precision)),
        ecg_qrs=load_noise_classifier(request.precision),
    )
    return evaluate_beats(request.data, beat_labeller(models), request.progress, request.perturbations)


def _rhythm(request: Request) -> Report:
    model = EcgRhythm(model_bytes("ecg_rhythm", request.precision))
    return evaluate_rhythm(request.data, rhythm_classifier(model), request.progress, request.perturbations)


def _rr_af(request: Request) -> Report:
    float_model = None if request.precision == "int8" else RrAf(model_bytes("rr_af", request.precision))
    model_for_record = partial(_find_rr_af, request.alert_run, float_model)
    report = evaluate_rr_af(request.data, model_for_record)
    if request.drop:
        report["drop"] = {f"{lost}": evaluate_rr_af(request.data, model_for_record, lost / 100) for lost in DROPPED_PERCENT}
    return report


def _find_rr_af(run: AlertRun, float_model: RrAf | None, name: str) -> RrAf:
    model = float_model or run.models_for_record(name).rr_af
    if model is None:
        raise EvaluationError("the release has no model rr_af")
    return model


def _pulse(request: Request) -> Report:
    # None stands for the released model. Where the release has none, every second counts as good and `coverage` is null.
    model = None if request.precision == "int8" else PpgQuality(model_bytes("ppg_quality", request.precision))
    report = evaluate_pulse(request.data, model)
    if not report["records"]:
        raise EvaluationError(f"no PPG recording below {request.data} can be evaluated: {first_skipped(report)}")
    if request.drop:
        report["drop"] = {f"{lost}": evaluate_pulse(request.data, model, drop_packets(lost / 100)) for lost in DROPPED_PERCENT}
    return report


def _alerts(request: Request) -> Report:
    if request.precision != "int8":
        raise EvaluationError("alerts: the agent runs int8 models only; leave --precision out")
    records = find_alert_records(request.data, request.databases)
    report = evaluate_alerts(records, request.alert_run, request.progress)
    annotated = [record for record in records if record.alarm is None]
    for level in list_noise_levels(request.noise) if request.noise and annotated else ():
        noisy = evaluate_alerts(annotated, replace(request.alert_run, noise=level), request.progress)
        report.setdefault("noise", {}).setdefault(level.kind, {})[f"{level.snr_db}"] = noisy
    return report


def _alert_records(_data: Path, report: Report) -> list[EvaluatedRecord]:
    names = [*report.get("records", ()), *report.get("cinc2015", {}).get("records", ())]
    return [EvaluatedRecord(record, (database,)) for database, _, record in (name.partition("/") for name in names)]


def _ecg_records(data: Path, report: Report) -> list[EvaluatedRecord]:
    headers = dict(annotated_headers(data))
    return [record_in(headers[name]) for name in report["records"]]


def _challenge_records(_data: Path, report: Report) -> list[EvaluatedRecord]:
    return [EvaluatedRecord(name, (DATABASE,)) for name in report["records"]]


def _rhythm_records(_data: Path, report: Report) -> list[EvaluatedRecord]:
    names = [name.split("/", 1) for name in report["records"]]
    return [EvaluatedRecord(record, (database,)) for database, record in names]


def _ppg_records(_data: Path, report: Report) -> list[EvaluatedRecord]:
    return [EvaluatedRecord(name) for name in report["records"]]


TASKS: Final[Mapping[str, Task]] = {
    "qrs": Task(_qrs, ("ecg_qrs",), _ecg_records),
    "beats": Task(_beats, ("ecg_beat", "ecg_rhythm", "ecg_qrs"), _ecg_records),
    "rhythm": Task(_rhythm, ("ecg_rhythm",), _challenge_records),
    "rr-af": Task(_rr_af, ("rr_af",), _rhythm_records),
    "alerts": Task(_alerts, ("ecg_beat", "ecg_organised", "ecg_qrs", "ecg_quality", "ecg_rhythm", "rr_af"), _alert_records),
    "pulse": Task(_pulse, ("ppg_quality", "rr_af"), _ppg_records),
}


def beat_labeller(models: Models) -> Labeller:
    """Returns a function that gives the beats and labels of the agent's analysis; without `ecg_beat` every beat is N."""

    def label(mv: NDArray[np.float64], rate_hz: float) -> Labelled:
        analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, models)
        beats = (*analysis.push(mv).beats, *analysis.finish().beats)
        return np.array([beat.t_s for beat in beats], np.float64), [beat.label for beat in beats]

    return label


def rhythm_classifier(model: EcgRhythm) -> Classifier:
    """Returns a function that gives the model's probabilities for a short recording, conditioned as in the agent."""
    return lambda mv, rate_hz: record_probabilities(model, condition(mv, rate_hz))

"""Loads the models, runs the scorers of `evaluation`, and prints what they found."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from config.limits import DEFAULT_LIMITS
from evaluation.beats import Labelled, Labeller, evaluate_beats
from evaluation.detection import detect, evaluate_qrs
from evaluation.ladders import DROPPED_PERCENT, Rung, find_noise, rungs
from evaluation.pulse import dropped, evaluate_pulse
from evaluation.records import EvaluationError
from evaluation.rhythm import Classifier, evaluate_rhythm
from evaluation.rr_af import evaluate_rr_af
from evaluation.tables import tables
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
"""Where training keeps the float models that the released ones are made from."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate, on what, and how."""

    data: Path
    precision: str
    rungs: Sequence[Rung]
    drop: bool
    progress: Progress


def evaluate(arguments: Namespace) -> int:
    """Runs the command.

    Raises:
        EvaluationError, ModelError: nothing can be evaluated.
    """
    data: Path = arguments.data
    if not data.exists():
        raise EvaluationError(f"{data}: no such folder; give the one that holds the recordings")
    noise = (arguments.noise_data or find_noise(data)) if arguments.noise else None
    ladders = rungs(noise, drop=arguments.drop, fs=arguments.fs)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        report = TASKS[arguments.task](Request(data, arguments.precision, ladders, arguments.drop, progress))
    facts = {"task": arguments.task, "precision": arguments.precision, "data": str(data)}
    try:
        _print(facts | plain(report) if arguments.json else tables(arguments.task, report))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at exit
        raise EvaluationError(f"the output cannot be written ({error.strerror}); make room or choose another place") from error
    return 0


def _print(result: Mapping[str, Any] | Iterable[Table]) -> None:
    """As one JSON object, or as tables."""
    if isinstance(result, Mapping):
        sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
    else:
        console = Console()
        for table in result:
            console.print(table)
    sys.stdout.flush()


def first_reason(report: Mapping[str, Any]) -> str:
    """Why the first record was left out, or what to give where there was none."""
    skipped = dict(report["skipped"])
    return next((f"{name}: {reason}" for name, reason in skipped.items()), "give a folder with PPG.csv beside RR.txt")


def model_bytes(name: str, precision: str) -> bytes:
    """A model's file: the released int8 one, or the float one that training left.

    Raises:
        ModelError: the released one is damaged.
        EvaluationError: there is no float model.
    """
    if precision == "int8":
        return read_release_file(f"{name}.onnx")
    path = RUNS / name / f"{name}.float.onnx"
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"the float model {path} is not there: run make train") from error


def plain(value: Any) -> Any:
    """For JSON: numpy's numbers as Python's, and null for what is not finite."""
    match value:
        case Mapping():
            return {str(key): plain(part) for key, part in value.items()}
        case list() | tuple():
            return [plain(part) for part in value]
        case np.ndarray():
            return plain(value.tolist())
        case np.generic():
            return plain(value.item())
        case float():
            return value if np.isfinite(value) else None
        case _:
            return value


def judge(precision: str) -> EcgQrs | None:
    """What the agent's detector asks in noise; None where the release has no such model, as in the agent.

    Raises:
        ModelError: the released one is damaged.
        EvaluationError: there is no float model.
    """
    if precision == "int8" and "ecg_qrs.onnx" not in open_release().files:
        return None
    return EcgQrs(model_bytes("ecg_qrs", precision))


def _qrs(request: Request) -> dict[str, Any]:
    detector = partial(detect, judge=judge(request.precision))
    return evaluate_qrs(request.data, request.progress, request.rungs, detector)


def _beats(request: Request) -> dict[str, Any]:
    models = Models(
        ecg_beat=EcgBeat(model_bytes("ecg_beat", request.precision)),
        ecg_rhythm=EcgRhythm(model_bytes("ecg_rhythm", request.precision)),
        ecg_qrs=judge(request.precision),
    )
    return evaluate_beats(request.data, beat_labeller(models), request.progress, request.rungs)


def _rhythm(request: Request) -> dict[str, Any]:
    model = EcgRhythm(model_bytes("ecg_rhythm", request.precision))
    return evaluate_rhythm(request.data, rhythm_classifier(model), request.progress, request.rungs)


def _rr_af(request: Request) -> dict[str, Any]:
    model = RrAf(model_bytes("rr_af", request.precision))
    report = evaluate_rr_af(request.data, model)
    if request.drop:
        report["drop"] = {f"{lost}": evaluate_rr_af(request.data, model, lost / 100) for lost in DROPPED_PERCENT}
    return report


def _pulse(request: Request) -> dict[str, Any]:
    # Without the released model every second counts as good, and that is told.
    model = None if request.precision == "int8" else PpgQuality(model_bytes("ppg_quality", request.precision))
    report = evaluate_pulse(request.data, model)
    if not report["records"]:
        raise EvaluationError(f"no PPG recording that can be judged below {request.data}: {first_reason(report)}")
    if request.drop:
        report["drop"] = {f"{lost}": evaluate_pulse(request.data, model, dropped(lost / 100)) for lost in DROPPED_PERCENT}
    return report


TASKS: Final[Mapping[str, Callable[[Request], dict[str, Any]]]] = {
    "qrs": _qrs,
    "beats": _beats,
    "rhythm": _rhythm,
    "rr-af": _rr_af,
    "pulse": _pulse,
}


def beat_labeller(models: Models) -> Labeller:
    """The beats and labels that the agent's analysis gives of a stream; without `ecg_beat` every beat is N."""

    def label(mv: NDArray[np.float64], rate_hz: float) -> Labelled:
        analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, models)
        beats = (*analysis.push(mv).beats, *analysis.finish().beats)
        return np.array([beat.t_s for beat in beats], np.float64), [beat.label for beat in beats]

    return label


def rhythm_classifier(model: EcgRhythm) -> Classifier:
    """The model's probabilities for a whole short recording, conditioned as in the agent."""
    return lambda mv, rate_hz: record_probabilities(model, condition(mv, rate_hz))

"""Cross-validation of `ecg_organised`: the monitor watches every record with the int8 network that did not learn from it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from config.limits import DEFAULT_LIMITS
from evaluation.alert_lines import AlertLine, trace_alerts
from evaluation.alert_noise import NoiseLevel, add_alert_noise, list_noise_levels
from evaluation.alert_scores import RecordScore, pool_scores, score_record
from evaluation.alert_truth import read_truth
from models.analysis import HOP_S
from models.findings import Finding
from models.inference.ecg_organised import EcgOrganised
from models.signal.chain import EcgChain
from models.signal.rhythm_window import CLASSES
from models.ventricular_monitor import VentricularMonitor
from training.organised_batches import Pool
from training.organised_data import OrganisedRecording, possible
from training.window_net import WindowNet

RHYTHMS: Final = ("cudb", "vfdb")
"""Databases whose dangerous rhythms are counted."""

HEALTHY: Final = "nsrdb-2h"

Samples = NDArray[np.float64]


def cross_validate(
    data: Path, recordings: Sequence[OrganisedRecording], runs: Path, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Return the card's figures of the monitor alone, without the rules on beats."""
    folds = {recording.patient: recording.fold for recording in recordings}
    scores: dict[str, RecordScore] = {}
    for database in RHYTHMS:
        for header in progress.track(sorted((data / database).glob("*.hea")), description=database):
            name = f"{database}/{header.stem}"
            scores[name] = _score(header, runs / f"fold{folds[name]}", None)
    outside = {database: _outside({n: s for n, s in scores.items() if n.startswith(database)}) for database in RHYTHMS}
    for level in (None, *list_noise_levels(data / "noise")):
        headers = progress.track(sorted((data / HEALTHY).glob("*.hea")), description=level.name if level else HEALTHY)
        healthy = {h.stem: _score(h, runs / f"fold{folds[f'{HEALTHY}/{h.stem}']}", level) for h in headers}
        outside[f"{HEALTHY}, {level.name}" if level else HEALTHY] = _outside(healthy)
    pooled = pool_scores(scores)["long"]
    return {
        "figures": {"episodes of 10 s and longer in cudb and vfdb": {kind: _row(found) for kind, found in pooled.items()}},
        "robustness": {"high alerts outside dangerous rhythms": outside},
        "per_record": {name: _row(pool_scores({name: score})["long"]["all"]) for name, score in scores.items()},
    }


def window_figures(pool: Pool, networks: Sequence[WindowNet]) -> dict[str, Any]:
    """Return, for windows of held-out patients whose rhythm is known, what the networks call them, in percent."""
    counts = np.zeros((len(CLASSES), len(CLASSES)))
    for fold, network in enumerate(networks):
        chosen = pool.folds == fold
        with torch.inference_mode():
            called = network(torch.from_numpy(pool.inputs[chosen].astype(np.float32))).numpy().argmax(-1)
        for label in range(len(CLASSES)):
            counts[label] += np.bincount(called[pool.sets[chosen] == possible(label)], minlength=len(CLASSES))
    known = [label for label in range(len(CLASSES)) if counts[label].any()]
    rows = {CLASSES[label]: _shares(counts[label]) for label in known}
    return {"subgroups": {"held-out windows, classified as, percent": rows}}


def _score(header: Path, models: Path, noise: NoiseLevel | None) -> RecordScore:
    recording = open_recording(header)
    rate_hz = recording.rate_hz
    mv = add_alert_noise(header, recording.mv, rate_hz, noise) if noise else recording.mv
    monitored = watch(EcgOrganised((models / "ecg_organised.onnx").read_bytes()), mv, rate_hz)
    lines = to_lines(monitored)
    duration_s = mv.size / rate_hz
    truth = read_truth(header.with_suffix(".atr"), rate_hz, duration_s, header.parent.name)
    return score_record(trace_alerts(lines, duration_s), truth, duration_s)


def watch(model: EcgOrganised, mv: Samples, rate_hz: float) -> Iterator[tuple[float, Finding]]:
    """Yield the findings of the monitor in a recording, each with the time at which it was decided."""
    hop = round(HOP_S * rate_hz)
    chain, monitor = EcgChain(rate_hz), VentricularMonitor(model, DEFAULT_LIMITS, rate_hz, hop)
    for start in range(0, mv.size - hop + 1, hop):
        part = mv[start : start + hop]
        chain.push(part)
        for finding in monitor.push(part, chain):
            yield chain.end_s, finding


def to_lines(monitored: Iterable[tuple[float, Finding]]) -> list[AlertLine]:
    """Return the messages of high alerts for findings, each with the time at which it was decided."""
    raised_s: dict[tuple[str, float], float] = {}
    lines = []
    for decided_s, finding in monitored:
        if finding.kind != "no_signal":
            first_s = raised_s.setdefault(finding.episode, decided_s)
            name, onset_s = f"{finding.kind} {finding.onset_s}", finding.onset_s
            lines.append(AlertLine(name, finding.kind, "high", onset_s, finding.end_s, decided_s, raised_s=first_s))
    return lines


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "episodes": found["episodes"],
        "found": found["found"],
        "found, 95 %": found["se_95"],
        "time covered, percent": found["covered"],
        "latency_s": found["latency_s"]["median"],
        "latency p95 in s": found["latency_s"]["p95"],
    }


def _outside(scores: dict[str, RecordScore]) -> dict[str, Any]:
    found = pool_scores(scores)["outside"]
    return {
        "hours": found["hours"],
        "alerts": found["high"],
        "an hour": found["high_per_hour"],
        "95 %": found["high_per_hour_95"],
    }


def _shares(counts: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(CLASSES, (100 * counts / counts.sum()).tolist(), strict=True))

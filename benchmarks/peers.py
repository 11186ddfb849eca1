"""Compares QRS detectors of other projects with ours: `make bench-peers`.

All run on the same records, with the same scorer, in one process on one thread. Speed is CPU time, which other work on the
machine does not affect; for each record, the fastest of three runs counts.
"""

import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from captures import Recording
from evaluation.detection import WINDOWS_S, gross_figures
from evaluation.ec57 import pair
from evaluation.matching import BeatCounts
from evaluation.records import annotated_headers, load_annotated
from models.inference.ecg_qrs import EcgQrs
from models.inference.release import RELEASE_DIR
from models.signal.beat_classifier import BeatClassifier
from models.signal.chain import EcgChain

Samples = NDArray[np.float64]
Detector = Callable[[Samples, float], NDArray[np.float64]]
"""Takes samples in mV and their rate; returns R peaks in seconds."""

RESULT: Final = Path("build") / "peers.json"

OURS: Final = "pulsegate, stream in 1 s hops"
WITHOUT_MODEL: Final = "the same without ecg_qrs"
WINDOWED: Final = "neurokit2, 10 s windows"
OVERLAPPING: Final = "neurokit2, 10 s windows every 8 s"
WINDOW_S: Final = 10.0

RUNS: Final = 3


def our_detector(classifier: BeatClassifier | None) -> Detector:
    """Returns the agent's chain, fed one second at a time; the agent runs it with a beat classifier."""

    def detector(mv: Samples, rate_hz: float) -> NDArray[np.float64]:
        chain, hop = EcgChain(rate_hz, classifier), round(rate_hz)
        beats = [beat for start in range(0, mv.size, hop) for beat in chain.push(mv[start : start + hop])]
        return np.array([beat.t_s for beat in (*beats, *chain.finish())])

    return detector


def _gqrs(mv: Samples, rate_hz: float) -> NDArray[np.float64]:
    processing = import_module("wfdb.processing")
    return np.asarray(processing.gqrs_detect(sig=mv, fs=rate_hz), np.float64) / rate_hz


def _xqrs(mv: Samples, rate_hz: float) -> NDArray[np.float64]:
    processing = import_module("wfdb.processing")
    return np.asarray(processing.xqrs_detect(sig=mv, fs=rate_hz, verbose=False), np.float64) / rate_hz


def _neurokit(mv: Samples, rate_hz: float) -> NDArray[np.float64]:
    neurokit = import_module("neurokit2")
    clean = neurokit.ecg_clean(mv, sampling_rate=int(rate_hz), method="neurokit")
    _, found = neurokit.ecg_peaks(clean, sampling_rate=int(rate_hz), method="neurokit")
    return np.asarray(found["ECG_R_Peaks"], np.float64) / rate_hz


def _windowed(step_s: float) -> Detector:
    """Returns neurokit2 on windows of 10 s, one every `step_s`; where windows overlap, their middle counts."""

    def detector(mv: Samples, rate_hz: float) -> NDArray[np.float64]:
        found: list[NDArray[np.float64]] = []
        for start in range(0, mv.size, round(step_s * rate_hz)):
            window = mv[start : start + round(WINDOW_S * rate_hz)]
            try:
                peaks = _neurokit(window, rate_hz)
            except (ValueError, IndexError, ZeroDivisionError):  # raised where it finds no peaks
                continue
            margin_s = (WINDOW_S - step_s) / 2
            last = start + window.size >= mv.size
            kept = (peaks >= margin_s if start else peaks >= 0) & ((peaks < WINDOW_S - margin_s) | last)
            found.append(start / rate_hz + peaks[kept])
        return np.unique(np.concatenate(found)) if found else np.empty(0)

    return detector


def _biosppy(mv: Samples, rate_hz: float) -> NDArray[np.float64]:
    """Runs the steps of `biosppy.signals.ecg.ecg`: band-pass, Hamilton's segmenter, peaks corrected within 50 ms."""
    ecg, tools = import_module("biosppy.signals.ecg"), import_module("biosppy.signals.tools")
    order = int(0.3 * rate_hz)
    filtered, _, _ = tools.filter_signal(
        signal=mv, ftype="FIR", band="bandpass", order=order, frequency=[3, 45], sampling_rate=rate_hz
    )
    (peaks,) = ecg.hamilton_segmenter(signal=filtered, sampling_rate=rate_hz)
    (peaks,) = ecg.correct_rpeaks(signal=filtered, rpeaks=peaks, sampling_rate=rate_hz, tol=0.05)
    return np.unique(np.asarray(peaks, np.float64)) / rate_hz


DETECTORS: Final[dict[str, Detector]] = {
    OURS: our_detector(EcgQrs((RELEASE_DIR / "ecg_qrs.onnx").read_bytes())),
    WITHOUT_MODEL: our_detector(None),
    "wfdb gqrs": _gqrs,
    "wfdb XQRS": _xqrs,
    "neurokit2, whole record": _neurokit,
    WINDOWED: _windowed(10.0),
    OVERLAPPING: _windowed(8.0),
    "biosppy hamilton + correct_rpeaks": _biosppy,
}


def measure(data: Path, progress: Progress) -> dict[str, Any]:
    """Returns accuracy and speed of each detector over all records: percentages 0–100, millions of samples per second."""
    records = [load_annotated(header) for _, header in annotated_headers(data)]
    counts: dict[str, list[dict[str, BeatCounts]]] = {name: [] for name in DETECTORS}
    seconds = dict.fromkeys(DETECTORS, 0.0)
    warm = records[0].recording
    for detector in DETECTORS.values():
        detector(warm.mv[: round(60 * warm.rate_hz)], warm.rate_hz)
    for record in progress.track(records, description="detectors"):
        for name, detector in DETECTORS.items():
            found, taken_s = _time_detector(detector, record.recording)
            seconds[name] += taken_s
            counts[name].append({window: pair(record.reference, found, width).counts for window, width in WINDOWS_S.items()})
    samples = sum(record.recording.mv.size for record in records)
    speed = {name: samples / 1e6 / taken_s for name, taken_s in seconds.items()}
    return {
        "records": len(records),
        "detectors": {name: gross_figures(counts[name]) | {"msamples_per_s": round(speed[name], 2)} for name in DETECTORS},
        "times_neurokit2_in_windows": round(speed[OURS] / speed[WINDOWED], 2),
        "times_neurokit2_in_overlapping_windows": round(speed[OURS] / speed[OVERLAPPING], 2),
    }


def _time_detector(detector: Detector, recording: Recording) -> tuple[NDArray[np.float64], float]:
    """Returns the R peaks and the CPU time in seconds."""
    found, taken_s = np.empty(0), []
    for _ in range(RUNS):
        gc.collect()  # garbage of the run before would cost the fastest detector a sixth of its time
        began = time.process_time()
        found = detector(recording.mv, recording.rate_hz)
        taken_s.append(time.process_time() - began)
    return np.sort(found), min(taken_s)


def main() -> None:
    """Prints the table and writes `build/peers.json`."""
    warnings.simplefilter("ignore")
    data = Path(os.environ.get("PULSEGATE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = measure(data, progress)
    columns = [(window, key) for window in WINDOWS_S for key in ("se", "ppv", "f1")]
    table = Table("detector", *(f"{window} {key}" for window, key in columns), "Msamples/s", title="QRS detection on mitdb")
    for name, row in result["detectors"].items():
        table.add_row(name, *(f"{row[window][key]:.2f}" for window, key in columns), f"{row['msamples_per_s']:.2f}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(
        f"Ours in 1 s hops is {result['times_neurokit2_in_windows']} times as fast as neurokit2 in 10 s windows, "
        f"{result['times_neurokit2_in_overlapping_windows']} times as fast as in windows that overlap by 2 s"
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

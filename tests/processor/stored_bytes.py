"""Runs the agent's pipeline on recordings and prints what it stores and finds, as one JSON object.

It is a separate program, because a process chooses its numeric kernels at its start: `python stored_bytes.py SECONDS FILE…`.
"""

import ctypes
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from captures import open_recording
from config.limits import DEFAULT_LIMITS
from drivers.registry import load_drivers
from gateway.models import load_models
from gateway.pipeline import Pipeline
from gateway.replay.sources import open_source
from gateway.waveform_analysis import Output
from models.analysis import EcgAnalysis
from sync.record_codec import encode_records
from sync.records import AlertRecord, FindingRecord, Record

BATCH_S = 60.0
"""Length of the beginning of the first file that is analysed twice: in chunks, and at once."""

STRAP_CHUNK_SAMPLES = 73
"""Samples in one notification of a chest strap."""


def blas_kernel() -> str:
    """Return the name of the kernel that numpy's OpenBLAS has chosen, such as "Haswell"."""
    (library,) = (Path(np.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas64_*.so*")
    get_name = ctypes.CDLL(str(library)).scipy_openblas_get_corename64_
    get_name.restype = ctypes.c_char_p
    return str(get_name().decode())


def run_pipeline(file: Path, seconds: float) -> Iterator[Output]:
    """Yield the output of the pipeline for each second of the beginning of a file."""
    source = open_source(file, load_drivers())
    pipeline = Pipeline(source.sensor, DEFAULT_LIMITS, load_models())
    for step in source.steps:
        if (step.arrival.wall_us - source.start_us) / 1e6 > seconds:
            return
        yield pipeline.feed(step.readings, step.arrival)


def describe_finding(record: Record) -> list[object] | None:
    """Return kind, times and priority of an alert, or kind, times and reason of a finding; None for other records."""
    match record:
        case AlertRecord():
            return [record.kind, record.onset_us, record.end_us, record.priority]
        case FindingRecord():
            return [record.kind, record.onset_us, record.end_us, record.inconclusive]
        case _:
            return None


def digest_analysis(mv: NDArray[np.float64], rate_hz: float, chunk: int) -> str:
    """Return a digest of every beat and finding when the samples come in chunks of this size."""
    analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, load_models())
    steps = [analysis.push(mv[start : start + chunk]) for start in range(0, mv.size, chunk)] + [analysis.finish()]
    beats = [beat for step in steps for beat in step.beats]
    findings = [finding for step in steps for finding in step.findings]
    return hashlib.sha256(repr((beats, findings)).encode()).hexdigest()


def main(seconds: float, files: list[Path]) -> None:
    digest, findings = hashlib.sha256(), []
    for file in files:
        for output in run_pipeline(file, seconds):
            digest.update(encode_records(list(output.records)))
            findings += [found for record in output.records if (found := describe_finding(record))]
    recording = open_recording(files[0])
    mv = recording.mv[: round(BATCH_S * recording.rate_hz)]
    result = {
        "kernel": blas_kernel(),
        "stored": digest.hexdigest(),
        "findings": findings,
        "streamed": digest_analysis(mv, recording.rate_hz, STRAP_CHUNK_SAMPLES),
        "batch": digest_analysis(mv, recording.rate_hz, mv.size),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main(float(sys.argv[1]), [Path(name) for name in sys.argv[2:]])

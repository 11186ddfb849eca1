"""Compares each signal of each WFDB record in a folder with the same signal as read by the `wfdb` package, in physical units.

Usage: python benchmarks/compare_wfdb.py FOLDER. Prints one line a record: equal, different, or which reader refuses it.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

from captures import ReadOptions, RecordingError
from captures.leads import millivolts_per_unit
from captures.recording import Recording, Samples
from captures.wfdb import read_wfdb
from captures.wfdb.segments import load_record

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb


def lay_out(recording: Recording, length: int) -> Samples:
    """The samples of a recording at their places in time, NaN in the gaps, cut or filled to a length."""
    values = np.full(length, np.nan)
    for chunk in recording.read_chunks():
        first = round(chunk.start_s * recording.rate_hz)
        part = chunk.values[: max(0, length - first)]
        values[first : first + part.size] = part
    return values


def read_ours(header: Path, number: int, unit: str, length: int) -> Samples:
    """One signal in the unit of its header."""
    known = millivolts_per_unit(unit)
    recording = read_wfdb(header, ReadOptions(signal=str(number), unit=None if known else "mV"))
    return lay_out(recording, length) / (known if known and recording.kind == "ecg" else 1.0)


def read_theirs(header: Path) -> tuple[list[str], list[Samples]]:
    """Names and samples of all signals."""
    with warnings.catch_warnings(action="ignore"):
        record = wfdb.rdrecord(str(header.with_suffix("")), smooth_frames=False)
    return record.sig_name, [np.asarray(values, np.float64) for values in record.e_p_signal]


def compare(header: Path) -> str:
    """One line on one record."""
    try:
        names, theirs = read_theirs(header)
    except Exception as error:  # noqa: BLE001 (wfdb raises whatever happens)
        theirs_error = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        try:
            recording = read_wfdb(header, ReadOptions())
        except RecordingError as ours:
            return f"refused by both ({theirs_error} | {ours})"
        return f"refused by wfdb alone ({theirs_error}); ours reads {recording.duration_s:.3f} s"
    different = []
    try:
        signals = load_record(header, None).signals.values()
        for at, (name, expected, signal) in enumerate(zip(names, theirs, signals, strict=True)):
            ours = read_ours(header, at + 1, signal.unit, expected.size)
            if not np.allclose(ours, expected, rtol=1e-9, atol=1e-12, equal_nan=True):
                count = int((~np.isclose(ours, expected, rtol=1e-9, atol=1e-12, equal_nan=True)).sum())
                different.append(f"{name or at} differs in {count} of {expected.size}")
    except RecordingError as error:
        return f"REFUSED BY OURS ALONE: {error}"
    return f"DIFFERENT: {'; '.join(different)}" if different else f"equal ({len(names)} signals)"


def main() -> int:
    """Compare all records of a folder. Returns 1 if a record that wfdb reads is not equal."""
    bad = 0
    headers = sorted(Path(sys.argv[1]).rglob("*.hea"))
    for header in headers:
        told = compare(header)
        bad += told[:1].isupper()
        print(f"{header.relative_to(sys.argv[1])}: {told}")
    print(f"{len(headers)} records, {bad} not equal")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

"""Recorded ECGs: WFDB records and CSV exports."""

from pathlib import Path

from captures.csv import read_csv
from captures.recording import LONGEST_S, Recording, RecordingError, Segment, UnknownKindError
from captures.wfdb import read_wfdb

__all__ = ["LONGEST_S", "Recording", "RecordingError", "Segment", "UnknownKindError", "open_recording"]


def open_recording(path: Path) -> Recording:
    """Read the first ECG channel of a WFDB record (its `.hea`, `.dat` or `.mat`) or of a CSV file (`.csv`, `.tsv`, also `.gz`).

    Raises:
        RecordingError: the file is missing, damaged or (`UnknownKindError`) of a kind that is not read; the message says what
            to do.
    """
    try:
        match [suffix.lower() for suffix in path.suffixes[-2:]]:
            case [*_, ".hea"]:
                return read_wfdb(path)
            case [*_, ".dat" | ".mat"]:
                return read_wfdb(path.with_suffix(".hea"))
            case [*_, ".csv" | ".tsv" | ".txt"] | [".csv" | ".tsv" | ".txt", ".gz"]:
                return read_csv(path)
            case _:
                raise UnknownKindError(
                    f"{path}: not a recording that can be read; give a WFDB header (.hea) or a CSV file (.csv, .tsv, .csv.gz)"
                )
    except FileNotFoundError as error:
        raise RecordingError(f"{error.filename}: no such file; check the path") from error
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror or error})") from error

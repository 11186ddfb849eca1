"""Readers of recordings: WFDB records, CSV exports, PPG with a reference, and captures of sensor payloads."""

from pathlib import Path

from captures.csv import read_csv
from captures.recording import LONGEST_S, Recording, RecordingError, Segment, UnknownKindError
from captures.wfdb import read_wfdb

__all__ = ["LONGEST_S", "Recording", "RecordingError", "Segment", "UnknownKindError", "open_recording"]


def open_recording(path: Path) -> Recording:
    """Reads the first ECG channel of a WFDB record (`.hea`, `.dat` or `.mat`) or of a CSV file (`.csv`, `.tsv`, also `.gz`).

    Raises:
        UnknownKindError: the file name is not that of a supported recording.
        RecordingError: the file is missing, damaged or not supported; the message says what to do.
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
                    f"{path}: not a supported recording; give a WFDB header (.hea) or a CSV file (.csv, .tsv, .csv.gz)"
                )
    except FileNotFoundError as error:
        raise RecordingError(f"{error.filename}: no such file; check the path") from error
    except MemoryError:
        raise RecordingError(f"{path}: needs more memory than this machine has; split the recording") from None
    except OSError as error:
        raise RecordingError(f"{path}: cannot read the file: {error.strerror or error}; check its permissions") from error

"""Reads recordings (WFDB, EDF, tables, exports of apps, RR intervals) and captures of the payloads of a sensor."""

from captures.opening import NO_OPTIONS, Opened, open_file, open_recording
from captures.payloads import PayloadCapture
from captures.recording import LONGEST_S, ReadOptions, Recording, RecordingError, RrRecording, Segment, UnknownKindError

__all__ = [
    "LONGEST_S",
    "NO_OPTIONS",
    "Opened",
    "PayloadCapture",
    "ReadOptions",
    "Recording",
    "RecordingError",
    "RrRecording",
    "Segment",
    "UnknownKindError",
    "open_file",
    "open_recording",
]

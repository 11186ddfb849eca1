"""From findings to alerts: which ones a person must see, how urgently, why, and the strip that shows it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from models.analysis import EcgAnalysis
from models.findings import Finding
from models.signal.chain import Beat
from models.signal.resample import RATE_HZ
from sync.records import AlertRecord, FindingRecord, Strip

PRIORITIES: Final[Mapping[str, str]] = {
    "pause": "high",
    "tachycardia": "medium",
    "bradycardia": "medium",
    "af": "medium",
}
"""IEC 60601-1-8:2020, table 1: high where harm may come at once, medium where it may come within minutes."""
STRIP_BEFORE_S: Final = 3.0
"""Normal beats before the onset, to compare with: three at 60/min."""
STRIP_LONGEST_S: Final = 12.0
"""An ECG page shows 10 s a row at 25 mm/s; two more tell how it went on."""
STRIP_SCALE: Final = 0.001
"""mV in one unit of a strip's samples: 1 microvolt, finer than any of our sensors."""

ToTime = Callable[[float], int]
"""Stream seconds to the hub's UTC time in microseconds."""


class AlertBook:
    """Turns the findings of one sensor into records; an episode keeps the id and the onset of its first alert."""

    def __init__(self, sensor: str) -> None:
        self._sensor = sensor
        self._open: dict[tuple[str, float], AlertRecord] = {}

    def ongoing(self) -> tuple[AlertRecord, ...]:
        """The alerts whose episodes have not ended, without their strips."""
        return tuple(self._open.values())

    def records(
        self, finding: Finding, to_time: ToTime, decided_us: int, analysis: EcgAnalysis, beats: tuple[Beat, ...]
    ) -> tuple[FindingRecord, AlertRecord]:
        """The finding for the record, and the alert for the clinician. `beats` are the latest, for the strip."""
        key = finding.kind, finding.onset_s
        onset_us = self._open[key].onset_us if key in self._open else to_time(finding.onset_s)
        end_us = None if finding.end_s is None else max(to_time(finding.end_s), onset_us)
        with_strip = end_us is None or finding.kind == "pause"
        stated = FindingRecord(
            self._sensor, finding.kind, onset_us, end_us, finding.source, finding.probability, None, finding.measured
        )
        alert = AlertRecord(
            id=hashlib.sha256(f"{self._sensor}|{finding.kind}|{onset_us}".encode()).hexdigest()[:24],
            sensor=self._sensor,
            kind=finding.kind,
            priority=PRIORITIES[finding.kind],
            onset_us=onset_us,
            end_us=end_us,
            decided_us=decided_us,
            source=finding.source,
            reasons=(f"{finding.kind}.criterion",),
            probability=finding.probability,
            measured=finding.measured,
            strip=strip(finding, to_time, analysis, beats) if with_strip else None,
        )
        if end_us is None:
            self._open[key] = replace(alert, strip=None)
        else:
            self._open.pop(key, None)
        return stated, alert


def strip(finding: Finding, to_time: ToTime, analysis: EcgAnalysis, beats: tuple[Beat, ...]) -> Strip | None:
    """The latest stretch of ECG behind a finding, at most 12 s; None where none is left."""
    until_s = analysis.chain.end_s
    from_s = max(finding.onset_s - STRIP_BEFORE_S, until_s - STRIP_LONGEST_S)
    start_s, mv = analysis.chain.strip(from_s, until_s)
    if not mv.size:
        return None
    samples = np.round(np.nan_to_num(mv) / STRIP_SCALE).astype(np.int32)
    shown = tuple(to_time(beat.t_s) for beat in beats if beat.t_s >= start_s)
    return Strip(to_time(start_s), RATE_HZ, STRIP_SCALE, samples, shown)

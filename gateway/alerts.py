"""The ids and reason keys of alerts."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from models.findings import Finding
from sync.records import AlertRecord, FindingRecord

RECURRING_REASON: Final = "recurring.episodes"
"""The reason key of an alert about several episodes; `measured` has their number and the longest of them."""
SIGNAL_LOST_REASON: Final = "latched.signal_lost"
"""The reason key of an alert that is open although its signal was lost: whether its episode goes on is not known."""
ORGANISED_REASON: Final = "ended.organised"
"""The reason key of such an alert that ended because the rhythm has been organised since."""
SENSOR_REMOVED_REASON: Final = "ended.sensor_removed"
"""The reason key of an alert that ended because its sensor is no longer in the settings under this name."""
SUBJECT_CHANGED_REASON: Final = "ended.subject_changed"
"""The reason key of an alert that ended because the hub now serves another subject."""
CLOSED_REASON: Final = "ended.closed_by_clinic"
"""The reason key of an alert that ended because the clinic closed it; `measured["command"]` is the number of the command."""
FALSE_REASON: Final = "ended.marked_false"
"""Likewise because the clinic marked it as false."""
LATE_REASON: Final = "late.received"
"""The reason key of an alert about a result that reached the hub long after it was measured."""
UNKNOWN_TIME_REASON: Final = "late.unknown_time"
"""The reason key of an alert about a stored result whose time is not known."""
UNCONFIRMED_REASON: Final = "person.unconfirmed"
"""The reason key of an alert about a result that may be another person's."""
ToUtcUs = Callable[[float], int]
"""Converts the seconds of a finding to the hub's UTC time in microseconds."""


def make_alert_id(sensor: str, kind: str, onset_us: int) -> str:
    """The id of an alert: the first 24 hex digits of the SHA-256 of its sensor, kind and onset.

    All records of one episode have the same id, also after a restart. Ids are stored and sent, so this must not change.
    """
    return hashlib.sha256(f"{sensor}|{kind}|{onset_us}".encode()).hexdigest()[:24]


def make_finding_record(sensor: str, finding: Finding, onset_us: int, end_us: int | None) -> FindingRecord:
    """The record of a finding in the hub's time."""
    times = (onset_us, end_us, finding.source)
    return FindingRecord(sensor, finding.kind, *times, finding.probability, finding.inconclusive, finding.measured)


def make_alert(record: FindingRecord, priority: str, decided_us: int, reasons: tuple[str, ...]) -> AlertRecord:
    """The alert about the episode of a finding, without a strip. `reasons` come after the kind's criterion."""
    return AlertRecord(
        id=make_alert_id(record.sensor, record.kind, record.onset_us),
        sensor=record.sensor,
        kind=record.kind,
        priority=priority,
        onset_us=record.onset_us,
        end_us=record.end_us,
        decided_us=decided_us,
        source=record.source,
        reasons=(f"{record.kind}.criterion", *reasons),
        probability=record.probability,
        measured=record.measured,
        raised_us=decided_us,
    )


def find_stream_end(saved: Mapping[str, Any], now_us: int) -> int:
    """The last ECG sample in a pipeline's saved state; `now_us` if there is none."""
    ecg = saved.get("waveforms", {}).get("ecg")
    return int(ecg["at_us"]) if ecg else now_us


def end_saved_alerts(
    saved: Mapping[str, Any], now_us: int, reason: str | None = None, *, without: Collection[str] = ()
) -> tuple[AlertRecord, ...]:
    """The end of each alert that a pipeline's saved state holds as open: at its last ECG sample, otherwise at `now_us`.

    `reason` is an additional reason key: why the alerts end. `without` are ids of alerts that do not end.
    """
    end_us = find_stream_end(saved, now_us)
    added = (reason,) if reason else ()
    return tuple(
        replace(AlertRecord(**alert), reasons=(*alert["reasons"], *added), end_us=max(alert["onset_us"], end_us))
        for alert in saved.get("alerts", ())
        if alert["id"] not in without
    )

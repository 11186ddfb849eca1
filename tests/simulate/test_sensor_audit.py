"""The audit of sensors under faults: each kind of loss, repetition and wrong time is counted, and fails."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.soak import MAX_DOUBTFUL_SHARE, MAX_GROWTH_MB, find_failures
from gateway.simulate.sensor_audit import SensorAudit, SensorJournal, SentReading, SentResult, audit_sensor
from sync.records import GapRecord, Record, SpotOrigin, Times, VitalRecord

S = 1_000_000
UUIDS = {"heart_rate": "00002A37-0000-1000-8000-00805f9b34fb"}
RESULT = SentResult(group=7, measured_us=100 * S, is_sent=True, is_received=True, is_excused=False)


def value(at_us: int) -> VitalRecord:
    return VitalRecord("strap", "heart_rate", Times(at_us, at_us, 0), 60.0)


def result(at_us: int, source: str = "measured", kind: str = "weight") -> VitalRecord:
    return VitalRecord("scale", kind, Times(at_us, 100 * S, 0), 80.0, (), SpotOrigin(7, source, is_stored=False))


def audit_values(sent_us: Sequence[int], records: Sequence[Record]) -> SensorAudit:
    journal = SensorJournal(values={"heart_rate": [SentReading(at_us, b"") for at_us in sent_us]})
    return audit_sensor(journal, records, UUIDS)


def audit_result(sent: SentResult, *records: Record) -> SensorAudit:
    return audit_sensor(SensorJournal(results=[sent]), records, UUIDS)


def test_values_are_stored_once_or_in_a_gap() -> None:
    sent_us = [S, 2 * S, 3 * S, 4 * S]
    stored = [value(S - 1), value(2 * S + 1), value(4 * S)]  # times are rounded
    audit = audit_values(sent_us, stored)
    assert (audit.stored, audit.unexplained, audit.stored_twice, audit.passed) == (3, 1, 0, False)
    gap = GapRecord("strap", "heart_rate", 2 * S, 4 * S, None, "the link was lost")
    assert audit_values(sent_us, [*stored, gap]).passed
    twice = audit_values(sent_us, [*stored, gap, value(4 * S)])
    assert (twice.stored_twice, twice.passed) == (1, False)


def test_a_result_is_stored_or_excused() -> None:
    assert audit_result(RESULT, result(100 * S), result(100 * S, kind="body_fat")).passed
    assert audit_result(RESULT).unexplained == 1
    kept = replace(RESULT, is_received=False, is_excused=True)
    assert (audit_result(kept).pending, audit_result(kept).passed) == (1, True)
    lost = audit_result(replace(kept, is_excused=False))  # its sensor has it no more, and no hub got it
    assert (lost.pending, lost.unexplained, lost.passed) == (0, 1, False)
    twice = audit_result(RESULT, result(100 * S), result(100 * S))
    assert (twice.stored_twice, twice.passed) == (1, False)


@pytest.mark.parametrize("source", ["unconfirmed", "arrival", "measured", "corrected"])
@pytest.mark.parametrize("error_s", [120, -121])
def test_a_wrong_time_must_be_marked_as_doubtful(source: str, error_s: int) -> None:
    audit = audit_result(RESULT, result((100 + error_s) * S, source))
    is_wrong, is_marked = error_s < -120, source in {"unconfirmed", "arrival"}
    assert (audit.results, audit.doubtful, audit.doubtful_times) == (1, is_marked, is_wrong and is_marked)
    assert audit.late_times == (is_wrong and not is_marked)
    assert audit.passed == (is_marked or not is_wrong)


def test_a_run_fails_with_kept_results_tasks_growth_or_many_doubtful_times() -> None:
    part = {"process": "1", "is_worn": True, "mb": 100.0, "kept": 0, "tasks_left": []}
    grown, other = part | {"mb": 100.1 + MAX_GROWTH_MB}, part | {"process": "2", "mb": 300.0}
    results = 1000
    allowed = SensorAudit(results=results, doubtful_times=int(results * MAX_DOUBTFUL_SHARE))
    assert find_failures([part | {"is_worn": False, "mb": 50.0}, part, part, other], allowed) == []
    assert find_failures([part, grown], allowed) == ["the process grew"]
    assert find_failures([part | {"kept": 1}], allowed) == ["a sensor still keeps a result"]
    assert find_failures([part | {"tasks_left": ["agent"]}], allowed) == ["a task was left"]
    assert len(find_failures([part], replace(allowed, doubtful_times=allowed.doubtful_times + 1))) == 1
    assert len(find_failures([part], SensorAudit(unexplained=1))) == 1

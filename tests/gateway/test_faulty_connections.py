"""The agent and emulated sensors under each fault: all that was sent while connected is stored once or lies in a gap record.

The audit compares the sensors' journals with the clinic's store, and checks the times; see `gateway.simulate.sensor_audit`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.sensor_testbed import START_US, Plan, Report, SensorTestbed
from gateway import virtual_time
from gateway.simulate.scenario import KINDS, Fault
from sync.records import VitalRecord, WaveformRecord

SECONDS = 200.0
STREAMS = ("strap", "heart-rate")
USES = (5.0, 80.0, 130.0)
FAULT_S = 80.15
"""Shortly after the second use: the spot devices have just connected, and the streams have run for more than a minute."""
LAST_S = 25.0
"""So long before the end, the spot devices are used for the last time: every sensor has recovered, and delivers again."""
FLOODED_S = 250.0
"""A sensor that floods the hub is disconnected and left alone for up to 90 s."""
FLOOD = bytes(20)
"""What a flooding sensor sends."""
MAX_TASKS = 140

SENSORS: Mapping[str, Sequence[str]] = {
    "loss": ("strap", "heart-rate", "cuff", "oximeter", "scale", "watch"),
    "away": ("strap", "heart-rate", "cuff", "oximeter", "scale-broadcast", "watch"),
    "zombie": ("strap", "heart-rate", "cuff", "oximeter", "scale", "watch"),
    "forget_bond": ("cuff", "cuff-and", "cuff-medisana", "scale", "thermometer"),
    "indicate_then_drop": ("cuff", "cuff-and", "cuff-medisana", "oximeter", "scale", "thermometer"),
    "clock_wrong": ("strap", "cuff", "cuff-and", "oximeter", "scale", "scale-broadcast", "thermometer"),
    "clock_jump": ("strap", "cuff", "cuff-and", "oximeter", "scale", "thermometer"),
    "skip_frame": ("strap",),
    "late_burst": ("strap",),
    "nan_bp": ("cuff", "cuff-and", "cuff-medisana"),
    "flood": ("heart-rate", "oximeter", "watch", "cuff"),
    "adapter_gone": ("strap", "heart-rate", "cuff", "oximeter", "scale", "scale-broadcast", "watch"),
}


def run(folder: Path, faults: Sequence[Fault], sensors: Sequence[str], seconds: float) -> Report:
    uses = {name: (*USES, seconds - LAST_S) for name in sensors if name not in STREAMS}
    plan = Plan(seconds, {name: name for name in sensors}, faults, uses)
    return virtual_time.run(SensorTestbed(folder, plan).run())


def count_meant(report: Report, name: str) -> tuple[int, int]:
    """How many values and results a sensor sent beside a flood, and how many of them are stored."""
    arrived_us = {
        record.times.arrived_us + offset_us
        for record in report.records
        if isinstance(record, VitalRecord) and record.sensor == name
        for offset_us in range(-2, 3)  # rounding
    }
    journal, audit = report.journals[name], report.audits[name]
    sent_us = [value.sent_us for values in journal.values.values() for value in values if value.payload != FLOOD]
    results = sum(result.is_sent for result in journal.results)
    return len(sent_us) + results, audit.results + sum(at_us in arrived_us for at_us in sent_us)


def last_arrival_s(report: Report, name: str) -> float:
    """When the last sample, value or result of a sensor arrived, in seconds from the start."""
    measured = (each for each in report.records if isinstance(each, VitalRecord | WaveformRecord) and each.sensor == name)
    return (max(each.times.arrived_us for each in measured) - START_US) / 1e6


def test_every_fault_of_the_scenario_language_is_tested() -> None:
    assert SENSORS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_sent_is_stored_once_or_in_a_gap(kind: str, tmp_path: Path) -> None:
    amount = 4.0 if kind == "late_burst" else None  # after 5 s without a frame, the hub takes the strap for dead
    names = [""] if kind == "adapter_gone" else SENSORS[kind]
    seconds = FLOODED_S if kind == "flood" else SECONDS
    report = run(tmp_path, [Fault(FAULT_S, kind, name, amount) for name in names], SENSORS[kind], seconds)
    for name, audit in report.audits.items():
        assert audit.passed, (name, audit)
        assert audit.sent, name
        assert audit.stored + audit.in_gaps >= audit.sent, (name, audit)
        sent, stored = count_meant(report, name) if kind == "flood" else (audit.sent, audit.stored)
        assert stored > sent / 2, (name, audit)
        assert last_arrival_s(report, name) >= seconds - LAST_S, name
    assert report.tasks_left == []
    assert report.max_tasks <= MAX_TASKS

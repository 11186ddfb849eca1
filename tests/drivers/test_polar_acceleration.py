"""Polar Measurement Data: the acceleration that is started beside an ECG, with a scripted sensor."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Conversation, Expect, RefusedError, Remember, Run
from drivers.polar_pmd import RESTARTS_WITHOUT_DATA, SILENT_AFTER_S
from drivers.readings import Reading, Status
from tests.drivers.scripted_polar import (
    ACC_FRAME,
    ECG_FRAME,
    START_ECG,
    ScriptedSensor,
    indicate,
    notify,
    perform,
    procedures,
    started,
    waves,
)

H10_SETTINGS: Final = "F0010200000004190032006400C800010110000203020004000800"
"""An H10's answer about its acceleration: 25, 50, 100 and 200 Hz, 16 bits, 2, 4 and 8 g (Polar Measurement Data Specification,
and the same bytes of a sensor in a public project)."""
START_ACC: Final = "02 02 00 01 19 00 01 01 10 00 02 01 04 00"
"""The lowest rate, 25 Hz, and a range of 4 g. All settings that the sensor offers are named (polar-ble-sdk issues/124)."""
ACC_REFUSED: Final[dict[str, list[str] | None]] = {"02 02": ["F0020203"]}


def make_h10(**answers: list[str] | None) -> ScriptedSensor:
    """An H10; `answers` are those of requests named like `a02_02`, beside the usual ones."""
    scripted = {name[1:].replace("_", " "): values for name, values in answers.items()}
    return ScriptedSensor(answers={"01 02": [H10_SETTINGS], "02 02": ["F00202000001"], **scripted})


def streaming(sensor: ScriptedSensor) -> tuple[Conversation, list[Reading | Remember]]:
    """A conversation whose ECG has come, and what the start of the acceleration yielded."""
    conversation, _ = started(sensor)
    (procedure,) = procedures(notify(conversation, ECG_FRAME))
    sensor.requests.clear()
    return conversation, perform(conversation, procedure, sensor)


def test_it_is_started_at_25_hz_after_the_first_frame_of_the_ecg() -> None:
    sensor = make_h10()
    conversation, _ = started(sensor)
    assert sensor.requests == ["03 00", "01 00", START_ECG]
    (procedure,) = procedures(notify(conversation, ECG_FRAME))
    sensor.requests.clear()
    assert perform(conversation, procedure, sensor) == []
    assert sensor.requests == ["03 02", "01 02", START_ACC]
    assert not procedures(notify(conversation, ECG_FRAME))
    found = waves(notify(conversation, ACC_FRAME))
    assert [(wave.kind, wave.samples, wave.rate_hz, wave.scale) for wave in found] == [
        ("acc_x", (-9,), 25.0, 1.0),
        ("acc_y", (-1,), 25.0, 1.0),
        ("acc_z", (999,), 25.0, 1.0),
    ], "AccDataTest.kt, raw type 1, in mg"


@pytest.mark.parametrize("features", [None, "0F01" + 15 * "00", ""])
def test_a_sensor_that_does_not_offer_it_is_not_asked(features: str | None) -> None:
    answers: dict[str, list[str] | None] = {"01 01": ["F0010103"], "02 03": ["F0020303"]}
    sensor = ScriptedSensor(features, answers)
    conversation, _ = started(sensor)
    assert not procedures(notify(conversation, ECG_FRAME))


def test_it_is_not_started_beside_a_ppg() -> None:
    """The sensor is on an arm, whose motion is not that of the body."""
    sensor = ScriptedSensor("0F06", {"01 01": ["F00101000000013700"]})
    conversation, _ = started(sensor)
    assert not procedures(notify(conversation, bytes.fromhex("01009435770000000000" + "0102030405060708090A0B0C")))


@pytest.mark.parametrize(
    "answers",
    [
        {"a02_02": ["F0020203"]},
        {"a02_02": None},
        {"a01_02": ["F0010201"]},
        {"a01_02": None},
        {"a03_02": None},
        {"a01_02": ["F00102000000FFFFFF"], "a02_02": ["F0020205"]},
    ],
)
def test_a_refusal_costs_the_ecg_nothing(answers: dict[str, list[str] | None]) -> None:
    conversation, yielded = streaming(make_h10(**answers))
    assert [reading.kind for reading in yielded if isinstance(reading, Status)] == ["stream_trouble"]
    assert waves(notify(conversation, ECG_FRAME))
    assert not procedures(notify(conversation, ECG_FRAME)), "it is not asked for again"


def test_one_that_already_runs_is_used_as_it_is_and_nobody_is_asked_for_a_battery() -> None:
    sensor = make_h10(a02_02=["F0020206"])
    for _ in range(2):
        conversation, yielded = streaming(sensor)
        assert yielded == []
        assert waves(notify(conversation, ACC_FRAME))


def test_it_is_stopped_at_the_end() -> None:
    """The H10 stays on until the battery is empty if one stream is left: KnownIssues.md."""
    sensor = make_h10()
    conversation, _ = streaming(sensor)
    sensor.requests.clear()
    perform(conversation, conversation.stop(), sensor)
    assert sensor.requests == ["03 00", "03 02"]


class TestStoppedByTheSensor:
    def test_it_is_restarted_and_its_refusal_costs_nothing(self) -> None:
        sensor = make_h10()
        conversation, _ = streaming(sensor)
        (procedure,) = procedures(indicate(conversation, bytes.fromhex("0102")))
        sensor.requests.clear()
        sensor.answers |= ACC_REFUSED
        (trouble,) = perform(conversation, procedure, sensor)
        assert sensor.requests == ["03 02", "01 02", START_ACC]
        assert isinstance(trouble, Status)

    def test_the_ecg_is_restarted_first(self) -> None:
        sensor = make_h10()
        conversation, _ = streaming(sensor)
        sensor.requests.clear()
        for procedure in procedures(indicate(conversation, bytes.fromhex("010200"))):
            perform(conversation, procedure, sensor)
        assert [request[:5] for request in sensor.requests] == ["03 00", "01 00", "02 00", "03 02", "01 02", "02 02"]

    def test_an_ecg_that_is_not_restarted_ends_the_connection_although_it_goes_on(self) -> None:
        sensor = make_h10()
        conversation, _ = streaming(sensor)
        list(notify(conversation, ACC_FRAME))
        for _ in range(RESTARTS_WITHOUT_DATA):
            (procedure,) = procedures(indicate(conversation, bytes.fromhex("0100")))
            perform(conversation, procedure, sensor)
        assert sensor.expected["ECG"] == SILENT_AFTER_S
        effects = list(indicate(conversation, bytes.fromhex("0100")))
        assert not procedures(effects)
        assert not [effect for effect in effects if isinstance(effect, Expect)], "the deadline of the last restart stays"

    def test_an_ecg_whose_restart_is_refused_fails_the_set_up_although_it_goes_on(self) -> None:
        sensor = make_h10()
        conversation, _ = streaming(sensor)
        (procedure,) = procedures(indicate(conversation, bytes.fromhex("0100")))
        sensor.answers["02 00"] = ["F002000D"]
        with pytest.raises(RefusedError, match="in its charger"):
            perform(conversation, procedure, sensor)


class TestSilentEcg:
    """An ECG that was found running and sends nothing must end the connection, although another stream shows a live link."""

    def test_it_has_a_deadline_from_the_first_frame_of_an_acceleration_on(self) -> None:
        sensor = make_h10(a02_00=["F002000600"])
        conversation, _ = started(sensor)
        assert sensor.expected == {}
        assert Expect("ECG", SILENT_AFTER_S) in list(notify(conversation, ACC_FRAME))
        assert not [effect for effect in notify(conversation, ACC_FRAME) if isinstance(effect, Expect)]

    def test_it_has_one_at_once_where_an_acceleration_came_before(self) -> None:
        sensor = make_h10()
        conversation, _ = streaming(sensor)
        list(notify(conversation, ACC_FRAME))
        (procedure,) = procedures(indicate(conversation, bytes.fromhex("0100")))
        sensor.answers["02 00"] = ["F002000600"]
        sensor.expected.clear()
        perform(conversation, procedure, sensor)
        assert sensor.expected == {"ECG": SILENT_AFTER_S}


@given(answers=st.lists(st.binary(max_size=24), max_size=12))
def test_random_answers_write_nothing_but_stop_settings_and_start(answers: list[bytes]) -> None:
    supply = iter(answers)

    class RandomSensor(ScriptedSensor):
        def answer(self, request: bytes) -> list[bytes] | None:
            self.requests.append(request.hex())
            drawn = next(supply, None)
            return None if drawn is None else [bytes((0xF0, *request[:2])) + drawn]

    conversation, _ = started(ScriptedSensor())
    effects = list(notify(conversation, ECG_FRAME))
    sensor = RandomSensor()
    perform(conversation, next(effect.procedure for effect in effects if isinstance(effect, Run)), sensor)
    assert {request[:4] for request in sensor.requests} <= {"0302", "0102", "0202"}

"""Polar Measurement Data: dialogues with a scripted sensor."""

import contextlib
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, Expect, RefusedError, Remember
from drivers.decoding import ServiceDecoder
from drivers.device import DeviceInformation
from drivers.polar_pmd import CONTROL_POINT, DATA, DRIVER, RESTARTS_WITHOUT_DATA, SILENT_AFTER_S
from drivers.readings import DecodeError, Status
from tests.drivers.scripted_polar import (
    ACC_FRAME,
    ECG_FRAME,
    H10_FEATURES,
    NOW,
    PPI_FRAME,
    START_ECG,
    VERITY_FEATURES,
    ScriptedSensor,
    indicate,
    notify,
    open_conversation,
    perform,
    procedures,
    started,
    waves,
)


class TestStart:
    def test_reads_the_features_then_stops_asks_and_starts_the_ecg_alone(self) -> None:
        sensor = ScriptedSensor()
        _, yielded = started(sensor)
        assert sensor.requests == ["03 00", "01 00", START_ECG]
        assert yielded == []

    def test_starts_ppg_and_ppi_of_an_optical_sensor_and_never_sdk_mode(self) -> None:
        sensor = ScriptedSensor(VERITY_FEATURES, {"01 01": ["F001010000 000137000101160004010 4".replace(" ", "")]})
        started(sensor)
        assert sensor.requests == ["03 01", "01 01", "02 01 00 01 37 00 01 01 16 00 04 01 04", "03 03", "02 03"]

    @pytest.mark.parametrize("features", [None, "", "F0", "FF05"])
    def test_asks_for_each_measurement_where_the_features_cannot_be_read(self, features: str | None) -> None:
        sensor = ScriptedSensor(features, {"01 01": ["F0010103"], "02 03": ["F00203 03"]})
        _, yielded = started(sensor)
        assert [request[:5] for request in sensor.requests] == ["03 00", "01 00", "02 00", "03 01", "01 01", "03 03", "02 03"]
        assert [getattr(reading, "kind", None) for reading in yielded] == ["stream_trouble"] * 2

    @pytest.mark.parametrize("answer", ["F0030006", "F003000600", "F003000000", "F00300FF"])
    def test_any_answer_to_the_first_stop_is_tolerated(self, answer: str) -> None:
        sensor = ScriptedSensor(answers={"03 00": [answer]})
        started(sensor)
        assert sensor.requests[-1] == START_ECG

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            ("01", "does not know this request"),
            ("03", "does not support this measurement"),
            ("08", "does not offer this sample rate"),
            ("0A", "MTU is too small for a frame: 232 bytes are needed"),
            ("0C", "cannot do so in its present state"),
            ("0D", "in its charger"),
            ("0E", "memory is full"),
            ("0F", "does not publish the meaning of this code"),
            ("FF", "does not publish the meaning of this code"),
        ],
    )
    def test_refusal_names_the_measurement_and_the_reason(self, status: str, reason: str) -> None:
        sensor = ScriptedSensor(answers={"02": [f"F00200{status}00"]})
        with pytest.raises(
            RefusedError, match=rf"^the sensor refuses to start its ECG: .*{reason}.* \(status {int(status, 16)}\)$"
        ):
            started(sensor)

    @pytest.mark.parametrize("answer", [["F0010001"], ["F001000C00"]])
    def test_refusal_of_the_settings_is_named(self, answer: list[str]) -> None:
        with pytest.raises(RefusedError, match=r"^the sensor does not tell the settings of its ECG: "):
            started(ScriptedSensor(answers={"01": answer}))

    def test_a_refused_measurement_costs_the_others_nothing(self) -> None:
        sensor = ScriptedSensor("0F03", {"02 01": ["F00201 0A"], "01 01": ["F00101000000013700"]})
        conversation, yielded = started(sensor)
        (trouble,) = yielded
        assert isinstance(trouble, Status)
        assert "PPG: the connection's MTU is too small" in str(trouble.value)
        assert perform(conversation, conversation.stop(), sensor) == []
        assert sensor.requests[-1] == "03 00"

    def test_a_measurement_without_an_answer_costs_the_others_nothing(self) -> None:
        sensor = ScriptedSensor("0F03", {"01 01": None})
        _, yielded = started(sensor)
        assert yielded == [Status("stream_trouble", "the sensor did not answer")]

    def test_a_ppg_that_is_too_slow_for_the_analysis_is_not_started(self) -> None:
        """Polar360.md: 22 Hz outside SDK mode."""
        sensor = ScriptedSensor("0F02", {"01 01": ["F0010100000001160001011800040102"]})
        with pytest.raises(RefusedError, match="PPG below the 25 Hz that the analysis needs"):
            started(sensor)
        assert sensor.requests == ["03 01", "01 01"]

    def test_intervals_are_not_started_alone(self) -> None:
        """Their first frame comes after some 25 s, and the data characteristic counts as silent after 5."""
        with pytest.raises(RefusedError, match="PPI is not started alone"):
            started(ScriptedSensor("0F08"))

    def test_a_sensor_that_offers_nothing_of_use_is_refused(self) -> None:
        with pytest.raises(RefusedError, match="offers none of"):
            started(ScriptedSensor("0F04"))

    @pytest.mark.parametrize(
        "other",
        [
            "F00102000000FFFFFF",  # settings of the accelerometer: BlePmdClientControlPointResponseTest.kt
            "F001060700",  # a failure for the magnetometer, same source
            "F003000000",  # the response to a stop
            "F002",
            "F00200",
            "",
            H10_FEATURES,
        ],
    )
    def test_waits_on_while_a_value_does_not_answer_the_request(self, other: str) -> None:
        sensor = ScriptedSensor(answers={"02 00": [other, "F002000000"]})
        started(sensor)
        assert sensor.requests[-1] == START_ECG

    def test_an_answer_names_the_measurement_in_its_low_six_bits(self) -> None:
        """`PmdMeasurementType.fromId`: 0x3F."""
        sensor = ScriptedSensor(answers={"02 00": ["F002800000"]})
        _, yielded = started(sensor)
        assert yielded == []

    def test_an_answer_that_comes_after_the_start_is_described(self) -> None:
        conversation, _ = started(ScriptedSensor())
        assert Status("control_status", "success") in list(indicate(conversation, bytes.fromhex("F002000000")))

    def test_what_follows_the_status_of_a_refusal_is_not_described(self) -> None:
        described = list(indicate(open_conversation(), bytes.fromhex("F00200 08 01 FF")))
        assert Status("control_more", False) in described
        assert "control_parameters" not in {getattr(reading, "kind", "") for reading in described}


class TestAlreadyRunning:
    ADOPTED: Final[dict[str, list[str] | None]] = {"02 00": ["F002000600"]}

    def test_it_is_adopted_after_a_stop_was_tried(self) -> None:
        sensor = ScriptedSensor(answers=self.ADOPTED)
        conversation, yielded = started(sensor)
        assert sensor.requests == ["03 00", "01 00", START_ECG]
        assert yielded == [Remember({"adopted": [0]})]
        assert Remember({"adopted": []}) in list(notify(conversation, ECG_FRAME))
        assert Remember({"adopted": []}) not in list(notify(conversation, ECG_FRAME))

    def test_a_frame_before_the_answer_does_not_prove_that_it_sends(self) -> None:
        conversation = open_conversation()
        list(notify(conversation, ECG_FRAME))
        perform(conversation, conversation.start(NOW), ScriptedSensor(answers=self.ADOPTED))
        assert Remember({"adopted": []}) in list(notify(conversation, ECG_FRAME))

    def test_the_patient_is_asked_for_the_battery_once_it_sent_nothing(self) -> None:
        _, yielded = started(ScriptedSensor(answers=self.ADOPTED), memory={"adopted": [0]})
        trouble = [reading for reading in yielded if isinstance(reading, Status)]
        assert [reading.kind for reading in trouble] == ["stream_trouble"]
        assert "take the sensor's battery out" in str(trouble[0].value)

    def test_a_start_that_succeeds_forgets_it(self) -> None:
        _, yielded = started(ScriptedSensor(), memory={"adopted": [0]})
        assert yielded == [Remember({"adopted": []})]

    def test_it_is_stopped_at_the_end_like_any_other(self) -> None:
        sensor = ScriptedSensor(answers=self.ADOPTED)
        conversation, _ = started(sensor)
        perform(conversation, conversation.stop(), sensor)
        assert sensor.requests[-1] == "03 00"


class TestStoppedByTheSensor:
    def test_what_it_stops_is_restarted(self) -> None:
        sensor = ScriptedSensor()
        conversation, _ = started(sensor)
        list(notify(conversation, ECG_FRAME))
        effects = list(indicate(conversation, bytes.fromhex("0100")))
        assert effects[0] == Status("stream_stopped", "ECG")
        (procedure,) = procedures(effects)
        sensor.requests.clear()
        perform(conversation, procedure, sensor)
        assert sensor.requests == ["03 00", "01 00", START_ECG]

    def test_it_is_restarted_while_another_request_waits(self) -> None:
        conversation, _ = started(ScriptedSensor())
        stopping = conversation.stop()
        next(stopping)
        assert procedures(indicate(conversation, bytes.fromhex("0100")))

    def test_only_what_runs_here_is_restarted(self) -> None:
        sensor = ScriptedSensor()
        conversation, _ = started(sensor)
        (procedure,) = procedures(indicate(conversation, bytes.fromhex("01020001")))
        sensor.requests.clear()
        perform(conversation, procedure, sensor)
        assert [request[:5] for request in sensor.requests] == ["03 00", "01 00", "02 00"]

    def test_a_report_that_concerns_nothing_here_is_kept_raw(self) -> None:
        conversation, _ = started(ScriptedSensor())
        with pytest.raises(DecodeError, match="do not run: PPG, ACC"):
            list(indicate(conversation, bytes.fromhex("010102")))

    def test_a_second_report_before_the_restart_adds_no_procedure(self) -> None:
        conversation, _ = started(ScriptedSensor())
        assert procedures(indicate(conversation, bytes.fromhex("0100")))
        with pytest.raises(DecodeError):
            list(indicate(conversation, bytes.fromhex("0100")))

    def test_a_restart_that_is_refused_costs_the_others_nothing(self) -> None:
        sensor = ScriptedSensor("0F03", {"01 01": ["F00101000000013700"]})
        conversation, _ = started(sensor)
        (procedure,) = procedures(indicate(conversation, bytes.fromhex("0101")))
        sensor.answers["02 01"] = ["F002010D"]
        (trouble,) = perform(conversation, procedure, sensor)
        assert isinstance(trouble, Status)
        assert "in its charger" in str(trouble.value)

    def test_it_gives_up_where_every_restart_is_stopped_before_a_frame(self) -> None:
        sensor = ScriptedSensor()
        conversation, _ = started(sensor)
        for _ in range(RESTARTS_WITHOUT_DATA):
            (procedure,) = procedures(indicate(conversation, bytes.fromhex("0100")))
            perform(conversation, procedure, sensor)
        assert procedures(indicate(conversation, bytes.fromhex("0100"))) == []

    def test_a_frame_makes_the_restarts_count_from_zero(self) -> None:
        sensor = ScriptedSensor()
        conversation, _ = started(sensor)
        for _ in range(RESTARTS_WITHOUT_DATA + 2):
            list(notify(conversation, ECG_FRAME))
            (procedure,) = procedures(indicate(conversation, bytes.fromhex("0100")))
            perform(conversation, procedure, sensor)


class TestStop:
    def test_every_measurement_is_stopped_also_where_one_stop_fails(self) -> None:
        sensor = ScriptedSensor(VERITY_FEATURES, {"01 01": ["F00101000000013700"]})
        conversation, _ = started(sensor)
        sensor.requests.clear()
        sensor.answers |= {"03 01": None}
        perform(conversation, conversation.stop(), sensor)
        assert sensor.requests == ["03 01", "03 03"]

    def test_what_another_program_left_running_is_stopped_too(self) -> None:
        """The H10 stays on until the battery is empty if one stream is left: KnownIssues.md."""
        sensor = ScriptedSensor()
        conversation, _ = started(sensor)
        list(notify(conversation, ACC_FRAME))
        sensor.requests.clear()
        perform(conversation, conversation.stop(), sensor)
        assert sensor.requests == ["03 00", "03 02"]

    def test_nothing_is_written_to_a_sensor_on_which_nothing_runs(self) -> None:
        sensor = ScriptedSensor()
        conversation = open_conversation()
        perform(conversation, conversation.stop(), sensor)
        assert sensor.requests == []


@given(features=st.binary(max_size=20), answers=st.lists(st.binary(max_size=24), max_size=40))
def test_random_answers_raise_only_declared_errors(features: bytes, answers: list[bytes]) -> None:
    """Whatever a sensor answers, only stops, settings and starts of the three measurements are written."""
    conversation = open_conversation()
    supply = iter(answers)

    class RandomSensor(ScriptedSensor):
        def answer(self, request: bytes) -> list[bytes] | None:
            self.requests.append(request.hex())
            drawn = next(supply, None)
            return None if drawn is None else [bytes((0xF0, *request[:2])) + drawn]

    sensor = RandomSensor(features.hex())
    with contextlib.suppress(RefusedError):
        perform(conversation, conversation.start(NOW), sensor)
    assert {request[:4] for request in sensor.requests} <= {
        op + kind for op in ("01", "02", "03") for kind in ("00", "01", "03")
    }
    assert "0103" not in {request[:4] for request in sensor.requests}


class TestQuirks:
    PPG_FRAME: Final = bytes.fromhex("01009435770000000000" + "010203040506070809 0A0B0C".replace(" ", ""))
    SETTINGS_135: Final = bytes.fromhex("F001010000 00018700".replace(" ", ""))

    @pytest.mark.parametrize(
        ("device", "rate_hz"),
        [
            (DeviceInformation(name="Polar Sense 8A1B2C3D", firmware="1.1.5"), 55.0),
            (DeviceInformation(model="Verity Sense", firmware="2.0.10"), 55.0),
            (DeviceInformation(model="Verity Sense", firmware="2.1.0"), 135.0),
            (DeviceInformation(model="Verity Sense", firmware="2.2.6"), 135.0),
            (DeviceInformation(name="Polar OH1 12345678", firmware="2.0.8"), 135.0),
            (DeviceInformation(), 135.0),
        ],
    )
    def test_the_true_rate_of_a_ppg(self, device: DeviceInformation, rate_hz: float) -> None:
        decoder = ServiceDecoder(DRIVER, Context(device))
        decoder.decode(CONTROL_POINT, self.SETTINGS_135)
        found = waves(decoder.decode(DATA, self.PPG_FRAME).readings)
        assert [wave.rate_hz for wave in found] == [rate_hz] * 4

    def test_the_oh1_says_130_hz_and_runs_at_135(self) -> None:
        decoder = ServiceDecoder(DRIVER, Context(DeviceInformation(model="OH1")))
        decoder.decode(CONTROL_POINT, bytes.fromhex("F00101000000018200"))
        assert {wave.rate_hz for wave in waves(decoder.decode(DATA, self.PPG_FRAME).readings)} == {135.0}

    def test_the_contact_of_optical_sensors_is_left_out(self) -> None:
        decoder = ServiceDecoder(DRIVER, Context(DeviceInformation(model="OH1")))
        kinds = [getattr(reading, "kind", "") for reading in decoder.decode(DATA, PPI_FRAME).readings]
        assert kinds == ["heart_rate", "pp", "pp_error"]


class TestExpectedStreams:
    """The data characteristic carries several streams: that of the PPG hides that the ECG has stopped."""

    ECG_AND_PPG: Final[dict[str, list[str] | None]] = {"01 01": ["F00101000000013700"]}

    def test_each_started_stream_has_a_deadline_that_its_own_frames_renew(self) -> None:
        sensor = ScriptedSensor("0F03", dict(self.ECG_AND_PPG))
        conversation, _ = started(sensor)
        assert sensor.expected == {"ECG": SILENT_AFTER_S, "PPG": SILENT_AFTER_S}
        assert [effect for effect in notify(conversation, ECG_FRAME) if isinstance(effect, Expect)] == [
            Expect("ECG", SILENT_AFTER_S)
        ]
        assert not [effect for effect in notify(conversation, ACC_FRAME) if isinstance(effect, Expect)]

    def test_a_stream_that_the_sensor_reports_as_stopped_has_none(self) -> None:
        conversation, _ = started(ScriptedSensor("0F03", dict(self.ECG_AND_PPG)))
        effects = list(indicate(conversation, bytes.fromhex("0101")))
        assert [effect for effect in effects if isinstance(effect, Expect)] == [Expect("PPG", None)]

    def test_a_stream_that_already_ran_has_none_before_its_first_frame(self) -> None:
        sensor = ScriptedSensor(answers={"02 00": ["F002000600"]})
        conversation, _ = started(sensor)
        assert sensor.expected == {}
        assert Expect("ECG", SILENT_AFTER_S) in list(notify(conversation, ECG_FRAME))

"""Polar Measurement Data: dialogues with a scripted sensor, large frames, settings, speed."""

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import (
    Context,
    Conversation,
    Effect,
    Expect,
    Moment,
    NoAnswerError,
    Procedure,
    Read,
    RefusedError,
    Remember,
    Request,
    Run,
    Value,
)
from drivers.decoding import ServiceDecoder
from drivers.device import DeviceInformation
from drivers.pmd_control import MAX_PARTS, PREFERRED_RATES_HZ, choose_settings, encode_settings, parse_settings
from drivers.pmd_frames import decode_frame
from drivers.pmd_measurements import Measurement, Stream
from drivers.polar_pmd import CONTROL_POINT, DATA, DRIVER, RESTARTS_WITHOUT_DATA, SILENT_AFTER_S
from drivers.readings import DecodeError, Quarantined, Reading, Status, Vital, Waveform, check_reading

NOW: Final = Moment(1_750_000_000_000_000)
VECTORS: Final = json.loads((Path(__file__).parent / "vectors/polar_pmd.json").read_text())
ECG_FRAME: Final = bytes.fromhex("000094357700000000000280FF028000")
ACC_FRAME: Final = bytes.fromhex("02009435770000000001F7FFFFFFE703")
PPI_FRAME: Final = bytes.fromhex("030000000000000000004854030A0006")
H10_FEATURES: Final = "0F05" + 15 * "00"
VERITY_FEATURES: Final = "0F6E02" + 14 * "00"
START_ECG: Final = "02 00 00 01 82 00 01 01 0E 00"
"""The request that every public client of the H10 writes, with 2-byte settings: 0x0082 Hz, 0x000E bits."""


@dataclass
class ScriptedSensor:
    """Answers requests, each in hexadecimal, from a script; by default it does what it is asked to do.

    `answers` holds, for the beginning of a request, the values that the control point indicates in turn. None is silence.
    """

    features: str | None = H10_FEATURES
    answers: dict[str, list[str] | None] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    expected: dict[str, float | None] = field(default_factory=dict)
    """The deadlines that the procedures set."""

    def answer(self, request: bytes) -> list[bytes] | None:
        text = request.hex(" ").upper()
        self.requests.append(text)
        scripted = [values for begin, values in self.answers.items() if text.startswith(begin)]
        if scripted:
            return None if scripted[0] is None else [bytes.fromhex(value) for value in scripted[0]]
        settings = "000182000101 0E00" if text == "01 00" else ""
        return [bytes.fromhex(f"F0 {text[:5]} 00 00 {settings}")]


def perform(conversation: Conversation, procedure: Procedure, sensor: ScriptedSensor) -> list[Reading | Remember]:
    """Perform a procedure as a session does; return the readings and memories that it yields."""
    yielded: list[Reading | Remember] = []
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = procedure.throw(error) if error else procedure.send(result)
        except StopIteration:
            return yielded
        result, error = None, None
        match step:
            case Read(characteristic):
                assert characteristic == CONTROL_POINT
                result = None if sensor.features is None else bytes.fromhex(sensor.features)
            case Request(characteristic, payload, is_answer):
                assert characteristic == CONTROL_POINT
                result = await_answer(conversation, sensor.answer(payload), is_answer)
                error = NoAnswerError("the sensor did not answer") if result is None else None
            case Expect(name, within_s):
                sensor.expected[name] = within_s
            case _:
                assert isinstance(step, Reading | Remember)
                yielded.append(step)


def await_answer(conversation: Conversation, values: list[bytes] | None, is_answer: Callable[[bytes], bool]) -> bytes | None:
    for value in values or ():
        assert not list(indicate(conversation, value)), "what a request waits for is not a reading"
        if is_answer(value):
            return value
    return None


def indicate(conversation: Conversation, payload: bytes) -> Iterable[Effect]:
    return conversation.receive(Value(CONTROL_POINT, payload, NOW))


def notify(conversation: Conversation, payload: bytes) -> Iterable[Effect]:
    return conversation.receive(Value(DATA, payload, NOW))


def open_conversation(memory: dict[str, Any] | None = None) -> Conversation:
    assert DRIVER.converse is not None
    return DRIVER.converse(Context(memory=memory or {}))


def started(sensor: ScriptedSensor, memory: dict[str, Any] | None = None) -> tuple[Conversation, list[Reading | Remember]]:
    conversation = open_conversation(memory)
    return conversation, perform(conversation, conversation.start(NOW), sensor)


def procedures(effects: Iterable[Effect]) -> list[Procedure]:
    return [effect.procedure for effect in effects if isinstance(effect, Run)]


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


class TestSettings:
    @pytest.mark.parametrize("rate", ["0000", "1127"])
    def test_a_rate_that_no_waveform_can_have_is_not_believed(self, rate: str) -> None:
        conversation = open_conversation()
        list(indicate(conversation, bytes.fromhex("F001000000 0001" + rate)))
        assert [wave.rate_hz for wave in waves(notify(conversation, ECG_FRAME))] == [130.0]

    def test_an_answer_of_several_parts_is_joined_in_order(self) -> None:
        sensor = ScriptedSensor(answers={"01 00": ["F0010000010001", "F0010000018200 01", "F00100000001 0E00"]})
        started(sensor)
        assert sensor.requests[-1] == START_ECG

    def test_an_answer_without_an_end_is_refused(self) -> None:
        sensor = ScriptedSensor(answers={"01 00": ["F0010000010001"] * (MAX_PARTS + 1)})
        with pytest.raises(RefusedError, match="answer about its ECG does not end"):
            started(sensor)

    def test_other_settings_are_chosen_from_what_is_offered(self) -> None:
        offered = parse_settings(
            bytes.fromhex("0004 8200 F401 E803 D007 0102 0E00 1200 0201 0400 030188130000 040101".replace(" ", ""))
        )
        chosen = choose_settings(Measurement.ECG, offered)
        assert chosen == {0: 130, 1: 18, 2: 4, 3: 5000, 4: 1}
        assert encode_settings(chosen).hex(" ").upper() == "00 01 82 00 01 01 12 00 02 01 04 00 03 01 88 13 00 00 04 01 01"

    @pytest.mark.parametrize(
        ("measurement", "rates", "expected"),
        [
            (0, (125, 250), 125),
            (0, (500, 1000), 500),
            (1, (135,), 135),
            (1, (28, 44, 55, 135, 176), 55),
            (2, (25, 50, 200), 200),
        ],
    )
    def test_the_rate_nearest_to_the_preferred_one_is_chosen(
        self, measurement: int, rates: tuple[int, ...], expected: int
    ) -> None:
        assert choose_settings(measurement, {0: rates}) == {0: expected}

    def test_the_factor_and_security_are_never_sent(self) -> None:
        settings = parse_settings(bytes.fromhex("00018200" + "05010000803F" + "0601" + "00" * 16))
        assert choose_settings(0, settings) == {0: 130}

    def test_the_chosen_rate_is_that_of_the_first_frame(self) -> None:
        sensor = ScriptedSensor(answers={"01 00": ["F00100000000 02 7D00 FA00 01010E00".replace(" ", "")]})
        conversation, _ = started(sensor)
        (wave,) = waves(notify(conversation, ECG_FRAME))
        assert isinstance(wave, Waveform)
        assert wave.rate_hz == 125.0

    @given(data=st.binary(max_size=60))
    def test_random_settings_are_parsed_or_rejected_and_can_be_sent(self, data: bytes) -> None:
        try:
            offered = parse_settings(data)
        except DecodeError:
            return
        for measurement in (0, 1, 2):
            chosen = choose_settings(measurement, offered)
            assert {setting: (value,) for setting, value in chosen.items()} == parse_settings(encode_settings(chosen))

    def test_preferred_rates_suit_the_analysis(self) -> None:
        assert PREFERRED_RATES_HZ == {Measurement.ECG: 130, Measurement.PPG: 55}


class TestFactor:
    ACC_ZERO: Final = bytes.fromhex("02009435770000000080C9FF12001100")

    def test_without_a_factor_samples_have_no_unit(self) -> None:
        assert [wave.kind for wave in waves(decode_frame(self.ACC_ZERO))] == ["acc_raw_x", "acc_raw_y", "acc_raw_z"]

    def test_the_factor_of_the_start_gives_the_unit(self) -> None:
        """AccDataTest.kt: type 0 arrives in g; with the factor 2.44e-4, 1905 is 464 mg."""
        conversation = open_conversation()
        assert list(indicate(conversation, bytes.fromhex("F002020000 0501 BDDB7F39".replace(" ", ""))))
        frame = bytes.fromhex("02009435770000000080 7107F06A9E8D".replace(" ", ""))
        found = waves(notify(conversation, frame))
        assert [wave.kind for wave in found] == ["acc_x", "acc_y", "acc_z"]
        assert [wave.samples[0] * wave.scale for wave in found] == pytest.approx([464.82, 6679.744, -7144.808], rel=1e-4)

    def test_the_factor_of_a_start_that_was_asked_for_is_used(self) -> None:
        answers: dict[str, list[str] | None] = {"01 01": ["F00101000000013700"], "02 01": ["F002010000 0501 0000003F"]}
        conversation, _ = started(ScriptedSensor("0F02", answers))
        found = waves(notify(conversation, bytes.fromhex("01009435770000000080" + "0A0000" * 4)))
        assert [wave.scale for wave in found] == [0.5] * 4

    def test_raw_samples_are_not_scaled_by_it(self) -> None:
        """AccData.kt: the SDK applies the factor to compressed frames only."""
        assert {wave.scale for wave in waves(decode_frame(ACC_FRAME, {Measurement.ACC: Stream(50.0, 0.5)}))} == {1.0}

    @pytest.mark.parametrize("factor", ["0000C07F", "0000807F", "00000000", "000080BF"])
    def test_a_factor_that_no_sensor_can_mean_is_ignored(self, factor: str) -> None:
        conversation = open_conversation()
        list(indicate(conversation, bytes.fromhex("F0020200000501" + factor)))
        assert [wave.kind for wave in waves(notify(conversation, self.ACC_ZERO))] == ["acc_raw_x", "acc_raw_y", "acc_raw_z"]

    def test_a_factor_scales_floating_point_values(self) -> None:
        """GyrDataTest.kt and PressureDataTest.kt, with a factor of 0.5 and of 2."""
        frame = bytes.fromhex("050094357700000000810000803F000020410000A0411C010000A001000008CDCCEC0D")
        gyro = waves(decode_frame(frame, {Measurement.GYRO: Stream(52.0, 0.5)}))
        assert [[sample * wave.scale for sample in wave.samples] for wave in gyro] == [
            pytest.approx([0.5, 5.0]),
            pytest.approx([5.0, 10.0]),
            pytest.approx([10.0, 0.55]),
        ]
        pressure = decode_frame(bytes.fromhex("0B009435770000000080C28780440A011FBF"), {Measurement.PRESSURE: Stream(1.0, 2.0)})
        assert isinstance(pressure[0], Vital)
        assert pressure[0].value == pytest.approx(2056.485, abs=1e-3)

    def test_the_calibration_of_a_magnetometer_is_not_scaled(self) -> None:
        """MagDataTest.kt, type 1 with the factor 1.1."""
        frame = bytes.fromhex("0600943577000000008137FF51FD6CF600000301F802")
        found = waves(decode_frame(frame, {Measurement.MAG: Stream(50.0, 1.1)}))
        assert [wave.samples[0] * wave.scale for wave in found] == pytest.approx([-0.2211, -0.7557, -2.6972, 0])


def waves(readings: Iterable[object]) -> list[Waveform]:
    return [reading for reading in readings if isinstance(reading, Waveform)]


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


class TestFrames:
    @pytest.mark.parametrize("case", VECTORS["large"], ids=lambda case: case["source"])
    def test_large_frames_hold_the_known_samples(self, case: dict[str, Any]) -> None:
        found = waves(decode_frame(bytes.fromhex(case["hex"])))
        samples = list(zip(*(wave.samples for wave in found), strict=True))
        assert len(samples) == case["count"]
        assert [list(samples[0]), list(samples[1]), list(samples[-1])] == [case["first"], case["second"], case["last"]]

    def test_sixteen_channels_and_their_status(self) -> None:
        """PpgDataTest.kt, compressed type 7."""
        frame = (
            "0100943577000000008709AE208A7C23583B1980B918DB2E22FA881DD7BB18C2B81F7A442648DF23A1F2173A371BFFFF007C080070F502FFFF0028"
            "C411180187FEFFEC020001FEFFFB00008DF9FFB1FFFF0CFEFF26FEFFEEFEFF890200DF020051FEFF000000000000000000000000AEA68F"
        )
        found = {wave.kind: wave.samples for wave in waves(decode_frame(bytes.fromhex(frame)))}
        assert len(found) == 17
        assert found["ppg"] == (2141705, 2141705 - 377)
        assert found["ppg_2"] == (2325642, 2325642 + 748)
        assert found["ppg_16"][0] == 65535
        assert found["ppg_status"][0] == 1164328

    def test_the_analysed_ppg_of_a_coloured_frame_is_the_first_green_channel(self) -> None:
        """PpgData.kt: 8 red, 6 green and 6 infrared channels, then the status."""
        values = b"".join(number.to_bytes(3, "little") for number in range(1, 22))
        found = waves(decode_frame(bytes.fromhex("0100943577000000008A") + values))
        numbers = {wave.kind: wave.samples[0] for wave in found}
        assert (numbers["ppg_red_1"], numbers["ppg_red_8"]) == (1, 8)
        assert (numbers["ppg"], numbers["ppg_green_2"], numbers["ppg_green_6"]) == (9, 10, 14)
        assert (numbers["ppg_ir_1"], numbers["ppg_ir_6"], numbers["ppg_status"]) == (15, 20, 21)

    @given(
        milliseconds=st.integers(0, 2**16 - 1),
        error=st.integers(0, 2**16 - 1),
        rate=st.integers(0, 255),
        flags=st.integers(0, 255),
    )
    def test_intervals_keep_every_millisecond(self, milliseconds: int, error: int, rate: int, flags: int) -> None:
        sample = bytes((rate, *milliseconds.to_bytes(2, "little"), *error.to_bytes(2, "little"), flags))
        readings = {getattr(item, "kind", ""): item for item in decode_frame(bytes.fromhex("03000000000000000000") + sample)}
        is_void = bool(flags & 1) or (flags & 0b110) == 0b100
        interval: Any = readings["pp_void" if is_void else "pp"]
        assert ("pp" in readings) != ("pp_void" in readings)
        assert round(interval.ticks[0] * 1000 / 1024) == milliseconds
        assert ("skin_contact" in readings) == bool(flags & 4)
        assert set(getattr(readings["heart_rate"], "flags", ())) == {
            *(["body_movement"] if flags & 1 else []),
            *(["no_contact"] if flags & 0b110 == 0b100 else []),
            *([] if rate else ["no_pulse_found"]),
            *(["implausible"] if rate > 250 else []),
        }
        check_reading(readings["pp_error"])

    @given(data=st.binary(max_size=512))
    def test_random_samples_of_every_frame_type_are_rejected_or_bounded(self, data: bytes) -> None:
        for measurement in range(16):
            for frame_type in (*range(16), *range(0x80, 0x90)):
                frame = bytes((measurement, *bytes(8), frame_type)) + data
                decoded = ServiceDecoder(DRIVER, Context()).decode(DATA, frame)
                assert decoded.readings
                samples = sum(len(wave.samples) for wave in waves(decoded.readings))
                assert samples <= max(4096, 4 * len(data))

    def test_the_type_is_in_the_low_six_bits(self) -> None:
        """`PmdMeasurementType.fromId`: 0x3F. The other bits mark stored measurements."""
        assert decode_frame(bytes((0x80, *ECG_FRAME[1:]))) == decode_frame(ECG_FRAME)

    def test_a_frame_of_an_unknown_type_is_quarantined_with_its_name(self) -> None:
        (kept,) = ServiceDecoder(DRIVER, Context()).decode(DATA, bytes.fromhex("0A0094357700000000000102")).readings
        assert isinstance(kept, Quarantined)
        assert "LOCATION" in kept.reason


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

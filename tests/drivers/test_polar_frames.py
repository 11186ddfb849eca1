"""Polar Measurement Data: settings, factors and frames."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, RefusedError
from drivers.decoding import ServiceDecoder
from drivers.pmd_control import MAX_PARTS, PREFERRED_RATES_HZ, choose_settings, encode_settings, parse_settings
from drivers.pmd_frames import decode_frame
from drivers.pmd_measurements import Measurement, Stream
from drivers.polar_pmd import DATA, DRIVER
from drivers.readings import DecodeError, Quarantined, Vital, Waveform, check_reading
from tests.drivers.scripted_polar import (
    ACC_FRAME,
    ECG_FRAME,
    START_ECG,
    VECTORS,
    ScriptedSensor,
    indicate,
    notify,
    open_conversation,
    started,
    waves,
)


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
            (2, (25, 50, 100, 200), 25),
            (2, (52,), 52),
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
        assert PREFERRED_RATES_HZ == {Measurement.ECG: 130, Measurement.PPG: 55, Measurement.ACC: 25}


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

"""Whether the wearer of a sensor on the chest moves, from its acceleration."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models.signal.motion import MINUTE_S, MOVING_MAD_MG, MotionWatch, mean_amplitude_deviation

Samples = NDArray[np.float64]
RATE_HZ = 25.0
WINDOW = 125


def still(seconds: float, direction: tuple[float, float, float] = (0.0, -1.0, 0.0), rate_hz: float = RATE_HZ) -> Samples:
    """Gravity in a direction, with 5 mg of noise."""
    count = round(seconds * rate_hz)
    gravity = 1000.0 * np.array(direction) / np.linalg.norm(direction)
    return gravity + np.random.default_rng(1).normal(0, 5, (count, 3))


def walk(seconds: float, mg: float = 250.0, rate_hz: float = RATE_HZ) -> Samples:
    """Gravity, and steps at 1.8 Hz along it."""
    samples = still(seconds, rate_hz=rate_hz)
    samples[:, 1] += mg * np.sin(2 * np.pi * 1.8 * np.arange(len(samples)) / rate_hz)
    return samples


def watch(parts: Iterable[Samples], rate_hz: float = RATE_HZ, frame: int = 36) -> tuple[MotionWatch, float]:
    """A watch that was given these samples in frames, and the time of its last sample."""
    motion, samples = MotionWatch(), np.concatenate(list(parts))
    for start in range(0, len(samples), frame):
        chunk = samples[start : start + frame]
        motion.push(chunk, (start + len(chunk)) / rate_hz)
    return motion, len(samples) / rate_hz


def test_the_deviation_is_that_of_its_definition() -> None:
    """A sine of height h has a mean absolute value of 2h/π; along gravity it is all of the magnitude."""
    t = np.arange(1000) / 100.0
    samples = np.stack([np.zeros(1000), np.zeros(1000), 1000 + 100 * np.sin(2 * np.pi * t)], axis=1)
    assert mean_amplitude_deviation(samples) == pytest.approx(200 / np.pi, rel=1e-3)


def test_a_still_wearer_is_at_rest_and_a_walking_one_moves() -> None:
    assert (mean_amplitude_deviation(still(5)) or 0) < 10
    assert (mean_amplitude_deviation(walk(5)) or 0) > 2 * MOVING_MAD_MG


@settings(max_examples=30)
@given(st.integers(0, 2**16), st.floats(0, 300), st.tuples(*[st.floats(-50, 50)] * 3))
def test_a_constant_offset_and_the_orientation_do_not_make_motion(seed: int, mg: float, offset: tuple[float, ...]) -> None:
    """Any rotation leaves the deviation as it is; an offset of 50 mg on each axis changes it by its share of gravity."""
    samples = walk(5, mg)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    plain, turned = mean_amplitude_deviation(samples), mean_amplitude_deviation(samples @ rotation)
    shifted = mean_amplitude_deviation(samples @ rotation + offset)
    assert plain is not None
    assert turned == pytest.approx(plain)
    assert shifted == pytest.approx(plain, rel=0.15, abs=2)


def test_a_sensor_without_gravity_or_on_its_rail_says_nothing() -> None:
    assert mean_amplitude_deviation(np.zeros((WINDOW, 3))) is None
    assert mean_amplitude_deviation(np.full((WINDOW, 3), 4000.0)) is None
    assert mean_amplitude_deviation(np.full((WINDOW, 3), np.nan)) is None
    assert mean_amplitude_deviation(np.full((WINDOW, 3), np.inf)) is None
    assert mean_amplitude_deviation(np.empty((0, 3))) is None


def test_a_run_that_saturates_the_sensor_is_still_motion() -> None:
    samples = np.clip(walk(5, 2500.0), -2000, 2000)
    assert (mean_amplitude_deviation(samples) or 0) > MOVING_MAD_MG


def test_a_fifth_of_the_samples_may_be_missing() -> None:
    samples = walk(5)
    samples[: WINDOW // 5] = np.nan
    assert (mean_amplitude_deviation(samples) or 0) > MOVING_MAD_MG
    samples[: WINDOW // 5 + 1] = np.nan
    assert mean_amplitude_deviation(samples) is None


@settings(max_examples=50)
@given(arrays.arrays(np.float64, st.tuples(st.integers(0, 60), st.just(3)), elements=st.floats(width=64)))
def test_any_numbers_give_a_finite_deviation_or_none(samples: Samples) -> None:
    with np.errstate(all="ignore"):
        found = mean_amplitude_deviation(samples)
    assert found is None or 0 <= found < np.inf


class TestWatch:
    @pytest.mark.parametrize(("rate_hz", "frame"), [(25.0, 36), (52.0, 4), (200.0, 36), (13.0, 1)])
    def test_half_a_minute_of_motion_is_motion(self, rate_hz: float, frame: int) -> None:
        motion, end_s = watch([still(60, rate_hz=rate_hz), walk(40, rate_hz=rate_hz)], rate_hz, frame)
        assert motion.is_moving(end_s) is True
        motion, end_s = watch([still(60, rate_hz=rate_hz), walk(20, rate_hz=rate_hz)], rate_hz, frame)
        assert motion.is_moving(end_s) is False

    def test_a_wearer_who_stops_is_at_rest_within_a_minute(self) -> None:
        motion, end_s = watch([walk(120), still(40)])
        assert motion.is_moving(end_s) is False

    def test_a_change_of_posture_is_no_motion(self) -> None:
        """Lying down, turning over twice and getting up within a minute, each in a second that shakes the sensor."""
        postures = [(0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.2), (0.0, -1.0, 0.1)]
        parts = [part for posture in postures for part in (walk(1, 600), still(14, posture))]
        motion, end_s = watch(parts)
        assert motion.is_moving(end_s) is False

    def test_nothing_is_known_before_half_a_minute_and_a_minute_after_the_last_sample(self) -> None:
        motion, end_s = watch([walk(29)])
        assert motion.is_moving(end_s) is None
        motion, end_s = watch([walk(60)])
        assert motion.is_moving(end_s + MINUTE_S / 2 - 5) is True
        assert motion.is_moving(end_s + MINUTE_S + 1) is None

    def test_nothing_is_known_of_a_defective_sensor(self) -> None:
        motion, end_s = watch([np.zeros((3000, 3))])
        assert motion.is_moving(end_s) is None

    def test_what_a_gap_separates_is_not_joined(self) -> None:
        """Frames of a second each, a minute apart, never fill a window."""
        motion = MotionWatch()
        for minute in range(20):
            motion.push(walk(1), 60.0 * minute)
            assert motion.is_moving(60.0 * minute) is None

    def test_frames_of_a_few_samples_say_nothing(self) -> None:
        motion = MotionWatch()
        for second in range(120):
            motion.push(walk(0.2), float(second))
            assert motion.is_moving(float(second)) is None

    def test_a_burst_of_late_frames_counts_once(self) -> None:
        """Twenty seconds of a walk that arrive at once are not twenty seconds of the last minute."""
        motion, end_s = watch([still(60)])
        for _ in range(14):
            motion.push(walk(36 / RATE_HZ), end_s + 4)
        assert motion.is_moving(end_s + 4) is False

    def test_a_clock_that_is_set_back_makes_it_unknown_and_not_wrong(self) -> None:
        motion, end_s = watch([walk(60)])
        assert motion.is_moving(end_s - 3600) is None
        for second in range(40):
            motion.push(still(1), end_s - 3600 + second)
            assert motion.is_moving(end_s - 3600 + second) is not True
        assert motion.is_moving(end_s - 3600 + 40) is False

    @settings(max_examples=20)
    @given(st.lists(st.integers(1, 120), min_size=1, max_size=30))
    def test_the_size_of_frames_does_not_matter(self, sizes: list[int]) -> None:
        samples, motion, at = np.concatenate([still(20), walk(50)]), MotionWatch(), 0
        while at < len(samples):
            size = sizes[at % len(sizes)]
            chunk = samples[at : at + size]
            at += len(chunk)
            motion.push(chunk, at / RATE_HZ)
        assert motion.is_moving(at / RATE_HZ) is True

"""The ventricular monitor on streams: what it classifies, and what it calls no signal."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.inference.ecg_organised import EcgOrganised
from models.inference.release import RELEASE_DIR
from models.signal.chain import EcgChain
from models.signal.rhythm_window import ASYSTOLE, NOISE, ORGANISED, WINDOW_SAMPLES
from models.ventricular_monitor import VentricularMonitor

RATE_HZ = 250
HOP = 50
Signal = NDArray[np.float64]


class StubModel:
    """Calls every window the same, and counts them."""

    name, version = "ecg_organised", "0"

    def __init__(self, rhythm: int) -> None:
        self._probabilities = tuple(0.96 if index == rhythm else 0.01 for index in range(5))
        self.windows = 0

    def classify(self, mv: Signal) -> tuple[float, ...]:
        assert mv.shape == (WINDOW_SAMPLES,)
        self.windows += 1
        return self._probabilities


@pytest.fixture(scope="module")
def model() -> EcgOrganised:
    return EcgOrganised((RELEASE_DIR / "ecg_organised.onnx").read_bytes())


def watch(model: Any, mv: Signal, *, is_urgent: bool = False) -> list[tuple[float, Finding]]:
    """Return the findings, each with the time at which it came."""
    chain, monitor = EcgChain(RATE_HZ), VentricularMonitor(model, DEFAULT_LIMITS, RATE_HZ, HOP)
    monitor.note_urgency(is_urgent=is_urgent)
    found = []
    for start in range(0, mv.size - HOP + 1, HOP):
        chain.push(mv[start : start + HOP])
        found += [(chain.end_s, finding) for finding in monitor.push(mv[start : start + HOP], chain)]
    return found


def seconds(count: float) -> NDArray[np.float64]:
    return np.arange(round(count * RATE_HZ)) / RATE_HZ


def skin(count: float, seed: int = 1) -> Signal:
    """Return the noise of an electrode on skin."""
    return np.random.default_rng(seed).normal(0, 0.01, round(count * RATE_HZ))


def sinus(count: float, bpm: float = 70) -> Signal:
    """Return P, QRS and T waves at a regular rate."""
    t_s, beats_s = seconds(count), np.arange(0.5, count, 60 / bpm)
    mv = skin(count)
    for at_s, height_mv, width_s in ((-0.16, 0.12, 0.02), (0.0, 1.0, 0.012), (0.03, -0.2, 0.012), (0.25, 0.25, 0.04)):
        for beat_s in beats_s + at_s:
            near = slice(*np.searchsorted(t_s, (beat_s - 6 * width_s, beat_s + 6 * width_s)))
            mv[near] += height_mv * np.exp(-0.5 * ((t_s[near] - beat_s) / width_s) ** 2)
    return mv


def fibrillation(count: float, height_mv: float, seed: int = 4) -> Signal:
    """Return three oscillations of drifting rate around 5 Hz and drifting size, of this height from peak to peak."""
    random, t_s = np.random.default_rng(seed), seconds(count)
    mv = np.zeros(t_s.size)
    for centre_hz in (4.4, 5.2, 6.1):
        drift = np.interp(t_s, np.arange(0, count + 2), random.normal(0, 0.4, int(count) + 2))
        size = np.interp(t_s, np.arange(0, count + 2), random.uniform(0.3, 1.0, int(count) + 2))
        mv += size * np.sin(2 * np.pi * np.cumsum(centre_hz + drift) / RATE_HZ + random.uniform(0, 6))
    return mv / np.ptp(mv) * height_mv + skin(count)


class TestFibrillation:
    @pytest.mark.parametrize("height_mv", [2.0, 0.6, 0.25])
    def test_coarse_and_fine_within_ten_seconds_and_once(self, model: EcgOrganised, height_mv: float) -> None:
        found = watch(model, np.concatenate((sinus(30), fibrillation(60, height_mv))))
        assert [(finding.kind, finding.end_s) for _, finding in found] == [("vf", None)]
        assert 30 <= found[0][0] <= 40
        assert abs(found[0][1].onset_s - 30) <= 4

    def test_from_the_start_of_the_stream(self, model: EcgOrganised) -> None:
        ((decided_s, finding),) = watch(model, fibrillation(40, 1.0))
        assert finding.kind == "vf"
        assert decided_s <= 10

    def test_it_ends_in_sinus_rhythm(self, model: EcgOrganised) -> None:
        found = watch(model, np.concatenate((fibrillation(30, 1.0), sinus(30))))
        assert [(finding.kind, finding.end_s is None) for _, finding in found] == [("vf", True), ("vf", False)]
        assert 30 <= (found[1][1].end_s or 0) <= 43

    @pytest.mark.parametrize("bpm", [30, 70, 150, 220])
    def test_narrow_complexes_of_any_rate_are_organised(self, model: EcgOrganised, bpm: float) -> None:
        assert not watch(model, sinus(30, bpm))


class TestAsystole:
    def test_drift_without_complexes(self, model: EcgOrganised) -> None:
        drift = skin(60) + 0.1 * np.sin(2 * np.pi * 0.3 * seconds(60))
        found = watch(model, np.concatenate((sinus(20), drift)))
        assert [(finding.kind, finding.end_s) for _, finding in found] == [("asystole", None)]
        assert 20 <= found[0][0] <= 30

    def test_none_while_the_amplifier_recovers_from_a_jump_of_the_baseline(self) -> None:
        t_s = seconds(8)
        jump = np.where(t_s > 4, 4 * np.exp(-(t_s - 4) / 2), 0)
        assert [finding.kind for _, finding in watch(StubModel(ASYSTOLE), skin(8))] == ["asystole"]
        assert not watch(StubModel(ASYSTOLE), skin(8) + jump)


class TestNoSignal:
    @pytest.mark.parametrize(
        ("reason", "make"),
        [
            ("flat", lambda t_s: np.full(t_s.size, 0.2)),
            ("rail", lambda t_s: np.full(t_s.size, -5.0)),
            ("hum", lambda t_s: np.sin(2 * np.pi * 50 * t_s)),
            ("noise", lambda t_s: np.random.default_rng(5).normal(0, 0.5, t_s.size)),
        ],
    )
    def test_is_no_rhythm_and_is_reported_after_a_minute(
        self, model: EcgOrganised, reason: str, make: Callable[[Signal], Signal]
    ) -> None:
        found = watch(model, np.concatenate((sinus(20), make(seconds(90)), sinus(20))))
        assert [(finding.kind, finding.reasons, finding.end_s is None) for _, finding in found] == [
            ("no_signal", (f"no_signal.{reason}",), True),
            ("no_signal", (f"no_signal.{reason}",), False),
        ]
        assert 80 <= found[0][0] <= 90
        assert 110 <= found[1][0] <= 125

    def test_a_flat_line_is_not_classified(self) -> None:
        stub = StubModel(ORGANISED)
        watch(stub, np.zeros(20 * RATE_HZ))
        assert stub.windows == 0

    def test_a_flat_line_after_fibrillation_is_reported_at_once_and_ends_it_as_lost(self, model: EcgOrganised) -> None:
        found = watch(model, np.concatenate((fibrillation(30, 1.0), np.zeros(30 * RATE_HZ))), is_urgent=True)
        assert [finding.kind for _, finding in found] == ["vf", "no_signal", "vf"]
        assert found[2][1].lost
        assert found[1][0] <= 42

    def test_without_a_model_defects_are_still_reported(self) -> None:
        found = watch(None, np.concatenate((fibrillation(20, 1.0), np.zeros(70 * RATE_HZ))))
        assert [(finding.kind, finding.reasons) for _, finding in found] == [("no_signal", ("no_signal.flat",))]

    def test_noise_that_only_passes_is_not_reported(self) -> None:
        assert not watch(StubModel(NOISE), sinus(30))


@pytest.mark.parametrize(("rhythm", "excluded"), [(ORGANISED, False), (NOISE, True), (1, True), (2, True), (3, True)])
def test_a_dangerous_or_noisy_window_contradicts_an_organised_rhythm(rhythm: int, excluded: bool) -> None:
    chain, monitor = EcgChain(RATE_HZ), VentricularMonitor(StubModel(rhythm), DEFAULT_LIMITS, RATE_HZ, HOP)
    assert not monitor.excludes_organised
    chain.push(sinus(6))
    list(monitor.push(np.zeros(HOP), chain))
    assert monitor.excludes_organised == excluded


def test_a_stretch_is_noise_where_any_window_in_it_is() -> None:
    chain, monitor = EcgChain(RATE_HZ), VentricularMonitor(StubModel(NOISE), DEFAULT_LIMITS, RATE_HZ, HOP)
    assert not monitor.is_noise(0, 10)
    chain.push(sinus(6))
    list(monitor.push(np.zeros(HOP), chain))
    assert [monitor.is_noise(*stretch) for stretch in ((0, 5), (4, 6), (5.5, 8), (0, 4))] == [True, True, False, False]


def test_one_window_a_second_once_there_are_four_seconds() -> None:
    stub = StubModel(ORGANISED)
    watch(stub, sinus(60))
    assert 55 <= stub.windows <= 58


def test_a_second_without_samples_is_bridged_and_a_longer_loss_is_not() -> None:
    stub = StubModel(2)
    mv = fibrillation(60, 1.0)
    mv[20 * RATE_HZ : 21 * RATE_HZ] = np.nan
    assert len(watch(stub, mv)) == 1
    mv[20 * RATE_HZ : 40 * RATE_HZ] = np.nan
    assert [finding.lost for _, finding in watch(stub, mv)] == [False, True, False]

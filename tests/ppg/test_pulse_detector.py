"""The pulse detector finds pulses at known times for any rate, polarity, gain and chunk sizes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.signal.ppg import PpgChain, Pulse

Samples = NDArray[np.float64]
Synthesise = Callable[..., tuple[Samples, Samples]]


def run(ppg: Samples, rate_hz: float = 50.0, sizes: list[int] | None = None) -> list[Pulse]:
    chain, at, turn, found = PpgChain(rate_hz), 0, 0, list[Pulse]()
    while at < ppg.size:
        size = sizes[turn % len(sizes)] if sizes else ppg.size
        found += chain.push(ppg[at : at + size])
        at, turn = at + size, turn + 1
    return [*found, *chain.finish()]


def times(pulses: list[Pulse]) -> Samples:
    return np.array([pulse.t_s for pulse in pulses])


@pytest.mark.parametrize("rate_hz", [25.0, 30.0, 50.0, 64.0, 100.0, 125.0, 130.16, 250.0, 256.0, 500.0, 1000.0, 4000.0])
def test_locates_pulses_at_their_rise_at_any_sampling_rate(rate_hz: float, synthesise: Synthesise) -> None:
    rng = np.random.default_rng(1)
    ppg, rises_s = synthesise(rng.uniform(0.6, 1.1, 40), rate_hz)
    found = times(run(ppg, rate_hz))
    assert found.size == rises_s.size
    assert np.abs(np.diff(found) - np.diff(rises_s)).max() < 0.004
    assert np.abs(found - rises_s).max() < 0.03


@pytest.mark.parametrize("bpm", [28, 40, 60, 100, 150, 180])
@pytest.mark.parametrize("dicrotic", [0.0, 0.3, 0.5])
def test_detects_every_pulse_but_no_dicrotic_wave_from_28_to_180_per_minute(
    bpm: int, dicrotic: float, synthesise: Synthesise
) -> None:
    ppg, rises_s = synthesise(np.full(bpm // 2, 60 / bpm), dicrotic=dicrotic)
    assert abs(len(run(-ppg)) - rises_s.size) <= 1


@settings(max_examples=25, deadline=None)
@given(
    gain=st.sampled_from([1e-6, 0.3, 1.0, 255.0, 1e9]),
    offset=st.floats(-1e3, 1e3),
    inverted=st.booleans(),
)
def test_result_does_not_depend_on_gain_offset_and_polarity(
    gain: float, offset: float, inverted: bool, synthesise: Synthesise
) -> None:
    ppg, _ = synthesise(np.random.default_rng(2).uniform(0.5, 1.2, 30), noise=0.01)
    changed = gain * ((-ppg if inverted else ppg) + offset)
    assert np.allclose(times(run(changed)), times(run(ppg)), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 17, 50, 73, 131, 999]), min_size=1, max_size=5).filter(lambda sizes: max(sizes) > 1)
)
@pytest.mark.parametrize("rate_hz", [30.0, 128.0])
def test_pulses_are_bit_identical_for_any_chunk_sizes(rate_hz: float, sizes: list[int], synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.random.default_rng(3).uniform(0.4, 1.3, 20), rate_hz, noise=0.1)
    ppg[ppg.size // 2 : ppg.size // 2 + 20] = np.nan
    assert run(ppg, rate_hz, sizes) == run(ppg, rate_hz)


def test_pulses_are_bit_identical_for_chunks_of_one_sample(synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.random.default_rng(4).uniform(0.4, 1.3, 12), noise=0.05)
    assert run(ppg, sizes=[1]) == run(ppg)


def test_marks_the_first_pulse_after_a_gap(synthesise: Synthesise) -> None:
    ppg, rises_s = synthesise(np.full(30, 0.8))
    ppg[600:700] = np.nan
    marked = [pulse for pulse in run(ppg) if pulse.after_gap]
    assert len(marked) == 2
    assert marked[0].t_s == pytest.approx(rises_s[0], abs=0.03)
    assert marked[1].t_s >= 14.0 - 0.1


def test_an_explicit_gap_advances_the_stream_time(synthesise: Synthesise) -> None:
    ppg, rises_s = synthesise(np.full(20, 0.8))
    chain = PpgChain(50.0)
    before = [*chain.push(ppg), *chain.gap(100.0)]
    after = [*chain.push(ppg), *chain.finish()]
    assert len(before) == len(after) == rises_s.size
    assert after[0].after_gap
    assert after[0].t_s - before[0].t_s == pytest.approx(100.0 + ppg.size / 50, abs=0.05)


def test_detects_pulses_two_seconds_after_an_artefact(synthesise: Synthesise) -> None:
    ppg, rises_s = synthesise(np.full(40, 0.8))
    ppg[800:820] += 40 * np.hanning(20)
    found = times(run(ppg))
    clean = [rise for rise in rises_s if not 14.5 < rise < 18.4]
    assert all(np.abs(found - rise).min() < 0.05 for rise in clean)


def test_misses_at_most_two_pulses_after_the_amplitude_drops_to_a_tenth(synthesise: Synthesise) -> None:
    ppg, rises_s = synthesise(np.full(40, 0.8))
    ppg[800:] *= 0.1
    assert len(run(ppg)) >= rises_s.size - 2


@pytest.mark.parametrize("value", [0.0, 255.0, -1e12])
def test_detects_no_pulse_in_a_flat_signal(value: float) -> None:
    assert run(np.full(1000, value)) == []


@pytest.mark.parametrize("rate_hz", [0.0, 24.9, 4001.0, float("nan")])
def test_rejects_a_rate_outside_the_ppg_range(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="PPG"):
        PpgChain(rate_hz)


def test_accepts_empty_chunks_and_missing_samples() -> None:
    chain = PpgChain(50.0)
    assert chain.push(np.empty(0)) == []
    assert chain.push(np.full(500, np.nan)) == []
    assert chain.finish() == []
    assert chain.end_s == 10.0

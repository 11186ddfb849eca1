"""Pacing spikes are removed before the resampler, at every rate that shows them, and R waves are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.signal.chain import EcgChain
from models.signal.spikes import SpikeFilter
from tests.signal.rhythms import add_spikes, join, paced, times_of

RATES_HZ = (250.0, 256.0, 300.0, 360.0, 500.0, 1000.0)
PULSES = ((5.0, 0.002), (2.0, 0.002), (50.0, 0.0004), (5.0, 0.0004))
"""Height in mV and length in seconds, within the pulses with which IEC 60601-2-27 tests a monitor."""


def without_spikes(mv, rate_hz, sizes=(64,)):
    spikes, parts, start, turn = SpikeFilter(rate_hz), [], 0, 0
    while start < mv.size:
        size = sizes[turn % len(sizes)]
        parts.append(spikes.push(mv[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate([*parts, spikes.finish()])


def detect(rhythm):
    chain = EcgChain(rhythm.rate_hz)
    return times_of(chain.push(rhythm.mv) + chain.finish())


@pytest.mark.parametrize(("spike_mv", "spike_s"), PULSES)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_spike_followed_by_a_complex_is_one_beat(rate_hz, spike_mv, spike_s):
    rhythm = paced(70, spike_mv=spike_mv, spike_s=spike_s, rate_hz=rate_hz)
    found_s = detect(rhythm)
    assert found_s.size == rhythm.beats_s.size
    np.testing.assert_allclose(found_s, rhythm.beats_s, atol=0.03)


@pytest.mark.parametrize(("spike_mv", "spike_s"), PULSES)
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_spikes_without_capture_are_no_beats(rate_hz, spike_mv, spike_s):
    captured = paced(70, spike_mv=spike_mv, spike_s=spike_s, rate_hz=rate_hz, seconds=20.0)
    lost = paced(70, spike_mv=spike_mv, spike_s=spike_s, rate_hz=rate_hz, captured=False, seconds=30.0)
    found_s = detect(join(captured, lost))
    assert found_s.size == captured.beats_s.size
    assert detect(lost).size <= 4  # of 35 spikes, where no beat has been known


def test_atrial_and_ventricular_spikes_are_removed():
    rhythm = paced(60, rate_hz=500.0)
    add_spikes(rhythm.mv, 500.0, np.arange(0.24, 59.0, 1.0), 3.0, 0.001)
    assert detect(rhythm).size == rhythm.beats_s.size


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("width_s", [0.005, 0.008, 0.012])
def test_leaves_narrow_r_waves_of_5_mv_as_they_are(width_s, rate_hz):
    t = np.arange(round(20 * rate_hz)) / rate_hz
    mv = np.random.default_rng(1).normal(0, 0.01, t.size)
    for beat_s in np.arange(0.5, 19.5, 0.8123):
        mv += 5 * np.exp(-(((t - beat_s) / width_s) ** 2) / 2)
    assert np.array_equal(without_spikes(mv, rate_hz), mv)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.sampled_from(RATES_HZ))
def test_the_result_is_identical_for_any_chunk_sizes(sizes, rate_hz):
    rhythm = paced(75, rate_hz=rate_hz, seconds=5.0)
    whole = without_spikes(rhythm.mv, rate_hz, (rhythm.mv.size,))
    assert whole.size == rhythm.mv.size
    assert np.array_equal(without_spikes(rhythm.mv, rate_hz, sizes), whole)


@pytest.mark.parametrize(("rate_hz", "is_removed"), [(130.0, False), (250.0, True)])
def test_a_strip_shows_spikes_only_where_the_rate_is_too_low_to_tell_them(rate_hz, is_removed):
    rhythm = paced(60, rate_hz=rate_hz, captured=False)
    chain = EcgChain(rate_hz)
    chain.push(rhythm.mv)
    assert (np.abs(chain.strip(20.0, 50.0)[1]).max() < 0.15) == is_removed

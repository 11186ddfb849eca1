"""Filters, ring buffer and resampler, compared with numpy and scipy and for any chunk sizes."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from models.signal.filters import Fir, RingBuffer, bandpass, correlation_matrix, hann, lowpass
from models.signal.resample import RATE_HZ, Resampler

RATES_HZ = (125.0, 128.0, 130.0, 130.16, 250.0, 256.0, 300.0, 360.0, 500.0)


def split(x, sizes):
    """Split `x` into chunks of these sizes, repeated."""
    start, turn = 0, 0
    while start < x.size:
        stop = start + sizes[turn % len(sizes)]
        yield x[start:stop]
        start, turn = stop, turn + 1


def run(stage, x, sizes):
    return np.concatenate([*(stage.push(chunk) for chunk in split(x, sizes)), stage.finish()])


@pytest.mark.parametrize("taps", [lowpass(40, 125, 8), bandpass(8, 22, 125, 12), hann(23)], ids=["lowpass", "bandpass", "hann"])
def test_fir_is_the_centred_convolution_of_the_edge_padded_signal(taps):
    x = np.random.default_rng(1).standard_normal(500) + 3
    expected = scipy.signal.oaconvolve(np.pad(x, taps.size // 2, "edge"), taps, "valid")
    np.testing.assert_allclose(run(Fir(taps), x, [73]), expected, atol=1e-12)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_fir_is_bit_identical_for_any_chunk_sizes(sizes):
    x = np.random.default_rng(2).standard_normal(1200)
    taps = bandpass(8, 22, 125, 12)
    assert np.array_equal(run(Fir(taps), x, sizes), run(Fir(taps), x, [x.size]))


@given(st.integers(1, 9), st.integers(1, 30))
def test_correlation_matrix_equals_correlation(size, count):
    samples = np.random.default_rng(4).standard_normal(count + size - 1)
    taps = np.arange(1.0, size + 1)
    np.testing.assert_allclose(samples @ correlation_matrix(taps, count), np.correlate(samples, taps, "valid"), atol=1e-12)


def test_empty_stretch_has_no_output():
    assert Fir(hann(5)).finish().size == 0
    assert Resampler(130.0, 0.0).finish().size == 0


def test_bandpass_blocks_offset_and_wander_but_not_the_qrs_band():
    gain = np.abs(scipy.signal.freqz(bandpass(8, 22, 125, 12), worN=[0, 1, 14, 50], fs=125)[1])
    assert gain[0] < 1e-12
    assert gain[1] < 0.05
    assert gain[2] > 0.85
    assert gain[3] < 0.01


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_resampling_preserves_a_sine_in_the_band_and_its_phase(rate_hz):
    t = np.arange(round(10 * rate_hz)) / rate_hz
    out = run(Resampler(rate_hz, 0.0), np.sin(2 * np.pi * 10 * t + 0.3), [97])
    k = np.arange(out.size)
    inner = slice(20, -20)
    np.testing.assert_allclose(out[inner], np.sin(2 * np.pi * 10 * k / RATE_HZ + 0.3)[inner], atol=3e-3)


@pytest.mark.parametrize("rate_hz", RATES_HZ[3:])
def test_resampling_removes_mains_hum(rate_hz):
    t = np.arange(round(10 * rate_hz)) / rate_hz
    for mains_hz in (50, 60):
        out = run(Resampler(rate_hz, 0.0), np.sin(2 * np.pi * mains_hz * t), [97])
        assert np.abs(out[20:-20]).max() < 0.06


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_resampling_covers_the_stretch_up_to_its_last_sample(rate_hz):
    x = np.ones(round(7 * rate_hz) + 1)
    out = run(Resampler(rate_hz, 0.0), x, [50])
    assert out.size == int((x.size - 1) / rate_hz * RATE_HZ + 1e-3) + 1
    np.testing.assert_allclose(out, 1.0, atol=1e-12)


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=6), st.sampled_from(RATES_HZ), st.sampled_from([0.0, 1.2345, 86400.1])
)
def test_resampling_is_bit_identical_for_any_chunk_sizes(sizes, rate_hz, start_s):
    x = np.random.default_rng(3).standard_normal(1500)
    assert np.array_equal(run(Resampler(rate_hz, start_s), x, sizes), run(Resampler(rate_hz, start_s), x, [x.size]))


def test_outputs_lie_on_the_grid_of_stream_time():
    resampler = Resampler(200.0, 1.001)
    assert resampler.next_index == 126
    ramp = 1.001 + np.arange(400) / 200
    out = run(resampler, ramp, [33])
    np.testing.assert_allclose(out[20:-20], (126 + np.arange(out.size))[20:-20] / RATE_HZ, atol=1e-4)


@pytest.mark.parametrize("rate_hz", [0.0, 50.0, 1e6, float("nan")])
def test_rejects_a_rate_outside_the_ecg_range(rate_hz):
    with pytest.raises(ValueError, match="Hz cannot be analysed"):
        Resampler(rate_hz, 0.0)


@given(st.lists(st.integers(0, 90), max_size=30), st.integers(0, 500))
def test_ring_buffer_keeps_the_last_samples_by_number(sizes, start):
    buffer, everything = RingBuffer(40, start), np.empty(0)
    for size in sizes:
        x = np.arange(everything.size, everything.size + size, dtype=float)
        buffer.extend(x)
        everything = np.concatenate((everything, x))
    assert buffer.end == start + everything.size
    assert buffer.end - buffer.first >= min(40, everything.size)
    assert np.array_equal(buffer[buffer.first : buffer.end], everything[buffer.first - start :])


def test_skipped_samples_are_nan():
    buffer = RingBuffer(10)
    buffer.extend(np.ones(4))
    buffer.skip_to(7)
    buffer.extend(np.ones(2))
    assert np.array_equal(buffer[0:9], [1, 1, 1, 1, np.nan, np.nan, np.nan, 1, 1], equal_nan=True)
    buffer.skip_to(1000)
    assert buffer.end == 1000
    assert np.isnan(buffer[buffer.first : buffer.end]).all()


def test_edge_padded_repeats_the_first_and_last_sample_of_a_stretch():
    buffer = RingBuffer(8)
    buffer.extend(np.arange(6.0))
    assert buffer.edge_padded(2, 5, begin=1).tolist() == [2, 3, 4]
    assert buffer.edge_padded(0, 8, begin=2).tolist() == [2, 2, 2, 3, 4, 5, 5, 5]

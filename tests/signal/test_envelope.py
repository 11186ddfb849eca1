"""The envelope of the QRS band: its definition, and that the ends of a stretch cause no peak."""

import numpy as np
from scipy.signal import oaconvolve

from models.signal.envelope import ENVELOPE_MARGIN, QRS_BAND, SMOOTHING, envelope


def test_is_the_smoothed_magnitude_of_the_band():
    x = np.random.default_rng(1).normal(size=500)
    expected = oaconvolve(np.abs(oaconvolve(x, QRS_BAND, "valid")), SMOOTHING, "valid")
    assert envelope(x).size == x.size - 2 * ENVELOPE_MARGIN
    np.testing.assert_allclose(envelope(x), expected, atol=1e-12)


def test_is_empty_for_too_few_samples():
    assert envelope(np.ones(2 * ENVELOPE_MARGIN)).size == 0
    assert envelope(np.ones(2 * ENVELOPE_MARGIN + 1)).size == 1


def test_removes_offset_and_slow_wander():
    t = np.arange(1000) / 125
    assert envelope(3 + np.sin(2 * np.pi * 0.3 * t)).max() < 1e-3


def test_padding_causes_no_peak():
    """A stretch starts within a wave and is padded with its first sample, so the band-passed signal is high at the start."""
    wave = np.sin(2 * np.pi * 14 * np.arange(125) / 125 + 1)
    margin = np.full(ENVELOPE_MARGIN, 1.0)
    padded = np.concatenate((wave[0] * margin, wave, wave[-1] * margin))
    plain, padding_known = envelope(padded), envelope(padded, ENVELOPE_MARGIN, ENVELOPE_MARGIN)
    assert padding_known[0] > 1.5 * plain[0]
    np.testing.assert_array_equal(padding_known[ENVELOPE_MARGIN:-ENVELOPE_MARGIN], plain[ENVELOPE_MARGIN:-ENVELOPE_MARGIN])

"""The QRS band's envelope: what it is, and that it has no bump where a stretch begins or ends."""

import numpy as np
from scipy.signal import oaconvolve

from models.signal.envelope import ENVELOPE_MARGIN, QRS_BAND, SMOOTHING, envelope


def test_it_is_the_smoothed_magnitude_of_the_band():
    x = np.random.default_rng(1).normal(size=500)
    expected = oaconvolve(np.abs(oaconvolve(x, QRS_BAND, "valid")), SMOOTHING, "valid")
    assert envelope(x).size == x.size - 2 * ENVELOPE_MARGIN
    np.testing.assert_allclose(envelope(x), expected, atol=1e-12)


def test_too_few_samples_have_none():
    assert envelope(np.ones(2 * ENVELOPE_MARGIN)).size == 0
    assert envelope(np.ones(2 * ENVELOPE_MARGIN + 1)).size == 1


def test_neither_offset_nor_slow_wander_shows():
    t = np.arange(1000) / 125
    assert envelope(3 + np.sin(2 * np.pi * 0.3 * t)).max() < 1e-3


def test_what_only_continues_a_stretch_holds_no_bump():
    """A stretch that begins amid a wave: continued by its first sample, the band alone would rise there."""
    wave = np.sin(2 * np.pi * 14 * np.arange(125) / 125 + 1)
    margin = np.full(ENVELOPE_MARGIN, 1.0)
    continued = np.concatenate((wave[0] * margin, wave, wave[-1] * margin))
    plain, outside_told = envelope(continued), envelope(continued, ENVELOPE_MARGIN, ENVELOPE_MARGIN)
    assert outside_told[0] > 1.5 * plain[0]
    np.testing.assert_array_equal(outside_told[ENVELOPE_MARGIN:-ENVELOPE_MARGIN], plain[ENVELOPE_MARGIN:-ENVELOPE_MARGIN])

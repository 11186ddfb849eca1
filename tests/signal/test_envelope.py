"""The QRS band's envelope: what it is, and that it has no bump where a stretch begins or ends."""

import numpy as np
from scipy.signal import oaconvolve

from models.signal.envelope import MARGIN, QRS_BAND, SMOOTHING, envelope


def test_it_is_the_smoothed_magnitude_of_the_band():
    x = np.random.default_rng(1).normal(size=500)
    expected = oaconvolve(np.abs(oaconvolve(x, QRS_BAND, "valid")), SMOOTHING, "valid")
    assert envelope(x).size == x.size - 2 * MARGIN
    np.testing.assert_allclose(envelope(x), expected, atol=1e-12)


def test_too_few_samples_have_none():
    assert envelope(np.ones(2 * MARGIN)).size == 0
    assert envelope(np.ones(2 * MARGIN + 1)).size == 1


def test_neither_offset_nor_slow_wander_shows():
    t = np.arange(1000) / 125
    assert envelope(3 + np.sin(2 * np.pi * 0.3 * t)).max() < 1e-3


def test_what_only_continues_a_stretch_holds_no_bump():
    """A stretch that begins and ends amid a wave: continued by its ends, the band alone would rise there."""
    wave = np.sin(2 * np.pi * 14 * np.arange(125) / 125 + 1)
    continued = np.concatenate((np.full(MARGIN, wave[0]), wave, np.full(MARGIN, wave[-1])))
    rising = np.diff(envelope(continued, MARGIN, MARGIN))
    assert not (rising[:6] > 0.02).any()
    assert envelope(continued, MARGIN, MARGIN)[0] > 1.5 * envelope(continued)[0]

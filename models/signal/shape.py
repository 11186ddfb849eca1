"""The patient's QRS template, and a filter that separates it from the signal between the beats.

In noise, a filter matched to the patient's own complex detects beats that the envelope does not show. The filter is Fisher's
linear discriminant: the inverse covariance of the signal between beats times the template, which is the running mean complex
(a whitened matched filter; Van Trees 1968, section 4.3).

The constants belong to the QRS detector; `models.signal.qrs` states how they were chosen.
"""

from collections import deque
from math import sqrt
from typing import Final, NamedTuple

import numpy as np

from models.signal.filters import RingBuffer, Samples, bandpass, correlation_matrix, median_of, taps_view
from models.signal.latest import Latest
from models.signal.peak import parabola_offset
from models.signal.resample import RATE_HZ

SHAPE_BAND: Final = bandpass(3.0, 30.0, RATE_HZ, half=round(0.128 * RATE_HZ))
"""The band in which complexes are compared: it passes nearly all of a complex and no baseline wander."""

HALF_COMPLEX_SAMPLES: Final = round(0.096 * RATE_HZ)
"""Samples in half of a complex; a wide complex lasts 0.16 s."""

MAX_SHIFT_SAMPLES: Final = 4
"""Largest shift of a complex against the envelope's peak, in samples."""

COMPARE_SAMPLES: Final = HALF_COMPLEX_SAMPLES + MAX_SHIFT_SAMPLES
"""Samples that a comparison needs on each side of a peak."""

GUARD_SAMPLES: Final = round(0.112 * RATE_HZ)
"""The signal between beats starts and ends this many samples from a beat."""

RIDGE_SHARE: Final = 0.05
"""White noise added to the covariance, as a share of the power. It keeps the filter from relying on a frequency that happens to
hold no noise."""

TEMPLATE_WEIGHT: Final = 0.1
"""Weight of the newest complex in the template."""

COVARIANCE_WEIGHT: Final = 0.05
"""Weight of the newest interval in the covariance of the noise."""

MIN_COMPLEXES: Final = 4
"""Number of complexes after which the template is used."""

QRS_CORRELATION: Final = 0.8
"""Correlation at which a peak counts fully as a QRS complex. Beats in muscle noise at 12 dB reach 0.8 and more."""

SAME_SHAPE_CORRELATION: Final = 0.5
"""Correlation with the template from which a complex counts as the same shape. Normal beats in a clean signal reach 0.83 and
more."""

SECOND_SHAPE_MAX_NOISE_RATIO: Final = 0.25
"""Largest noise-to-beat ratio at which a complex of another shape is learnt as a second shape, for ventricular beats. In more
noise the deviating shape may be noise."""

HISTORY_BEATS: Final = 32
"""Beats kept for the median offset of the R peak from the filter's best fit, and longest queue of beats not yet learnt from."""

REFIT_EVERY_BEATS: Final = 4
"""Beats between two computations of the filter."""

MIN_HEIGHT_MV: Final = 0.01
"""Smallest height assumed for the template; it prevents a division by zero."""

BAND_MARGIN: Final = SHAPE_BAND.size // 2
"""Samples that the filter of `SHAPE_BAND` needs on each side."""

CONTEXT_SAMPLES: Final = COMPARE_SAMPLES + BAND_MARGIN
"""Samples on each side of a peak that are needed to locate its R peak and to learn its shape."""

_MAX_NOISE_SAMPLES: Final = round(12.0 * RATE_HZ)
"""Longest signal between two beats from which noise is learnt: the buffer still holds it when the beat is accepted."""

_LAGS: Final = np.abs(np.subtract.outer(np.arange(2 * HALF_COMPLEX_SAMPLES + 1), np.arange(2 * HALF_COMPLEX_SAMPLES + 1)))

_ZERO_PADDING: Final = np.zeros(2 * HALF_COMPLEX_SAMPLES)

_SHIFTS: Final = 2 * MAX_SHIFT_SAMPLES + 1
"""Number of positions of a complex in the samples around a peak."""

_POWER_MATRIX: Final = correlation_matrix(np.ones(2 * HALF_COMPLEX_SAMPLES + 1), _SHIFTS)

_BAND_MATRIX: Final = correlation_matrix(SHAPE_BAND, 2 * COMPARE_SAMPLES + 1)


class Match(NamedTuple):
    """How a peak compares with the known shapes.

    Attributes:
        height: the filter's largest output near the peak; 1 for the template itself.
        correlation: with the more similar of template and second shape; with the template if that is similar enough.
        template_correlation: with the template.
        shift: where the filter's output is largest, in samples from the envelope's peak.
        context: the samples around the peak in `SHAPE_BAND`, `COMPARE_SAMPLES` on each side.
    """

    height: float
    correlation: float
    template_correlation: float
    shift: float
    context: Samples


class BeatSignal(NamedTuple):
    """The signal at an accepted beat, from which `QrsShape` learns.

    Attributes:
        context: the samples around the beat, with `BAND_MARGIN` more at each end.
        interval: the samples between the previous beat and this one, with `BAND_MARGIN` more at each end; empty after a start.
        match: the comparison of the beat with the known shapes, if there was one.
        peak: the R peak, in samples from the envelope's peak.
        noise: the noise-to-beat ratio.
    """

    context: Samples
    interval: Samples
    match: Match | None
    peak: float
    noise: float


class QrsShape:
    """Learns the patient's template and matched filter from accepted beats.

    Beats are queued and learnt from only when a comparison is due; a clean signal needs none.
    """

    def __init__(self) -> None:
        self._pending = deque[BeatSignal](maxlen=HISTORY_BEATS)
        self._count = 0
        self._fitted = False
        """Whether the filter has been computed."""
        self._template: Samples = np.zeros(2 * HALF_COMPLEX_SAMPLES + 1)
        self._signed_height_mv = MIN_HEIGHT_MV
        """Peak-to-peak height of the template; negative if the template points down."""
        self._second: Samples = np.zeros(2 * HALF_COMPLEX_SAMPLES + 1)
        self._energy = self._second_energy = 0.0
        """Sums of squares of template and second shape; 0 while there is no second shape."""
        self._covariance: Samples | None = None
        self._matrix: Samples = np.zeros((2 * COMPARE_SAMPLES + 1, 3 * _SHIFTS))
        """Correlation matrices of filter, template and second shape, side by side, for the samples around a peak."""
        thirds = [self._matrix[:, start : start + _SHIFTS] for start in range(0, 3 * _SHIFTS, _SHIFTS)]
        self._filter_at, self._template_at, self._second_at = (
            taps_view(third, 2 * HALF_COMPLEX_SAMPLES + 1) for third in thirds
        )
        self._r_peak_offsets = Latest[float](HISTORY_BEATS)

    @property
    def height_mv(self) -> float:
        """Peak-to-peak height of the template in `SHAPE_BAND`."""
        return abs(self._signed_height_mv)

    def should_learn(self, noise: float) -> bool:
        """Return whether to learn from a beat at this noise-to-beat ratio."""
        return True

    def add(self, beat: BeatSignal) -> None:
        """Queue an accepted beat for learning."""
        self._pending.append(beat)

    def match(self, context: Samples) -> Match | None:
        """Compare the samples around a peak, `COMPARE_SAMPLES` + `BAND_MARGIN` on each side; None until the filter exists."""
        self._learn_pending()
        return self._compare(band_of(context)) if self._fitted else None

    def classifier_rows(self, context: Samples) -> Samples | None:
        """Return the signal rows of the classifier's input, (2, n); None until the filter exists.

        Row 0 is the signal in `SHAPE_BAND`, divided by the template's height and turned upright; row 1 is the filter's output
        for it. `context` holds n + `BAND_MARGIN` samples; the additional ones come first.
        """
        self._learn_pending()
        if not self._fitted:
            return None
        padded = np.empty(context.size + BAND_MARGIN)
        padded[:-BAND_MARGIN] = context
        padded[-BAND_MARGIN:] = context[-1]
        band = np.correlate(padded, SHAPE_BAND, "valid")
        rows = np.empty((2, band.size))
        np.divide(band, self._signed_height_mv, out=rows[0])
        rows[1] = np.correlate(band, self._filter_at[0], "same")
        return rows

    def r_peak_offset(self, match: Match) -> float | None:
        """Return the median offset of the R peak from the filter's best fit in the latest beats, in samples.

        None if the peak does not have the template's shape, or if too few beats are known.
        """
        self._learn_pending()
        if match.template_correlation < SAME_SHAPE_CORRELATION or len(self._r_peak_offsets) < HISTORY_BEATS // 4:
            return None
        return median_of(self._r_peak_offsets)

    def _learn_pending(self) -> None:
        while self._pending:
            beat = self._pending.popleft()
            match = beat.match
            context = match.context if match else band_of(beat.context)
            if match is None and self._fitted:
                match = self._compare(context)
            if match and match.template_correlation >= SAME_SHAPE_CORRELATION:
                self._r_peak_offsets.append(beat.peak - match.shift)
            self._update_shapes(context, match, beat.noise)
            if beat.interval.size > 2 * (HALF_COMPLEX_SAMPLES + BAND_MARGIN) + 1:
                self._update_covariance(np.correlate(beat.interval, SHAPE_BAND, "valid"))
            if self._covariance is not None and (
                self._count == MIN_COMPLEXES or self._count % REFIT_EVERY_BEATS == 0 or not self._fitted
            ):
                self._refit(self._covariance)

    def _compare(self, context: Samples) -> Match:
        products = context.dot(self._matrix).tolist()
        power = (context * context).dot(_POWER_MATRIX).tolist()
        output = products[:_SHIFTS]
        best = max(output)
        index = output.index(best)
        near = slice(max(index - 2, 0), index + 3)
        template_correlation = correlation = _best_correlation(products[_SHIFTS : 2 * _SHIFTS][near], power[near], self._energy)
        if self._second_energy and template_correlation < QRS_CORRELATION:
            correlation = max(template_correlation, _best_correlation(products[2 * _SHIFTS :], power, self._second_energy))
        return Match(
            max(best, 0.0),
            correlation,
            template_correlation,
            index - MAX_SHIFT_SAMPLES + parabola_offset(output, index),
            context,
        )

    def _update_shapes(self, context: Samples, match: Match | None, noise: float) -> None:
        """Update template or second shape with one beat."""
        shift = round(match.shift) if match else 0
        complex_ = context[MAX_SHIFT_SAMPLES + shift : MAX_SHIFT_SAMPLES + shift + 2 * HALF_COMPLEX_SAMPLES + 1]
        if match and match.template_correlation < SAME_SHAPE_CORRELATION and noise < SECOND_SHAPE_MAX_NOISE_RATIO:
            self._update_second_shape(context)
        self._count += 1
        if self._count == 1 or self._correlate_with_template(complex_) > SAME_SHAPE_CORRELATION:
            weight = max(1 / self._count, TEMPLATE_WEIGHT)
            self._template *= 1 - weight
            self._template += weight * complex_
            self._energy = float(self._template.dot(self._template))
            self._template_at[:] = self._template
            samples_mv = self._template.tolist()
            high, low = max(samples_mv), min(samples_mv)
            self._signed_height_mv = max(high - low, MIN_HEIGHT_MV) * (1 if high >= -low else -1)

    def _correlate_with_template(self, complex_: Samples) -> float:
        """Return the correlation of a complex with the template."""
        return float(complex_.dot(self._template)) / (sqrt(float(complex_.dot(complex_)) * self._energy) + 1e-9)

    def _update_second_shape(self, context: Samples) -> None:
        if self._second_energy:
            index = int(np.correlate(context, self._second, "valid").argmax())
            self._second = 0.8 * self._second + 0.2 * context[index : index + 2 * HALF_COMPLEX_SAMPLES + 1]
        else:
            self._second = context[MAX_SHIFT_SAMPLES : MAX_SHIFT_SAMPLES + 2 * HALF_COMPLEX_SAMPLES + 1].copy()
        self._second_energy = float(self._second.dot(self._second))
        self._second_at[:] = self._second

    def _update_covariance(self, interval: Samples) -> None:
        interval -= np.add.reduce(interval) / interval.size
        lags: Samples = np.correlate(np.concatenate((interval, _ZERO_PADDING)), interval, "valid")
        if self._covariance is None:
            self._covariance = lags / interval.size
        else:
            self._covariance *= 1 - COVARIANCE_WEIGHT
            lags *= COVARIANCE_WEIGHT / interval.size
            self._covariance += lags

    def _refit(self, lags: Samples) -> None:
        if self._count < MIN_COMPLEXES:
            return
        ridged = lags.copy()
        ridged[0] += RIDGE_SHARE * lags[0] + 1e-6
        whitened = np.asarray(np.linalg.solve(ridged[_LAGS], self._template), np.float64)
        self._filter_at[:] = whitened / float(whitened.dot(self._template))
        self._fitted = True


def interval_before(signal: RingBuffer, last: int | None, beat: int, start: int) -> Samples:
    """Return the signal between two beats, plus `BAND_MARGIN` at each end; empty if the last beat is None.

    Args:
        signal: the samples kept.
        last: sample number of the last beat in this stretch.
        beat: sample number of this beat.
        start: sample number of the first sample of the stretch.
    """
    first = beat if last is None else max(last + GUARD_SAMPLES - BAND_MARGIN, beat - _MAX_NOISE_SAMPLES, start)
    return signal[first : beat - GUARD_SAMPLES + BAND_MARGIN + 1]


def band_of(context: Samples) -> Samples:
    """Return the samples around a peak in `SHAPE_BAND`, `COMPARE_SAMPLES` on each side; `context` has `BAND_MARGIN` more."""
    banded: Samples = context.dot(_BAND_MATRIX)
    return banded


def _best_correlation(products: list[float], power: list[float], energy: float) -> float:
    """Return the best normalised correlation of several windows with a shape.

    Args:
        products: of each window with the shape.
        power: sum of squares of each window.
        energy: sum of squares of the shape.
    """
    return max([product / (sqrt(squares * energy) + 1e-9) for product, squares in zip(products, power, strict=True)])

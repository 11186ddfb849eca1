"""Streaming pulse detection in a photoplethysmogram (PPG).

A pulse is the steep rise of the systolic wave. Each peak of the slope is compared only with peaks within 1.5 s on each side.
Neither a motion artefact nor a drop of the amplitude therefore hides pulses for longer than that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

import numpy as np

from models.signal.filters import Fir, RingBuffer, Samples
from models.signal.resample import MAX_RATE_HZ, Resampler, ResamplingTarget

RATE_HZ: Final = 50.0
"""Sampling rate after the resampler; the energy of a pulse ends near 8 Hz."""

PPG: Final = ResamplingTarget(
    name="a PPG", rate_hz=RATE_HZ, cutoff_hz=10.0, half_s=0.2, min_rate_hz=25.0, max_rate_hz=MAX_RATE_HZ
)
"""The band ends at 10 Hz: below half of 25 Hz, the lowest rate of cameras and wristbands."""


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def slope_taps(sigma_s: float) -> Samples:
    """Return a slope filter, the derivative of a Gaussian; it measures the slope over about four sigma."""
    half = ceil(3 * sigma_s * RATE_HZ)
    t = np.arange(-half, half + 1) / RATE_HZ
    taps = -t * np.exp(-(t**2) / (2 * sigma_s**2))
    normed: Samples = taps / np.abs(taps).sum()
    return normed


RISE_TAPS: Final = slope_taps(0.09)
"""Slope filter that detects pulses. It is as long as the systolic rise, so its output is lower for dicrotic waves and noise."""

UPSTROKE_TAPS: Final = slope_taps(0.05)
"""Slope filter that times pulses at their steepest point. A shorter filter follows camera noise, a longer one the shape of the
wave. The median error of PP intervals is 6.1 ms (foot by tangents: 7.1 ms; largest acceleration: 6.8 ms)."""

MIN_PULSE_SPACING_SAMPLES: Final = _samples(0.24)
"""Smallest distance between two pulses: a rate of 250/min."""

COMPARE_SAMPLES: Final = _samples(1.5)
"""A peak is compared with the peaks within this distance on each side; at 40/min or more there is a pulse in it."""

DICROTIC_SAMPLES: Final = _samples(0.6)
"""Longest time from a systolic rise to its dicrotic rise. A peak is also compared with the peaks within this time before it,
because below 40/min no other pulse is near."""

MIN_HEIGHT_SHARE: Final = 0.3
"""Smallest height of a pulse, as a share of the highest peak before it or the highest peak after it, whichever is lower. On
recordings, shares from 0.25 to 0.42 give the same F1. A lower share accepts dicrotic waves and noise; a higher one misses the
weak pulses of early beats, as in AF (simulated: 5.7 % missed at 0.25, 10 % at 0.42)."""

LOCATE_SAMPLES: Final = _samples(0.12)
"""Largest distance of the steepest point from the peak of the `RISE_TAPS` output."""

HOP_SAMPLES: Final = _samples(1.0)
"""Peaks are accepted or rejected as pulses at whole seconds since the start of the stretch, whatever the chunk sizes."""

POLARITY_SAMPLES: Final = _samples(4.0)
"""Length of the signal from which the polarity is determined: two pulses at 30/min."""

VOTE_WEIGHT: Final = 1 / 15
"""Weight of the newest polarity vote, one per second: an artefact must last some 15 s to flip the polarity."""

MIN_FLIP_VOTE: Final = 0.2
"""Smallest mean of the votes that flips the polarity; a clean pulse gives votes of 0.6 to 1."""

BUFFER_S: Final = 15.0
"""Length of the signal kept: a window of the quality model, and pulses that are still pending."""

ROUNDING_SHARE: Final = 1e-9
"""Rounding error of the filters for a constant signal, as a share of its level; a slope up to it is not a pulse."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A detected pulse.

    Attributes:
        t_s: steepest point of the systolic rise, in seconds since the first sample of the stream, without filter delay.
        after_gap: whether this is the first pulse after a start, a gap or a polarity flip, so that no interval ends at it.
    """

    t_s: float
    after_gap: bool


class PulseDetector:
    """Detects pulses in 50 Hz samples, one gap-free stretch at a time; the polarity is kept across gaps.

    The rise of the systolic wave is steeper and shorter than its fall, so the third moment of the slope gives the polarity.
    Reflected light (a camera, most watches) decreases in systole; absorbed light (PLETH) increases.
    """

    def __init__(self) -> None:
        self._polarity = self._mean_vote = 0.0
        self.start(0)

    def start(self, index: int) -> None:
        """Start a gap-free stretch whose first sample has number `index`."""
        self._rise_fir, self._upstroke_fir = Fir(RISE_TAPS), Fir(UPSTROKE_TAPS)
        keep = POLARITY_SAMPLES + 4 * COMPARE_SAMPLES
        self._rise, self._upstroke = RingBuffer(keep, index), RingBuffer(keep, index)
        self._stretch_start = self._position = index
        self._next_hop = index + HOP_SAMPLES
        self._last_pulse: int | None = None
        self._first_level: float | None = None

    @property
    def horizon(self) -> int:
        """Sample number before which every pulse has been reported."""
        return max(self._position - LOCATE_SAMPLES, self._stretch_start)

    def push(self, x: Samples) -> list[tuple[float, bool]]:
        """Return the pulses that can now be reported: sample number and `Pulse.after_gap` of each."""
        pulses: list[tuple[float, bool]] = []
        if self._first_level is None and x.size:
            self._first_level = abs(float(x[0]))
        for start in range(0, x.size, HOP_SAMPLES):
            hop = x[start : start + HOP_SAMPLES]
            self._rise.extend(self._rise_fir.push(hop))
            self._upstroke.extend(self._upstroke_fir.push(hop))
            while self._rise.end >= self._next_hop and self._upstroke.end >= self._next_hop:
                pulses += self._process_hop(self._next_hop)
                self._next_hop += HOP_SAMPLES
        return pulses

    def finish(self) -> list[tuple[float, bool]]:
        """End the stretch and return the remaining pulses."""
        self._rise.extend(self._rise_fir.finish())
        self._upstroke.extend(self._upstroke_fir.finish())
        pulses: list[tuple[float, bool]] = []
        while self._rise.end >= self._next_hop:
            pulses += self._process_hop(self._next_hop)
            self._next_hop += HOP_SAMPLES
        if not self._polarity and self._rise.end - self._stretch_start >= HOP_SAMPLES:
            self._update_polarity(self._rise.end)
        return pulses + list(self._decide(self._rise.end, self._rise.end))

    def _process_hop(self, now: int) -> Iterator[tuple[float, bool]]:
        if now - self._stretch_start >= POLARITY_SAMPLES:
            self._update_polarity(now)
        if self._polarity:
            yield from self._decide(now - COMPARE_SAMPLES, now)

    def _update_polarity(self, now: int) -> None:
        """Update the polarity with the slope of the last four seconds."""
        slope = self._upstroke[max(now - POLARITY_SAMPLES, self._stretch_start) : now]
        slope = slope - slope.mean()
        power = float((slope**2).mean())
        vote = float(np.clip((slope**3).mean() / power**1.5, -1.0, 1.0)) if power > 0 else 0.0
        if not self._polarity:
            self._polarity, self._mean_vote = (-1.0 if vote < 0 else 1.0), vote
            return
        self._mean_vote += VOTE_WEIGHT * (vote - self._mean_vote)
        if self._mean_vote * self._polarity < -MIN_FLIP_VOTE:
            self._polarity = -self._polarity
            self._last_pulse = None

    def _decide(self, end: int, now: int) -> Iterator[tuple[float, bool]]:
        """Yield the pulses among the peaks before sample `end`; the slope is known up to `now`."""
        if end <= self._position:
            return
        first = max(self._position - 1 - COMPARE_SAMPLES, self._stretch_start)
        rise = self._polarity * self._rise[first:now]
        rising = rise[1:] > rise[:-1]
        for at in (np.flatnonzero(rising[:-1] & ~rising[1:]) + 1).tolist():
            top = at + first
            close = self._last_pulse is not None and top - self._last_pulse < MIN_PULSE_SPACING_SAMPLES
            if self._position <= top < end and not close and self._is_pulse(rise, at, first, now):
                yield self._locate(top, now), self._last_pulse is None
                self._last_pulse = top
        self._position = end

    def _is_pulse(self, rise: Samples, at: int, first: int, now: int) -> bool:
        """Return whether the peak `rise[at]` is high enough; `rise` starts at sample `first`, and ends at `now`."""
        height, spacing = rise[at], MIN_PULSE_SPACING_SAMPLES
        if (
            height <= ROUNDING_SHARE * (self._first_level or 0.0)
            or height < rise[max(at - spacing, 0) : at + spacing + 1].max()
        ):
            return False
        if height < MIN_HEIGHT_SHARE * rise[max(at - DICROTIC_SAMPLES, 0) : at + 1].max():
            return False
        sides = (rise[max(at - COMPARE_SAMPLES, 0) : at + 1].max(), rise[at : at + COMPARE_SAMPLES + 1].max())
        top = at + first
        complete = (top - COMPARE_SAMPLES >= self._stretch_start, top + COMPARE_SAMPLES < now)
        known = [side for side, is_complete in zip(sides, complete, strict=True) if is_complete]
        return bool(height >= MIN_HEIGHT_SHARE * (min(known) if known else max(sides)))

    def _locate(self, top: int, now: int) -> float:
        """Return the steepest point of the upstroke near the peak, interpolated between samples by a parabola."""
        first = max(top - LOCATE_SAMPLES, self._stretch_start)
        slope = self._polarity * self._upstroke[first : min(top + LOCATE_SAMPLES + 1, now)]
        at = int(slope.argmax())
        shift = 0.0
        if 0 < at < slope.size - 1:
            before, peak, after = slope[at - 1 : at + 2].tolist()
            shift = 0.5 * (before - after) / (before - 2 * peak + after) if peak > min(before, after) else 0.0
        return first + at + shift


class PpgChain:
    """Resamples a PPG to 50 Hz, detects its pulses and keeps the last 15 s. The result is bit-identical for any chunk sizes.

    A pulse is reported within 3 s. The pulses of the first four seconds, from which the polarity is determined, are reported
    together.
    """

    def __init__(self, rate_hz: float) -> None:
        """Start a stream.

        Raises:
            ValueError: the rate is outside 25 to 4000 Hz.
        """
        self._rate_hz = rate_hz
        self._origin_s = 0.0
        self._count = 0
        self._resampler: Resampler | None = Resampler(rate_hz, 0.0, PPG)
        self._detector = PulseDetector()
        self._buffer = RingBuffer(round(BUFFER_S * RATE_HZ))

    @property
    def end_s(self) -> float:
        """Stream time right after the last sample received."""
        return self._origin_s + self._count / self._rate_hz

    @property
    def end(self) -> int:
        """Sample number at 50 Hz up to which the output of `window` is final."""
        return self._buffer.end if self._resampler else max(self._buffer.end, floor(self.end_s * RATE_HZ))

    @property
    def horizon_s(self) -> float:
        """Stream time before which every pulse has been reported."""
        return self._detector.horizon / RATE_HZ if self._resampler else self.end_s

    def push(self, x: Samples) -> list[Pulse]:
        """Process consecutive samples in any unit, NaN where one is missing; return the pulses that can now be reported."""
        pulses: list[Pulse] = []
        for part in self._split_chunk(x):
            if np.isnan(part[0]):
                pulses += self.finish()
                self._count += part.size
            else:
                pulses += self._extend(part)
        return pulses

    def gap(self, seconds: float) -> list[Pulse]:
        """Skip a gap of `seconds` (not negative) and return the pulses before it that were still pending."""
        pulses = self.finish()
        self._origin_s = self.end_s + seconds
        self._count = 0
        return pulses

    def finish(self) -> list[Pulse]:
        """End the signal and return the pulses that were still pending."""
        if self._resampler is None:
            return []
        x = self._resampler.finish()
        self._buffer.extend(x)
        pulses = _to_pulses([*self._detector.push(x), *self._detector.finish()])
        self._resampler = None
        return pulses

    def window(self, end: int, size: int) -> Samples:
        """Return the `size` samples at 50 Hz before sample number `end`; NaN where they are missing or no longer kept."""
        out = np.full(size, np.nan)
        first = max(end - size, self._buffer.first)
        known = self._buffer[first:end]
        if known.size:
            at = first - (end - size)
            out[at : at + known.size] = known
        return out

    def _split_chunk(self, x: Samples) -> Iterator[Samples]:
        """Split a chunk into parts that are all valid or all NaN, and short enough for the buffer."""
        valid = np.isfinite(x)
        edges = () if valid.all() else np.flatnonzero(valid[1:] != valid[:-1]) + 1
        longest = ceil(self._rate_hz)
        for run in np.split(np.where(valid, x, np.nan), edges):
            for start in range(0, run.size, longest):
                yield run[start : start + longest]

    def _extend(self, x: Samples) -> list[Pulse]:
        if self._resampler is None:
            self._resampler = Resampler(self._rate_hz, self.end_s, PPG)
            self._buffer.skip_to(self._resampler.next_index)
            self._detector.start(self._resampler.next_index)
        self._count += x.size
        resampled = self._resampler.push(x)
        self._buffer.extend(resampled)
        return _to_pulses(self._detector.push(resampled))


def _to_pulses(pulses: list[tuple[float, bool]]) -> list[Pulse]:
    return [Pulse(index / RATE_HZ, after_gap) for index, after_gap in pulses]

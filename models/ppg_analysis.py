"""One PPG stream's analysis: samples in, pulses, their intervals and findings out.

Everything is decided second by second of the stream's time, once all that a decision looks at is there. So the result is the
same for any chunking, byte for byte. A second is judged some six seconds after it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from models.findings import Finding
from models.inference.ppg_quality import FLAT, MIN_KNOWN, WINDOW
from models.rules.af import AfRule, RhythmModel
from models.rules.rates import RateRule
from models.signal.ppg import RATE_HZ, PpgChain, Pulse

SECOND: Final = round(RATE_HZ)
_AHEAD: Final = (WINDOW + SECOND) // 2
"""Samples from a second's beginning to the end of the window that it is the middle of."""

INCONCLUSIVE_S: Final = 60
"""A signal that is bad for so long says nothing of the rhythm: the AF model's window is as long."""

INCONCLUSIVE_GOOD: Final = 6
"""Seconds of those that may seem good: fewer than AF can be found in (24 intervals)."""

CONCLUSIVE_S: Final = 5
"""Good seconds in a row that end it."""

LONGEST_BRIDGED_S: Final = 30
"""A longer bad stretch ends an episode of irregular pulse (as a gap does, `models.rules.af`)."""

LONGEST_RATE_BRIDGED_S: Final = 10
"""A longer bad stretch ends an episode of fast or slow pulse: its persistence time."""


class QualityModel(Protocol):
    """A model that tells good signal from bad: `models.inference.ppg_quality.PpgQuality`."""

    name: str
    version: str
    threshold: float

    def probability(self, ppg: NDArray[np.float64]) -> float:
        """The probability that the pulses of a window (500,) at 50 Hz can be trusted."""
        ...


@dataclass(frozen=True, slots=True)
class JudgedPulse:
    """A pulse in stream seconds; `good` where the signal around it is.

    `pp_s` is the interval that ends at it, None where there is none that counts: after a gap or a change of polarity
    (`after_gap`), after a bad stretch and in it.
    """

    t_s: float
    pp_s: float | None
    good: bool
    after_gap: bool


@dataclass(frozen=True, slots=True)
class PpgStep:
    """What a chunk of signal brought: pulses and findings in order, and which of the seconds judged by it are good.

    The seconds of all steps together are those of the stream, from its first on.
    """

    pulses: tuple[JudgedPulse, ...] = ()
    findings: tuple[Finding, ...] = ()
    good: tuple[bool, ...] = ()


class PpgAnalysis:
    """Signal chain, quality and rules of one PPG stream."""

    def __init__(
        self, rate_hz: float, limits: Limits, rr_model: RhythmModel | None = None, quality: QualityModel | None = None
    ) -> None:
        """Without a quality model every second counts as good that has signal.

        Raises:
            ValueError: the rate is none of a PPG (25 to 500 Hz).
        """
        self.chain = PpgChain(rate_hz)
        self._piece = ceil(rate_hz)
        self._quality = quality
        self._af = AfRule(limits, rr_model, "irregular_pulse") if rr_model else None
        self._rates = (RateRule("tachycardia", limits), RateRule("bradycardia", limits))
        self._pending = deque[Pulse]()
        self._second = 0
        self._last_s: float | None = None
        self._bad_s = 0
        self._verdict = _Verdict(f"{quality.name}@{quality.version}" if quality else "rule:ppg_quality")

    def push(self, x: NDArray[np.float64]) -> PpgStep:
        """Consecutive samples in any unit; NaN for one that is missing."""
        step = _Collected()
        for at in range(0, x.size, self._piece):
            self._pending += self.chain.push(x[at : at + self._piece])
            self._advance(step)
        return step.told()

    def gap(self, seconds: float) -> PpgStep:
        """Nothing came for so long: what is pending is decided, and no interval is joined across."""
        step = _Collected()
        self._pending += self.chain.gap(seconds)
        self._advance(step)
        return step.told()

    def finish(self) -> PpgStep:
        """No more will come: what is pending is decided, and what goes on is closed."""
        step = _Collected()
        self._pending += self.chain.finish()
        end_s = self.chain.end_s
        while self._second < end_s:
            self._judge(step)
        for rule in self._rates:
            step.findings += rule.gap(end_s)
        if self._af:
            step.findings += self._af.gap(end_s, float("inf"))
        step.findings += self._verdict.end(end_s)
        return step.told()

    def _advance(self, step: "_Collected") -> None:
        """Judge every second that all is known of."""
        end, horizon_s = self.chain.end, self.chain.horizon_s
        while self._second * SECOND + _AHEAD <= end and self._second + 1 <= horizon_s:
            self._judge(step)

    def _judge(self, step: "_Collected") -> None:
        second = self._second
        self._second += 1
        window = self.chain.window(second * SECOND + _AHEAD, WINDOW)
        reason = self._reason(window)
        step.good.append(reason is None)
        step.findings += self._after_bad(second, reason is None)
        step.findings += self._verdict.second(second, reason)
        while self._pending and self._pending[0].t_s < second + 1:
            pulse = self._pending.popleft()
            step.pulses.append(self._told(pulse, reason is None))
            if reason is None:
                step.findings += self._by_rules(step.pulses[-1])
        if reason is not None:
            self._last_s = None

    def _reason(self, window: NDArray[np.float64]) -> str | None:
        """Why the second in the middle of a window is bad; None where it is good."""
        middle = (WINDOW - SECOND) // 2
        known = np.isfinite(window)
        if not known[middle : middle + SECOND].any() or known.mean() < MIN_KNOWN:
            return "gaps"
        if np.ptp(window[known]) <= FLAT * np.abs(window[known]).max():
            return "lead_off"
        if self._quality is None or self._quality.probability(window) >= self._quality.threshold:
            return None
        return "noise" if known.all() else "gaps"

    def _told(self, pulse: Pulse, good: bool) -> JudgedPulse:
        joined = good and self._last_s is not None and not pulse.after_gap
        pp_s = pulse.t_s - self._last_s if joined and self._last_s is not None else None
        self._last_s = pulse.t_s if good else None
        return JudgedPulse(pulse.t_s, pp_s, good, pulse.after_gap)

    def _by_rules(self, pulse: JudgedPulse) -> Iterator[Finding]:
        if pulse.pp_s is not None:
            for rule in self._rates:
                yield from rule.beat(pulse.t_s, pulse.pp_s)
        if self._af:
            yield from self._af.beat(pulse.t_s, pulse.pp_s)

    def _after_bad(self, second: int, good: bool) -> Iterator[Finding]:
        """Ends episodes that a bad stretch has made doubtful."""
        self._bad_s = 0 if good else self._bad_s + 1
        since_s = float(second + 1 - self._bad_s)
        if self._bad_s == LONGEST_RATE_BRIDGED_S + 1:
            for rule in self._rates:
                yield from rule.gap(since_s)
        if self._af and self._bad_s == LONGEST_BRIDGED_S + 1:
            yield from self._af.gap(since_s, float(self._bad_s))


class _Verdict:
    """A signal that says nothing for a minute, and why."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._reasons = deque[str | None](maxlen=INCONCLUSIVE_S)
        self._good_s = 0
        self._onset_s: float | None = None
        self._reason = "noise"

    def second(self, second: int, reason: str | None) -> Iterator[Finding]:
        """One second of signal: good, or why not."""
        self._reasons.append(reason)
        self._good_s = self._good_s + 1 if reason is None else 0
        if self._onset_s is not None:
            if self._good_s >= CONCLUSIVE_S:
                yield from self.end(second + 1.0 - CONCLUSIVE_S)
            return
        bad = [reason for reason in self._reasons if reason is not None]
        if reason is not None and len(bad) >= INCONCLUSIVE_S - INCONCLUSIVE_GOOD:
            first = next(place for place, reason in enumerate(self._reasons) if reason is not None)
            self._onset_s = float(second + 1 - len(self._reasons) + first)
            self._reason = max(sorted(set(bad)), key=bad.count)
            if second + 1 - self._onset_s >= INCONCLUSIVE_S - INCONCLUSIVE_GOOD:
                yield self._finding(None)

    def end(self, t_s: float) -> Iterator[Finding]:
        """The signal says something again, or ends."""
        if self._onset_s is not None:
            yield self._finding(max(t_s, self._onset_s))
        self._onset_s = None
        self._reasons.clear()

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {"limit_s": float(INCONCLUSIVE_S)}
        return Finding("ppg_inconclusive", self._onset_s, end_s, self._source, None, measured, self._reason)


class _Collected:
    """What a step is put together from."""

    def __init__(self) -> None:
        self.pulses: list[JudgedPulse] = []
        self.findings: list[Finding] = []
        self.good: list[bool] = []

    def told(self) -> PpgStep:
        return PpgStep(tuple(self.pulses), tuple(self.findings), tuple(self.good))

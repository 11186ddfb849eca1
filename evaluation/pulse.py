"""How well pulses are found in a PPG: beside the heart beats of a chest strap or an ECG recorded at the same time.

Reference beats are shifted by one number a recording, the median time from a beat to its pulse (and, where the strap has a
clock of its own, the clocks' offset, found by the shift with the most pulses beside a beat). A pulse within 150 ms of where one
is expected is that pulse (the window of ANSI/AAMI EC57). Nothing is asked for within 0.3 s of either end or a gap. Percentages
are 0–100, errors are in ms.

The figures at the top are of the seconds that the quality model calls good: what the agent uses. `coverage` is their share;
`all_time` has the same figures without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from captures.ppg import PpgRecording, find_ppg, read_ppg
from captures.recording import RecordingError
from config.limits import DEFAULT_LIMITS
from evaluation.pulse_reference import aligned, compared
from models.inference.ppg_quality import PpgQuality
from models.inference.rr_af import RrAf
from models.inference.session import ModelError
from models.ppg_analysis import AnalysedPulse, PpgAnalysis, QualityModel
from models.rules.af import RhythmModel
from models.signal.filters import bandpass
from models.signal.ppg import Pulse

Change = Callable[[PpgRecording], PpgRecording]

PACKET_S: Final = 0.2
"""What one Bluetooth packet of a wrist sensor carries, and what is lost with it."""

DROP_SEED: Final = 20_261

_STRIDE: Final = 4
"""Pulses between two windows of the AF model."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pulses of a recording: matched with the reference, missed, false; and the errors of PP intervals."""

    matched: int
    missed: int
    false: int
    pp_error_ms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Score:
    """Counts in good seconds and in all, which seconds are good, and the AF model's verdicts."""

    good: Counts
    all_time: Counts
    seconds: NDArray[np.bool_]
    af: dict[str, Any]


def evaluate_pulse(
    data: Path,
    model: QualityModel | None = None,
    change: Change | None = None,
    held_out: Mapping[str, QualityModel] | None = None,
    rhythm: RhythmModel | None = None,
) -> dict[str, Any]:
    """Every figure of `pulsegate evaluate pulse`, as one object.

    Args:
        data: a folder with recordings anywhere below it: `PPG.csv` beside `RR.txt`, or `*Signals.csv[.gz]` with PLETH and II.
        model: of the signal's quality; by default the released one.
        change: what is done to each recording first, such as `dropped(0.05)` or `at_rate(128.0)`.
        held_out: in cross-validation, the model of each recording by its name, instead of `model`.
        rhythm: the model that tells AF from intervals; by default the released one.

    Returns:
        `pulse_f1`, `pp_error_ms`, `coverage`, `all_time`, `af`, `records`, and `skipped`: file names and why.
    """
    quality = model or (None if held_out else _released(PpgQuality.load_release))
    judged = bool(quality or held_out)
    rhythm = rhythm or _released(RrAf.load_release)
    records: dict[str, dict[str, Any]] = {}
    scores: list[_Score] = []
    skipped: dict[str, str] = {}
    for path in find_ppg(data):
        try:
            recording = change(read_ppg(path)) if change else read_ppg(path)
            score = _scored(recording, held_out[recording.name] if held_out else quality, rhythm)
        except (RecordingError, ValueError) as error:
            skipped[str(path.relative_to(data))] = str(error)
            continue
        scores.append(score)
        name = recording.name if recording.name not in records else str(path.relative_to(data))
        records[name] = _told([score], judged) | {"af": score.af, "notes": list(recording.notes)}
    return {
        **_told(scores, judged),
        "af": _agreement([score.af for score in scores]),
        "model": f"{quality.name}@{quality.version}" if quality else None,
        "records": records,
        "skipped": skipped,
    }


def dropped(share: float) -> Change:
    """Packets of 0.2 s are lost, so many of all (0 to 1), always the same ones of a recording."""

    def change(recording: PpgRecording) -> PpgRecording:
        rng = np.random.default_rng(DROP_SEED)
        packet = np.arange(recording.ppg.size) // round(PACKET_S * recording.rate_hz)
        lost = rng.random(int(packet[-1]) + 1) < share
        return _with(recording, np.where(lost[packet], np.nan, recording.ppg), recording.rate_hz)

    return change


def at_rate(rate_hz: float) -> Change:
    """The same signal at another sampling rate, by straight lines between the samples."""

    def change(recording: PpgRecording) -> PpgRecording:
        at = np.arange(int(recording.ppg.size / recording.rate_hz * rate_hz)) / rate_hz
        return _with(recording, np.interp(at, np.arange(recording.ppg.size) / recording.rate_hz, recording.ppg), rate_hz)

    return change


def noisy(snr_db: float) -> Change:
    """Random movement between 0.5 and 5 Hz is added, its power so many dB below that of the signal in the same band."""

    def change(recording: PpgRecording) -> PpgRecording:
        noise = np.random.default_rng(DROP_SEED).normal(size=recording.ppg.size)
        known = np.isfinite(recording.ppg)
        if known.sum() < 2:
            return recording
        filled = np.interp(np.arange(known.size), np.flatnonzero(known), recording.ppg[known])
        signal, movement = (_in_band(x, recording.rate_hz) for x in (filled, noise))
        scale = float(np.std(signal)) * 10 ** (-snr_db / 20) / float(np.std(movement))
        return _with(recording, recording.ppg + scale * movement, recording.rate_hz)

    return change


def _in_band(x: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    taps = bandpass(0.5, 5.0, rate_hz, half=round(2 * rate_hz))
    return np.convolve(np.pad(x, taps.size // 2, mode="edge"), taps, "valid")


def _with(recording: PpgRecording, ppg: NDArray[np.float64], rate_hz: float) -> PpgRecording:
    return PpgRecording(recording.name, ppg, rate_hz, recording.beats_s, recording.same_clock, recording.notes)


def _released(load: Callable[[], Any]) -> Any:
    """The released model, or None: then the rules speak alone, and the output says so."""
    try:
        return load()
    except ModelError:
        return None


def _scored(recording: PpgRecording, quality: QualityModel | None, rhythm: RhythmModel | None) -> "_Score":
    analysis = PpgAnalysis(recording.rate_hz, DEFAULT_LIMITS, rhythm, quality)
    steps = (analysis.push(recording.ppg), analysis.finish())
    pulses = [pulse for step in steps for pulse in step.pulses]
    seconds = np.array([good for step in steps for good in step.good])
    expected_s = aligned(recording.beats_s, np.array([pulse.t_s for pulse in pulses]), recording.same_clock)
    found = [Pulse(pulse.t_s, pulse.after_gap) for pulse in pulses]
    comparison = compared(expected_s, found, recording.ppg, recording.rate_hz, np.empty(0))
    joined_s = [pulse.t_s for pulse in pulses if pulse.pp_s is not None]
    pp_ms = 1e3 * comparison.pp[:, 1]
    return _Score(
        Counts(
            int(np.sum(_in_good(comparison.matched_s, seconds))),
            int(np.sum(_in_good(comparison.missed_s, seconds))),
            int(np.sum(_in_good(comparison.false_s, seconds))),
            pp_ms[np.isin(comparison.pp[:, 0], joined_s)],
        ),
        Counts(comparison.matched_s.size, comparison.missed_s.size, comparison.false_s.size, pp_ms),
        seconds,
        _verdicts(pulses, expected_s, rhythm) | {"findings": sum(len(step.findings) for step in steps)},
    )


def _in_good(times_s: NDArray[np.float64], seconds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(seconds[np.clip(times_s.astype(np.int64), 0, seconds.size - 1)])


def _told(scores: Sequence["_Score"], judged: bool) -> dict[str, Any]:
    seconds = np.concatenate([score.seconds for score in scores]) if scores else np.empty(0)
    everything = _figures([score.all_time for score in scores])
    if not judged:
        return everything | {"coverage": None, "all_time": everything}
    coverage = _percent(float(np.sum(seconds)), seconds.size)
    return _figures([score.good for score in scores]) | {"coverage": coverage, "all_time": everything}


def _figures(counts: Sequence[Counts]) -> dict[str, Any]:
    """Gross: summed over recordings."""
    matched, missed, false = (sum(getattr(count, name) for count in counts) for name in ("matched", "missed", "false"))
    errors = np.concatenate([count.pp_error_ms for count in counts]) if counts else np.empty(0)
    quantiles = {"median": 50, "p95": 95}
    return {
        "pulse_f1": _percent(2 * matched, 2 * matched + missed + false),
        "se": _percent(matched, matched + missed),
        "ppv": _percent(matched, matched + false),
        "pp_error_ms": {name: float(np.percentile(errors, at)) if errors.size else None for name, at in quantiles.items()},
        "matched": matched,
        "missed": missed,
        "false": false,
    }


def _verdicts(pulses: Sequence[AnalysedPulse], expected_s: NDArray[np.float64], rhythm: RhythmModel | None) -> dict[str, Any]:
    """The AF model's probability by the pulses and by the reference's beats: mean over windows, None where it says nothing."""
    pp_s = [pulse.pp_s for pulse in pulses if pulse.good]
    rr_s: list[float | None] = [None, *np.diff(expected_s).tolist()]
    return {"by_pulses": _mean_probability(pp_s, rhythm), "by_reference": _mean_probability(rr_s, rhythm)}


def _mean_probability(intervals: Sequence[float | None], rhythm: RhythmModel | None) -> float | None:
    if rhythm is None:
        return None
    found: list[float] = []
    for end in range(min(rhythm.window, len(intervals)), len(intervals) + 1, _STRIDE):
        part = intervals[max(end - rhythm.window, 0) : end]
        rr_s, valid = np.array([rr or 0.0 for rr in part]), np.array([rr is not None for rr in part])
        if rr_s.size and rhythm.is_conclusive(rr_s, valid):
            found.append(rhythm.probability(rr_s, valid))
    return float(np.mean(found)) if found else None


def _agreement(verdicts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the recordings that both can judge, how many both call AF or both do not."""
    known = [
        (v["by_pulses"], v["by_reference"]) for v in verdicts if v["by_pulses"] is not None and v["by_reference"] is not None
    ]
    same = sum((one >= 0.5) == (other >= 0.5) for one, other in known)
    return {
        "records": len(verdicts),
        "judged": len(known),
        "same_verdict": _percent(same, len(known)),
        "called_by_pulses": sum(one >= 0.5 for one, _ in known),
        "called_by_reference": sum(other >= 0.5 for _, other in known),
    }


def _percent(part: float, whole: float) -> float | None:
    return 100.0 * part / whole if whole else None

"""`pulsegate evaluate pulse`: scores pulse detection in a PPG against heart beats of a chest strap or ECG recorded with it.

The reference beats of a recording are shifted by one number: the median time from a beat to its pulse. Where the strap has a
clock of its own, the shift includes the offset of the clocks, found as the shift with the most pulses close to a beat. A pulse
within 150 ms of an expected pulse matches it (the window of ANSI/AAMI EC57). The first and last 0.3 s of a recording, and 0.3 s
beside a gap, do not count. Percentages are 0–100, errors are in ms.

The main figures cover the seconds that the quality model accepts, as in the agent. `coverage` is their share; `all_time`
has the same figures over all seconds.
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
from evaluation.pulse_reference import align_beats, compare_pulses
from models.inference.ppg_quality import PpgQuality
from models.inference.rr_af import RrAf
from models.inference.session import ModelError
from models.ppg_analysis import AnalysedPulse, PpgAnalysis, QualityModel
from models.rules.af import RhythmModel
from models.signal.filters import bandpass
from models.signal.ppg import Pulse

Change = Callable[[PpgRecording], PpgRecording]

PACKET_S: Final = 0.2
"""Length of the signal in one Bluetooth packet of a wrist sensor."""

SEED: Final = 20_261
"""Seed of the lost packets and of the movement."""

_STRIDE: Final = 4
"""Step between two windows of the AF model, in pulses."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of pulses that match the reference, are missed, or are false; and the errors of PP intervals."""

    matched: int
    missed: int
    false: int
    pp_error_ms: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Score:
    """Counts in good seconds and in all seconds, whether each second is good, and the AF model's probabilities."""

    good: Counts
    all_time: Counts
    is_good: NDArray[np.bool_]
    af: dict[str, Any]


def evaluate_pulse(
    data: Path,
    model: QualityModel | None = None,
    change: Change | None = None,
    held_out: Mapping[str, QualityModel] | None = None,
    rhythm: RhythmModel | None = None,
) -> dict[str, Any]:
    """Returns the report of `pulsegate evaluate pulse`.

    Args:
        data: a folder with recordings anywhere below it: `PPG.csv` beside `RR.txt`, or `*Signals.csv[.gz]` with PLETH and II.
        model: the quality model; the released one by default.
        change: applied to each recording first, such as `drop_packets(0.05)` or `resample_to(128.0)`.
        held_out: in cross-validation, the model of each recording by its name, instead of `model`.
        rhythm: the AF model; the released one by default.

    Returns:
        `pulse_f1`, `pp_error_ms`, `coverage`, `all_time`, `af`, `records`, and `skipped`: file names and reasons.
    """
    quality = model or (None if held_out else _released(PpgQuality.load_release))
    has_quality = bool(quality or held_out)
    rhythm = rhythm or _released(RrAf.load_release)
    records: dict[str, dict[str, Any]] = {}
    scores: list[_Score] = []
    skipped: dict[str, str] = {}
    for path in find_ppg(data):
        try:
            recording = change(read_ppg(path)) if change else read_ppg(path)
            score = _score_recording(recording, held_out[recording.name] if held_out else quality, rhythm)
        except (RecordingError, ValueError) as error:
            skipped[str(path.relative_to(data))] = str(error)
            continue
        scores.append(score)
        name = recording.name if recording.name not in records else str(path.relative_to(data))
        records[name] = _report([score], has_quality) | {"af": score.af, "notes": list(recording.notes)}
    return {
        **_report(scores, has_quality),
        "af": _agreement([score.af for score in scores]),
        "model": f"{quality.name}@{quality.version}" if quality else None,
        "records": records,
        "skipped": skipped,
    }


def drop_packets(share: float) -> Change:
    """Returns a change that drops this share (0 to 1) of the packets of 0.2 s, always the same packets of a recording."""

    def change(recording: PpgRecording) -> PpgRecording:
        rng = np.random.default_rng(SEED)
        packet = np.arange(recording.ppg.size) // round(PACKET_S * recording.rate_hz)
        lost = rng.random(int(packet[-1]) + 1) < share
        return _replace_signal(recording, np.where(lost[packet], np.nan, recording.ppg), recording.rate_hz)

    return change


def resample_to(rate_hz: float) -> Change:
    """Returns a change to another sampling rate by linear interpolation."""

    def change(recording: PpgRecording) -> PpgRecording:
        at = np.arange(int(recording.ppg.size / recording.rate_hz * rate_hz)) / rate_hz
        return _replace_signal(
            recording, np.interp(at, np.arange(recording.ppg.size) / recording.rate_hz, recording.ppg), rate_hz
        )

    return change


def add_movement(snr_db: float) -> Change:
    """Returns a change that adds random movement of 0.5 to 5 Hz, its power this many dB below the signal's in this band."""

    def change(recording: PpgRecording) -> PpgRecording:
        noise = np.random.default_rng(SEED).normal(size=recording.ppg.size)
        known = np.isfinite(recording.ppg)
        if known.sum() < 2:
            return recording
        filled = np.interp(np.arange(known.size), np.flatnonzero(known), recording.ppg[known])
        signal, movement = (_in_band(x, recording.rate_hz) for x in (filled, noise))
        scale = float(np.std(signal)) * 10 ** (-snr_db / 20) / float(np.std(movement))
        return _replace_signal(recording, recording.ppg + scale * movement, recording.rate_hz)

    return change


def _in_band(x: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    taps = bandpass(0.5, 5.0, rate_hz, half=round(2 * rate_hz))
    return np.convolve(np.pad(x, taps.size // 2, mode="edge"), taps, "valid")


def _replace_signal(recording: PpgRecording, ppg: NDArray[np.float64], rate_hz: float) -> PpgRecording:
    return PpgRecording(recording.name, ppg, rate_hz, recording.beats_s, recording.same_clock, recording.notes)


def _released(load: Callable[[], Any]) -> Any:
    """Returns the released model, or None where it cannot be loaded; the report then has null in its place."""
    try:
        return load()
    except ModelError:
        return None


def _score_recording(recording: PpgRecording, quality: QualityModel | None, rhythm: RhythmModel | None) -> "_Score":
    analysis = PpgAnalysis(recording.rate_hz, DEFAULT_LIMITS, rhythm, quality)
    steps = (analysis.push(recording.ppg), analysis.finish())
    pulses = [pulse for step in steps for pulse in step.pulses]
    good_seconds = np.array([good for step in steps for good in step.good])
    expected_s = align_beats(recording.beats_s, np.array([pulse.t_s for pulse in pulses]), recording.same_clock)
    found = [Pulse(pulse.t_s, pulse.after_gap) for pulse in pulses]
    comparison = compare_pulses(expected_s, found, recording.ppg, recording.rate_hz, np.empty(0))
    joined_s = [pulse.t_s for pulse in pulses if pulse.pp_s is not None]
    pp_ms = 1e3 * comparison.pp[:, 1]
    return _Score(
        Counts(
            int(np.sum(_in_good(comparison.matched_s, good_seconds))),
            int(np.sum(_in_good(comparison.missed_s, good_seconds))),
            int(np.sum(_in_good(comparison.false_s, good_seconds))),
            pp_ms[np.isin(comparison.pp[:, 0], joined_s)],
        ),
        Counts(comparison.matched_s.size, comparison.missed_s.size, comparison.false_s.size, pp_ms),
        good_seconds,
        _af_probabilities(pulses, expected_s, rhythm) | {"findings": sum(len(step.findings) for step in steps)},
    )


def _in_good(times_s: NDArray[np.float64], seconds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(seconds[np.clip(times_s.astype(np.int64), 0, seconds.size - 1)])


def _report(scores: Sequence["_Score"], has_quality: bool) -> dict[str, Any]:
    seconds = np.concatenate([score.is_good for score in scores]) if scores else np.empty(0)
    everything = _figures([score.all_time for score in scores])
    if not has_quality:
        return everything | {"coverage": None, "all_time": everything}
    coverage = _percent(float(np.sum(seconds)), seconds.size)
    return _figures([score.good for score in scores]) | {"coverage": coverage, "all_time": everything}


def _figures(counts: Sequence[Counts]) -> dict[str, Any]:
    """Returns gross figures, summed over recordings."""
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


def _af_probabilities(
    pulses: Sequence[AnalysedPulse], expected_s: NDArray[np.float64], rhythm: RhythmModel | None
) -> dict[str, Any]:
    """Returns the mean AF probability over windows, from the pulses and from the reference beats; None if inconclusive."""
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


def _agreement(probabilities: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns how often pulses and reference beats lead to the same AF decision, where both are conclusive."""
    known = [
        (p["by_pulses"], p["by_reference"])
        for p in probabilities
        if p["by_pulses"] is not None and p["by_reference"] is not None
    ]
    same = sum((pulses >= 0.5) == (reference >= 0.5) for pulses, reference in known)
    return {
        "records": len(probabilities),
        "judged": len(known),
        "same_verdict": _percent(same, len(known)),
        "called_by_pulses": sum(pulses >= 0.5 for pulses, _ in known),
        "called_by_reference": sum(reference >= 0.5 for _, reference in known),
    }


def _percent(part: float, whole: float) -> float | None:
    return 100.0 * part / whole if whole else None

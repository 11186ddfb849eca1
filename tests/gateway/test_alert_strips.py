"""An alert that time alone raises again shows the ECG of that time."""

import numpy as np

from config.limits import DEFAULT_LIMITS
from gateway.alert_series import LONGER_REASON
from gateway.alert_tracker import AlertTracker
from gateway.waveform_analysis import EcgWaveformAnalysis
from models.inference.models import Models
from sync.records import AlertRecord

RATE_HZ = 130.0
RHYTHM = [(20, 70.0), (20, 160.0), (15, 70.0), (45, 160.0)]
"""Seconds and rate of each stretch: a tachycardia, and later a longer one."""


def ecg_mv() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    beats_s, end_s = [0.5], 0.0
    for seconds, bpm in RHYTHM:
        end_s += seconds
        while beats_s[-1] < end_s:
            beats_s.append(beats_s[-1] + 60.0 / bpm)
    t_s = np.arange(round(end_s * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(1).normal(0.0, 0.01, t_s.size)
    for beat_s in beats_s:
        mv += np.exp(-(((t_s - beat_s) / 0.011) ** 2) / 2)
    return mv


def test_an_alert_that_is_raised_again_because_it_lasts_has_the_latest_strip() -> None:
    analysis = EcgWaveformAnalysis(AlertTracker("strap", has_rhythm=True), RATE_HZ, DEFAULT_LIMITS, Models())
    mv, sent = ecg_mv(), list[AlertRecord]()
    for second in range(sum(seconds for seconds, _ in RHYTHM)):
        frame = mv[round(second * RATE_HZ) : round((second + 1) * RATE_HZ)]
        output = analysis.process_samples(frame, second * 1_000_000, RATE_HZ, (second + 1) * 1_000_000)
        sent += [record for record in output.records if isinstance(record, AlertRecord) and record.kind == "tachycardia"]
    first, *_, longer = sent
    assert (longer.id, longer.reasons[-1]) == (first.id, LONGER_REASON)
    assert longer.raised_us == longer.decided_us
    assert longer.strip is not None
    strip_end_s = longer.strip.start_us / 1e6 + longer.strip.samples.size / longer.strip.rate_hz
    assert longer.decided_us / 1e6 - 1.0 <= strip_end_s <= longer.decided_us / 1e6
    assert len(longer.strip.beats_us) > 20

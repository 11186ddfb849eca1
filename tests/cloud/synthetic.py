"""Records for a hub to send: a synthetic ECG, vital signs and alerts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from cloud.api import alert_queries
from cloud.changes import AlertKey
from cloud.scope import EVERY_SUBJECT
from sync.records import AlertRecord, Strip, Times, VitalRecord, WaveformRecord

START_US = 1_790_000_000_000_000
RATE_HZ = 130.0
SCALE = 0.001

# Onset-to-peak offset (s), width (s) and height (mV) of P, Q, R, S, T of a normal lead II (McSharry et al. 2003, table 1).
WAVES = ((-0.17, 0.022, 0.14), (-0.028, 0.009, -0.1), (0.0, 0.0105, 1.15), (0.028, 0.010, -0.22), (0.27, 0.05, 0.28))


def ecg_mv(beats_s: Sequence[float], seconds: float, rate_hz: float = RATE_HZ, p_wave: bool = True) -> NDArray[np.float64]:
    """Return a synthetic ECG with an R peak at each of `beats_s`, respiratory baseline wander and a little noise."""
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    mv = 0.05 * np.sin(2 * np.pi * 0.25 * t) + np.random.default_rng(7).normal(0, 0.012, t.size)
    for beat in beats_s:
        for offset, width, height in WAVES if p_wave else WAVES[1:]:
            mv += height * np.exp(-0.5 * ((t - beat - offset) / width) ** 2)
    return mv


def counts(mv: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return millivolts as ADC counts of `SCALE` mV."""
    return np.round(mv / SCALE).astype(np.int32)


def times(at_us: int) -> Times:
    return Times(at_us, at_us + 50_000, 1_000_000_000, (at_us - START_US) * 1000)


def waveform(at_us: int, samples: NDArray[np.int32], sensor: str = "strap-1") -> WaveformRecord:
    return WaveformRecord(sensor, "ecg", times(at_us), RATE_HZ, SCALE, samples)


def heart_rate(at_us: int, value: float, sensor: str = "strap-1") -> VitalRecord:
    return VitalRecord(sensor, "heart_rate", times(at_us), value)


def strip(start_us: int, beats_s: Sequence[float], seconds: float, p_wave: bool = True) -> Strip:
    beats_us = tuple(start_us + round(beat * 1e6) for beat in beats_s)
    return Strip(start_us, RATE_HZ, SCALE, counts(ecg_mv(beats_s, seconds, p_wave=p_wave)), beats_us)


def alert(kind: str = "tachycardia", priority: str = "medium", onset_us: int = START_US, **changes: object) -> AlertRecord:
    values: dict[str, object] = {
        "id": f"{kind}-{onset_us}",
        "sensor": "strap-1",
        "kind": kind,
        "priority": priority,
        "onset_us": onset_us,
        "end_us": None,
        "decided_us": onset_us + 10_000_000,
        "source": f"rule:{kind}",
        "reasons": (f"{kind}.criterion",),
        "measured": {"rate_bpm": 150.0, "limit_bpm": 131},
    }
    return AlertRecord(**(values | changes))  # type: ignore[arg-type]


def find_alert(engine: Engine, key: AlertKey) -> dict[str, Any] | None:
    """Return one alert as the page gets it."""
    with engine.connect() as connection:
        return alert_queries.find_alert(connection, EVERY_SUBJECT, key)

"""An open alert of high priority on signals that are lost in every way: it ends only with half a minute of beats."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from drivers.readings import Reading, Status
from gateway.models import LoadedModels, load_models
from gateway.pipeline import Pipeline
from gateway.timeline import Arrival
from sync.records import AlertRecord
from tests.gateway.test_silence import RATE_HZ, START_S, run, second_of
from tests.signal.rhythms import Samples, regular

BEATS_S, STANDSTILL_S, LOST_S = 15, 12, 20


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def beats(seconds: int) -> Samples:
    return regular("narrow", 72, rate_hz=RATE_HZ, seconds=seconds, seed=1).mv


def noise(seconds: int, size_mv: float) -> Samples:
    return np.random.default_rng(3).normal(0.0, size_mv, seconds * RATE_HZ)


def readings(ecg: Samples, off: range = range(0)) -> list[Sequence[Reading]]:
    """The readings of each second; in the seconds `off` the sensor says that it has no contact."""
    return [(Status("skin_contact", second not in off), second_of(ecg, second)) for second in range(len(ecg) // RATE_HZ)]


STANDSTILL = np.concatenate((beats(BEATS_S), noise(STANDSTILL_S, 0.01)))
LOST = range(BEATS_S + STANDSTILL_S, BEATS_S + STANDSTILL_S + LOST_S)


@pytest.mark.parametrize(
    ("lost", "off"),
    [
        (np.full(LOST_S * RATE_HZ, 0.12), range(0)),
        (noise(LOST_S, 0.5), range(0)),
        (beats(LOST_S), LOST),
    ],
    ids=["flat", "noise", "beats without contact"],
)
def test_an_asystole_outlasts_a_lost_signal_until_half_a_minute_of_beats(
    models: LoadedModels, lost: Samples, off: range
) -> None:
    found = run(Pipeline("strap", DEFAULT_LIMITS, models), readings(np.concatenate((STANDSTILL, lost, beats(45))), off))
    asystole = [(second, alert) for second, alert in found if alert.kind in {"pause", "asystole"}]
    assert len({alert.id for _, alert in asystole}) == 1
    assert {alert.priority for _, alert in asystole} == {"high"}
    ((second, ended),) = [(second, alert) for second, alert in asystole if alert.end_us is not None]
    assert LOST.stop + 29 <= second <= LOST.stop + 42
    assert ended.reasons[-1] == "ended.organised"


def test_a_signal_lost_after_a_restart_is_urgent_while_a_high_alert_is_open(models: LoadedModels) -> None:
    before = Pipeline("strap", DEFAULT_LIMITS, models)
    assert run(before, readings(STANDSTILL))
    after = before.restarted(json.loads(json.dumps(before.state())))
    away_s = 900
    now = Arrival((START_S + STANDSTILL.size // RATE_HZ + away_s) * 1_000_000, 0)
    (lost,) = [record for record in after.resume(now).records if isinstance(record, AlertRecord)]
    assert (lost.kind, lost.end_us, lost.reasons[-1]) == ("asystole", None, "latched.signal_lost")
    found = []
    for second, one in enumerate(readings(np.full(10 * RATE_HZ, 0.07))):
        arrival = Arrival(now.wall_us + second * 1_000_000, second * 1_000_000_000)
        found += [(second, record) for record in after.feed(one, arrival).records if isinstance(record, AlertRecord)]
    ((second, silent),) = found
    assert (silent.kind, silent.priority, second) == ("no_signal", "medium", 5)

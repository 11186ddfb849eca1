"""The alert that a sensor has forgotten its pairing begins once, survives restarts, and ends when the sensor is paired."""

import json
from collections.abc import Mapping
from typing import Any

from gateway.pairing_alert import PAIRING_ALERT_KIND, pairing_key, update_pairing_alert
from gateway.priorities import PRIORITIES


def store(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state after it was stored and loaded."""
    loaded: Mapping[str, Any] = json.loads(json.dumps(state))
    return loaded


def test_the_alert_begins_once_and_ends_when_the_sensor_is_paired() -> None:
    (begun,), state = update_pairing_alert("cuff", None, 1_000, is_forgotten=True)
    assert (begun.sensor, begun.kind, begun.priority) == ("cuff", PAIRING_ALERT_KIND, PRIORITIES[PAIRING_ALERT_KIND])
    assert (begun.onset_us, begun.end_us, begun.reasons) == (1_000, None, ("pairing_lost.criterion",))
    assert update_pairing_alert("cuff", store(state), 2_000, is_forgotten=True) == ((), state)
    (ended,), state = update_pairing_alert("cuff", store(state), 3_000, is_forgotten=False)
    assert (ended.id, ended.onset_us, ended.end_us) == (begun.id, 1_000, 3_000)
    assert update_pairing_alert("cuff", store(state), 4_000, is_forgotten=False) == ((), state)


def test_each_sensor_has_an_alert_of_its_own() -> None:
    (cuff,), _ = update_pairing_alert("cuff", None, 1_000, is_forgotten=True)
    (scale,), _ = update_pairing_alert("scale", None, 1_000, is_forgotten=True)
    assert cuff.id != scale.id
    assert pairing_key("cuff") != pairing_key("scale")


def test_a_sensor_that_was_never_paired_raises_nothing() -> None:
    assert update_pairing_alert("cuff", None, 1_000, is_forgotten=False)[0] == ()

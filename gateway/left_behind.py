"""Ends the alerts that no pipeline of this run continues: those of a removed sensor, and those of an earlier subject.

State belongs to a subject. When a hub goes to the next one, the ongoing alerts of the subject before are ended and sealed for
that subject, and the state is deleted; the next subject starts without any.
"""

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

from gateway.alerts import SENSOR_REMOVED_REASON, SUBJECT_CHANGED_REASON, end_saved_alerts
from gateway.buffer_alert import BUFFER_STATE_KEY
from gateway.damage_alert import DAMAGE_STATE_KEY
from gateway.hub_alerts import end_hub_alert, hub_alert_state, load_hub_alert
from gateway.models import ALERT_STATE_KEY
from gateway.pairing_alert import PAIRING_STATE_PREFIX, pairing_key
from gateway.sensor_runner import STATE_KEY_PREFIX, state_key
from sync.errors import TransientError
from sync.outbox import Outbox, StoredState
from sync.record_codec import encode_records
from sync.records import AlertRecord
from sync.registration import RegistrationError

log = logging.getLogger(__name__)


def end_left_behind_alerts(outbox: Outbox, subject: str, sensors: Collection[str], now_us: int) -> None:
    """Seals the ends of the alerts that nothing continues, each for its own subject. Call it before anything else is stored.

    For an earlier subject that was never registered, nothing can be sealed: its state is only deleted.
    On a full disk, it logs the failure and leaves the state as it is; the next start tries again.
    """
    kept = {key(sensor) for sensor in sensors for key in (state_key, pairing_key)}
    states = outbox.stored_states()
    try:
        for state in states:
            if state.subject != subject:
                _end_alerts_of_earlier(outbox, state, now_us)
            elif state.name.startswith((STATE_KEY_PREFIX, PAIRING_STATE_PREFIX)) and state.name not in kept:
                _end_alerts(outbox, state, now_us, SENSOR_REMOVED_REASON)
        for earlier in {state.subject for state in states} - {subject}:
            outbox.delete_states(earlier)
    except TransientError as error:
        log.error("cannot end the alerts of removed sensors or of an earlier subject, will try at the next start: %s", error)


def _end_alerts_of_earlier(outbox: Outbox, state: StoredState, now_us: int) -> None:
    try:
        _end_alerts(outbox, state, now_us, SUBJECT_CHANGED_REASON)
    except RegistrationError as error:
        log.warning("cannot end the alerts of an earlier subject at the clinic: %s", error)


def _end_alerts(outbox: Outbox, state: StoredState, now_us: int, reason: str) -> None:
    saved: Mapping[str, Any] = json.loads(state.value)
    ended: tuple[AlertRecord, ...] = ()
    remaining: Mapping[str, Any] = {}
    if state.name in (ALERT_STATE_KEY, BUFFER_STATE_KEY, DAMAGE_STATE_KEY) or state.name.startswith(PAIRING_STATE_PREFIX):
        alert = load_hub_alert(saved)
        ended, remaining = (end_hub_alert(alert, now_us, reason),) if alert else (), hub_alert_state(None)
    elif state.name.startswith(STATE_KEY_PREFIX):
        ended, remaining = end_saved_alerts(saved, now_us, reason), {**saved, "alerts": []}
    if ended:
        outbox.put_many([("alert", encode_records(ended))], {state.name: json.dumps(remaining).encode()}, subject=state.subject)

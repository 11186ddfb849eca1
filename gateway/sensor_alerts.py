"""The alerts of one sensor: those of each stream, which ones are open, and what a restart makes of them."""

from collections.abc import Mapping
from typing import Any

from config.limits import Limits
from gateway.alert_series import alert_state
from gateway.alert_tracker import AlertTracker
from gateway.alerts import end_saved_alerts, find_stream_end
from sync.records import AlertRecord

RHYTHM_STREAMS = frozenset({"ecg", "intervals"})
"""Streams that tell since when the rhythm has been organised."""


class SensorAlerts:
    """The alert trackers of one sensor, by stream: a kind of waveform, `intervals`, or `vitals`.

    They are there after a restart before anything is received: an alert that is still open can be closed by the clinic.
    """

    def __init__(self, sensor: str, limits: Limits, saved: Mapping[str, Any]) -> None:
        """`saved` is the saved state of the sensor's pipeline."""
        self._sensor, self._limits, self._restored = sensor, limits, saved
        self._trackers = {stream: self._make(stream, state) for stream, state in saved["trackers"].items()}

    def of(self, stream: str) -> AlertTracker:
        """Return the alerts of one stream."""
        if stream not in self._trackers:
            self._trackers[stream] = self._make(stream, None)
        return self._trackers[stream]

    def close(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """End an open alert because the clinic commands it: see `AlertTracker.close`."""
        ended = (tracker.close(id_, now_us, reason, command) for tracker in self._trackers.values())
        return next((alert for alert in ended if alert is not None), None)

    def resume(self, now_us: int) -> tuple[AlertRecord, ...]:
        """Return what a restart changes: alerts end, but those of high priority stay open without their signal."""
        end_us = find_stream_end(self._restored, now_us)
        known = {alert.id for tracker in self._trackers.values() for alert in tracker.ongoing_alerts()}
        ended = end_saved_alerts(self._restored, now_us, without=known)
        return (*ended, *(alert for tracker in self._trackers.values() for alert in tracker.end_stream(end_us, now_us)))

    def finish(self, now_us: int) -> tuple[AlertRecord, ...]:
        """Return the ends of alerts that wait for another episode, because no waveform will come any more."""
        streams = [tracker for stream, tracker in self._trackers.items() if stream != "vitals"]
        return tuple(alert for tracker in streams for alert in tracker.end_stream(now_us, now_us))

    def state(self) -> dict[str, Any]:
        """Return the keys `alerts`, the open alerts, and `trackers` of the pipeline's saved state."""
        open_alerts = [alert_state(alert) for tracker in self._trackers.values() for alert in tracker.ongoing_alerts()]
        return {"alerts": open_alerts, "trackers": {stream: tracker.state() for stream, tracker in self._trackers.items()}}

    def _make(self, stream: str, saved: Mapping[str, Any] | None) -> AlertTracker:
        open_ids = frozenset(alert["id"] for alert in self._restored["alerts"])
        return AlertTracker(self._sensor, self._limits, saved, open_ids=open_ids, has_rhythm=stream in RHYTHM_STREAMS)

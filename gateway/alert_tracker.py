"""Tracks the alerts of one stream: from findings to the records that are sent, and which alerts are open."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from config.limits import DEFAULT_LIMITS, Limits
from gateway.alert_series import (
    ALWAYS_ALONE,
    END_KNOWN_S,
    LONGER_REASON,
    SUSTAINED_VT,
    Phase,
    Series,
    load_series,
    of_one_episode,
)
from gateway.alerts import (
    FALSE_REASON,
    ORGANISED_REASON,
    RECURRING_REASON,
    SIGNAL_LOST_REASON,
    ToUtcUs,
    make_alert,
    make_alert_id,
    make_finding_record,
)
from gateway.false_alerts import FalseAlerts
from gateway.priorities import RANKS, alert_priority, higher_priority, raises_alert
from gateway.strip_history import StripHistory
from gateway.strips import cut_strip
from models.findings import Finding
from sync.records import AlertRecord, FindingRecord


class AlertTracker:
    """Turns the findings of one stream into finding and alert records, and tracks the alerts that are open.

    Episodes of one kind are joined to one alert: an episode that begins soon after another of its kind continues the alert of
    that one. It keeps its id, its onset and the highest priority that it had, and states how many episodes there were. It is
    raised again if they become worse. Kinds that are dangerous at once, and sustained ventricular tachycardias, are not joined.

    An alert of high priority whose signal is lost stays open until the rhythm is organised again, or the clinic closes it.

    When the clinic closes an alert, the rest of its episode raises none, unless it becomes more urgent: that is a new alert.
    """

    def __init__(
        self,
        sensor: str,
        limits: Limits = DEFAULT_LIMITS,
        saved: Mapping[str, Any] | None = None,
        *,
        open_ids: Collection[str] | None = None,
        has_rhythm: bool = False,
    ) -> None:
        """Start empty, or resume from the `saved` state that an earlier tracker of this stream returned.

        Args:
            sensor: the sensor's name.
            limits: those of the patient.
            saved: see `state`.
            open_ids: of the saved alerts, those that are still open at the clinic; None: all that the state holds as open.
            has_rhythm: whether `advance` is told since when the rhythm is organised. Otherwise an alert whose signal was lost
                ends with the next episode's end.
        """
        self.sensor = sensor
        self._limits = limits
        self._has_rhythm = has_rhythm
        saved = saved or {"series": {}, "high_us": None, "false": {}}
        restored = {key: load_series(series) for key, series in saved["series"].items()}
        self._series: dict[str, Series] = {
            key: series
            for key, series in restored.items()
            if open_ids is None or not series.is_open or series.alert.id in open_ids
        }
        self._high_us: int | None = saved["high_us"]
        """When an alert of high priority was last open."""
        self._false = FalseAlerts(limits, **saved["false"])

    def ongoing_alerts(self) -> tuple[AlertRecord, ...]:
        """The open alerts, without their strips."""
        return tuple(series.alert for series in self._series.values() if series.is_open)

    @property
    def waits(self) -> bool:
        """Whether time alone can change an alert of a stream without a rhythm."""
        return any(series.waits for series in self._series.values())

    def is_after_high(self, at_us: int) -> bool:
        """Return whether an alert of high priority is open, or ended a short time before."""
        was_open = self._high_us is not None and abs(at_us - self._high_us) < self._limits.no_signal_after_high.value * 1e6
        return was_open or any(alert.priority == "high" for alert in self.ongoing_alerts())

    def state(self) -> Mapping[str, Any]:
        """What must survive a restart, ready for JSON."""
        series = {key: series.state() for key, series in self._series.items()}
        return {"series": series, "high_us": self._high_us, "false": self._false.state()}

    def close(self, id_: str, now_us: int, reason: str, command: int) -> AlertRecord | None:
        """End an open alert because the clinic commands it; None if no alert of this id is open here.

        Args:
            id_: the alert.
            now_us: the hub's UTC time.
            reason: `CLOSED_REASON` or `FALSE_REASON`.
            command: the number of the command, by which the clinic's audit log names the person.
        """
        series = next((one for one in self._series.values() if one.is_open and one.alert.id == id_), None)
        if series is None:
            return None
        alert = series.alert
        measured = {**(alert.measured or {}), "command": float(command)}
        end_us = max(alert.onset_us, now_us)
        ended = replace(alert, end_us=end_us, decided_us=now_us, reasons=(*alert.reasons, reason), measured=measured)
        self._note_high(series, now_us)
        series.phase, series.closed_us = Phase.CLOSED, now_us
        if reason == FALSE_REASON:
            self._false.mark(self.sensor, alert.kind, now_us)
        return ended

    def on_finding(
        self,
        finding: Finding,
        to_utc_us: ToUtcUs,
        decided_us: int,
        history: StripHistory | None = None,
        marks: tuple[str, ...] = (),
    ) -> tuple[FindingRecord | AlertRecord, ...]:
        """Returns the finding's record and the alerts to send.

        Without a `history` the alert has no strip. `decided_us` is explained in `AlertRecord`. `marks` are further reason keys;
        an episode whose first finding has one joins no ended alert.
        """
        onset_us = to_utc_us(finding.onset_s)
        key = next((key for key, one in self._series.items() if one.is_episode(finding, onset_us)), None)
        onset_us = onset_us if key is None else self._series[key].onset_us
        end_us = None if finding.end_s is None else max(to_utc_us(finding.end_s), onset_us)
        record = make_finding_record(self.sensor, finding, onset_us, end_us)
        if not raises_alert(finding):
            return (record,)
        if finding.recovered:
            return (record, *self._recover(finding, record, decided_us))
        priority = alert_priority(finding, self._limits, is_after_high=self.is_after_high(onset_us))
        alert = make_alert(record, priority, decided_us, (*finding.reasons, *marks))
        if history:
            alert = replace(alert, strip=cut_strip(finding, to_utc_us, history, is_first=key is None))
        if key is not None:
            return (record, *self._continue_episode(key, finding, alert))
        if marks and end_us is not None:  # of the past, of an unknown time or perhaps of another person
            return (record, alert)
        now_us = to_utc_us(history.end_s) if history else decided_us
        return (record,) if self._false.hold(finding, alert, now_us) else (record, *self._begin_episode(finding, alert, marks))

    def advance(self, now_us: int, decided_us: int, organised_since_us: int | None = None) -> tuple[AlertRecord, ...]:
        """Returns the alerts that the passing of time changes, at `now_us` of the stream.

        Must be called at fixed times of the stream, so the result does not depend on how the stream was divided into chunks.
        `organised_since_us` is the time since which the rhythm has been organised; None while it is not.
        """
        due = self._false.take_due(now_us, decided_us)
        records: list[AlertRecord] = list(self._begin_episode(*due)) if due else []
        for key, series in list(self._series.items()) if self._series else ():
            match series.phase:
                case Phase.ONGOING:
                    records += self._watch_episode(key, series, now_us, decided_us)
                case Phase.LOST | Phase.BETWEEN:
                    records += self._watch_open(key, series, now_us, decided_us, organised_since_us)
                case Phase.CLOSED:
                    records += self._watch_closed(key, series, now_us, decided_us)
                case Phase.ENDED:
                    if abs(now_us - series.last_us) >= self._repeat_us(series):
                        del self._series[key]
        return tuple(records)

    def end_stream(self, at_us: int, decided_us: int) -> tuple[AlertRecord, ...]:
        """Returns what changes because the stream ends, or ended at `at_us` when the agent was killed.

        The alerts of high priority stay open. The others end.
        """
        records: list[AlertRecord] = []
        self._false.clear()
        for key, series in list(self._series.items()):
            if series.phase is Phase.CLOSED:
                series.is_ongoing &= not self._has_rhythm  # the episode of a rhythm begins anew
            elif series.is_ongoing:
                series.end_episode(at_us, is_cut=True)
            elif series.alert.priority == "high":
                continue
            if series.is_open:
                records.append(self._settle(key, series, series.alert, decided_us, is_stream_over=True))
        return tuple(records)

    def _recover(self, finding: Finding, record: FindingRecord, decided_us: int) -> tuple[AlertRecord, ...]:
        """A newer value is within its limits: this ends the alert about the episode that was lost before."""
        series = self._series.get(finding.kind)
        if series is None or series.phase is not Phase.LOST or record.end_us is None:
            return ()
        series.last_us, series.is_latched, series.is_cut = max(series.onset_us, record.end_us), False, False
        series.reasons = ()
        return (self._keep(finding.kind, series, Phase.ENDED, series.alert, decided_us),)

    def _begin_episode(self, finding: Finding, alert: AlertRecord, marks: tuple[str, ...] = ()) -> tuple[AlertRecord, ...]:
        """The first finding of an episode: it continues an alert, or raises one."""
        episode = finding.episode[0]
        lost = [key for key, one in self._series.items() if one.phase is Phase.LOST and one.episode == episode]
        if lost:  # of several, the alert of this kind; and of a sustained tachycardia there is only one
            key = min(lost, key=lambda one: (self._series[one].alert.kind != finding.kind, one != SUSTAINED_VT))
            series = self._series[key]
            states_more = series.alert.kind in ALWAYS_ALONE and finding.kind != series.alert.kind
            return () if states_more else self._join(key, series, finding, alert)
        known = self._series.get(finding.kind)
        if known is None or (marks and not known.is_open):
            return self._start(finding.kind, finding, alert, marks=marks)
        if known.phase is Phase.CLOSED:
            return self._begin_after_closing(known, finding, alert)
        if known.is_open or abs(alert.onset_us - known.last_us) < self._repeat_us(known):
            known.marks = marks or known.marks
            return self._join(finding.kind, known, finding, alert)
        return self._start(finding.kind, finding, alert)

    def _begin_after_closing(self, series: Series, finding: Finding, alert: AlertRecord) -> tuple[AlertRecord, ...]:
        """An episode after the clinic closed an alert of its kind: it raises another one, if it is urgent or comes later."""
        is_soon = abs(alert.onset_us - series.closed_us) < self._repeat_us(series)
        if alert.priority == "high" or RANKS[alert.priority] > RANKS[series.alert.priority] or not is_soon:
            return self._start(finding.kind, finding, alert)
        series.begin_episode(finding, alert.onset_us)
        if alert.end_us is not None:
            series.end_episode(alert.end_us, is_cut=finding.lost)
        return ()

    def _start(
        self,
        key: str,
        finding: Finding,
        alert: AlertRecord,
        *,
        onset_us: int | None = None,
        marks: tuple[str, ...] = (),
    ) -> tuple[AlertRecord, ...]:
        """A new alert. `onset_us` is the onset of its episode, if this began before the alert's."""
        begin_us = alert.onset_us if onset_us is None else onset_us
        series = Series(alert, finding.episode[0], finding.episode[1], begin_us, begin_us, marks=marks, recent_us=[begin_us])
        self._series[key] = series
        return self._apply(key, series, finding, alert)

    def _join(self, key: str, series: Series, finding: Finding, alert: AlertRecord) -> tuple[AlertRecord, ...]:
        series.begin_episode(finding, alert.onset_us)
        return self._apply(key, series, finding, alert)

    def _continue_episode(self, key: str, finding: Finding, alert: AlertRecord) -> tuple[AlertRecord, ...]:
        """A later finding of an episode."""
        series = self._series[key]
        if series.phase is not Phase.CLOSED:
            return self._apply(key, series, finding, alert)
        if alert.end_us is not None:
            series.end_episode(alert.end_us, is_cut=finding.lost)
        is_worse = RANKS[alert.priority] > RANKS[series.alert.priority]
        if not is_worse and (finding.kind == series.alert.kind or finding.kind not in ALWAYS_ALONE):
            return ()
        del self._series[key]
        begin_us, onset_us = alert.onset_us, max(alert.decided_us, alert.onset_us + 1)  # another id than that of the closed one
        end_us = None if alert.end_us is None else max(alert.end_us, onset_us)
        id_ = make_alert_id(self.sensor, alert.kind, onset_us)
        return self._start(finding.kind, finding, replace(alert, id=id_, onset_us=onset_us, end_us=end_us), onset_us=begin_us)

    def _apply(self, key: str, series: Series, finding: Finding, alert: AlertRecord) -> tuple[AlertRecord, ...]:
        """The records of a finding of the latest episode, of which `alert` is the alert if it has one of its own."""
        series.measure(alert.end_us or series.onset_us, finding.measured.get("pause_s", 0.0))
        series.reasons = tuple(dict.fromkeys((*series.reasons, *finding.reasons)))
        if alert.end_us is not None:
            series.end_episode(alert.end_us, is_cut=finding.lost)
        until_us = series.onset_us if alert.end_us is None else series.last_us
        if finding.kind != series.alert.kind or (key == "vt" and self._is_sustained(series, until_us)):
            return self._separate(key, series, alert)
        return (self._report(key, series, alert),)

    def _is_sustained(self, series: Series, until_us: int) -> bool:
        return until_us - series.onset_us >= self._limits.sustained_vt.value * 1e6

    def _separate(self, key: str, series: Series, alert: AlertRecord) -> tuple[AlertRecord, ...]:
        """Gives the latest episode an alert of its own, unless the alert is about it alone."""
        own_key = SUSTAINED_VT if alert.kind == "vt" else alert.kind
        if series.episodes == 1:
            del self._series[key]
            self._series[own_key] = series
            return (self._report(own_key, series, alert),)
        own = replace(series, alert=alert, episodes=1, worse=None, is_latched=False, longest_s=0.0, recent_us=[series.onset_us])
        series.drop_episode()
        rest = self._settle(key, series, series.alert, alert.decided_us)
        self._series[own_key] = own
        return (rest, self._report(own_key, own, alert))

    def _report(self, key: str, series: Series, alert: AlertRecord) -> AlertRecord:
        """The record about the latest episode; the alert is raised again if kind, priority or episodes are worse."""
        before = series.alert
        priority = higher_priority(alert.priority, before.priority)
        worse = series.find_worsening(self._limits, (alert.measured or {}).get("rate_bpm"))
        is_raised = before is alert or worse is not None or (priority, alert.kind) != (before.priority, before.kind)
        raised_us = alert.decided_us if is_raised else before.raised_us
        series.alert = replace(alert, id=before.id, onset_us=before.onset_us, priority=priority, raised_us=raised_us)
        if is_raised:
            series.worse = worse or series.worse
            series.is_length_told |= worse == LONGER_REASON
            series.tell()
        return self._settle(key, series, series.alert, alert.decided_us)

    def _settle(
        self, key: str, series: Series, alert: AlertRecord, decided_us: int, *, is_stream_over: bool = False
    ) -> AlertRecord:
        """The record of an alert after its latest episode began or ended."""
        is_high = alert.priority == "high"
        if series.is_ongoing:
            return self._keep(key, series, Phase.ONGOING, alert, decided_us)
        if is_high and (series.is_cut or (series.is_latched and self._has_rhythm)):
            series.is_latched = True
            return self._keep(key, series, Phase.LOST, alert, decided_us)
        is_joined = series.episodes > 1 and key != SUSTAINED_VT and alert.kind not in ALWAYS_ALONE
        phase = Phase.BETWEEN if is_joined and not is_stream_over else Phase.ENDED
        return self._keep(key, series, phase, alert, decided_us)

    def _keep(self, key: str, series: Series, phase: Phase, alert: AlertRecord, decided_us: int, *reasons: str) -> AlertRecord:
        """Notes the state of an alert; returns its record."""
        series.phase = phase
        recurring = (RECURRING_REASON,) if series.episodes > 1 else ()
        worse = (series.worse,) if series.worse else ()
        lost = (SIGNAL_LOST_REASON,) if phase is Phase.LOST else ()
        record = replace(
            alert,
            end_us=max(alert.onset_us, series.last_us) if phase is Phase.ENDED else None,
            decided_us=decided_us,
            reasons=(f"{alert.kind}.criterion", *series.reasons, *series.marks, *recurring, *worse, *lost, *reasons),
            measured=of_one_episode(alert.measured) | series.numbers() or None,
        )
        series.alert = replace(record, strip=None)
        if phase is Phase.ENDED:
            self._note_high(series, series.last_us)
            if key == SUSTAINED_VT or alert.kind in ALWAYS_ALONE:
                del self._series[key]
        return record

    def _watch_episode(self, key: str, series: Series, now_us: int, decided_us: int) -> tuple[AlertRecord, ...]:
        """An episode that lasts: it may have become longer than those before, or a sustained ventricular tachycardia."""
        known_us = now_us - round(END_KNOWN_S * 1e6)
        series.measure(known_us)
        alert = replace(series.alert, decided_us=decided_us)
        if key == "vt" and self._is_sustained(series, known_us):
            id_ = make_alert_id(self.sensor, alert.kind, series.onset_us)
            return self._separate(key, series, replace(alert, id=id_, onset_us=series.onset_us, raised_us=decided_us))
        return (self._report(key, series, alert),) if series.find_worsening(self._limits) else ()

    def _watch_open(
        self, key: str, series: Series, now_us: int, decided_us: int, organised_since_us: int | None
    ) -> tuple[AlertRecord, ...]:
        """An open alert of which no episode lasts: it ends when the rhythm is organised again, or when no other came."""
        organised_us = None if organised_since_us is None else max(organised_since_us, series.last_us)
        release_us = round(self._limits.latch_release.value * 1e6)
        is_organised = organised_us is not None and now_us - organised_us >= release_us
        if series.phase is Phase.LOST:
            if organised_us is None or not (self._has_rhythm and is_organised):
                return ()
            series.last_us, series.is_latched, series.is_cut = organised_us + release_us, False, False
            return (self._keep(key, series, Phase.ENDED, series.alert, decided_us, ORGANISED_REASON),)
        is_over = abs(now_us - series.last_us) >= self._repeat_us(series)
        needs_rhythm = self._has_rhythm and series.alert.priority == "high"
        if not is_over or (needs_rhythm and not is_organised):
            return ()
        return (self._keep(key, series, Phase.ENDED, series.alert, decided_us),)

    def _watch_closed(self, key: str, series: Series, now_us: int, decided_us: int) -> tuple[AlertRecord, ...]:
        """A closed alert: it is raised again if its episode is dangerous and goes on, or if a later episode lasts."""
        since_us = now_us - series.closed_us
        if not series.is_ongoing:
            if abs(since_us) >= self._repeat_us(series):
                del self._series[key]
            return ()
        known_us = now_us - round(END_KNOWN_S * 1e6)
        is_alone = series.alert.kind in ALWAYS_ALONE or (series.alert.kind == "vt" and self._is_sustained(series, known_us))
        is_due = is_alone and since_us >= self._limits.closed_again.value * 1e6
        is_later = series.onset_us > series.closed_us and since_us >= self._repeat_us(series)
        if not is_due and not is_later:
            return ()
        onset_us = max(decided_us, series.alert.onset_us + 1)
        id_ = make_alert_id(self.sensor, series.alert.kind, onset_us)
        alert = replace(series.alert, id=id_, onset_us=onset_us, decided_us=decided_us, raised_us=decided_us)
        again = replace(series, alert=alert, phase=Phase.ONGOING, episodes=1, worse=None, recent_us=[series.onset_us])
        self._series[key] = again
        return (self._report(key, again, alert),)

    def _repeat_us(self, series: Series) -> int:
        """For how long after an episode another one continues the alert."""
        limits = self._limits
        limit = limits.repeat_low if series.alert.priority == "low" else limits.repeat_medium
        return round(limit.value * 1e6)

    def _note_high(self, series: Series, until_us: int) -> None:
        if series.alert.priority == "high":
            self._high_us = max(self._high_us or 0, until_us)

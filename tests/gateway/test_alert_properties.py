"""Whatever episodes, losses of the signal, restarts and commands come: no alert of high priority is lost, and none floods."""

import json
from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from config.limits import DEFAULT_LIMITS
from gateway.alerts import CLOSED_REASON
from gateway.priorities import RANKS
from models.findings import EPISODES
from sync.records import AlertRecord
from tests.gateway.test_alerts import SecondsTracker, finding, to_us

JOINED = {
    "pause": {"pause_s": 3.1},
    "vt": {"beats": 6.0, "rate_bpm": 150.0},
    "af": {"rate_bpm": 90.0},
    "tachycardia": {"rate_bpm": 140.0},
}
ALONE = {"vf": {}, "asystole": {}}
KINDS: dict[str, dict[str, float]] = {**JOINED, **ALONE, "no_beats": {"seconds": 60.0}}
HIGH = frozenset({"pause", "vt", "vf", "asystole", "no_beats"})
RELEASE_S = DEFAULT_LIMITS.latch_release.value
SUSTAINED_S = DEFAULT_LIMITS.sustained_vt.value

episodes = st.lists(
    st.tuples(st.sampled_from([*JOINED, *ALONE]), st.floats(1, 1500), st.floats(0.5, 60), st.floats(100, 199)), max_size=80
)
"""Episodes one after the other: kind, seconds before it, its length, its rate."""


def count(alert: AlertRecord) -> int:
    return round((alert.measured or {}).get("episodes", 1.0))


def play(drawn: list[tuple[str, float, float, float]]) -> tuple[list[AlertRecord], Counter[str]]:
    """The alert records of episodes that end by themselves in an organised rhythm, and how many there were of each kind."""
    tracker, sent, begun, now_s = SecondsTracker(has_rhythm=True), list[AlertRecord](), Counter[str](), 0.0
    for kind, wait_s, length_s, rate_bpm in drawn:
        sent += tracker.pass_time(now_s + wait_s, organised_since_s=now_s)
        now_s += wait_s
        measured = {**KINDS[kind], **({"rate_bpm": rate_bpm} if "rate_bpm" in KINDS[kind] else {})}
        sent += tracker.alerts(kind, now_s, **measured)
        sent += tracker.pass_time(now_s + length_s)
        sent += tracker.alerts(kind, now_s, now_s + length_s, **measured)
        now_s += length_s
        begun[kind] += 1
    return [*sent, *tracker.pass_time(now_s + 4000.0, organised_since_s=now_s)], begun


@settings(deadline=None, max_examples=80)
@given(episodes)
def test_every_episode_is_counted_once_and_new_alerts_of_a_kind_are_rare(drawn: list[tuple[str, float, float, float]]) -> None:
    sent, begun = play(drawn)
    last = {alert.id: alert for alert in sent}
    counted = Counter[str]()
    for alert in last.values():
        counted[alert.kind] += count(alert)
        assert alert.end_us is not None
    assert counted == begun
    firsts: dict[str, list[AlertRecord]] = {}
    for alert in {alert.id: alert for alert in reversed(sent)}.values():
        firsts.setdefault(alert.kind, []).append(alert)
    for kind in JOINED:
        is_own = [alert for alert in firsts.get(kind, []) if kind == "vt" and _length_s(last[alert.id]) >= SUSTAINED_S]
        times_us = sorted(alert.raised_us or 0 for alert in firsts.get(kind, []) if alert not in is_own)
        assert all(later - earlier > 300e6 for earlier, later in pairwise(times_us))
        assert all(times_us[i + 6] - times_us[i] > 3600e6 for i in range(len(times_us) - 6))


def _length_s(alert: AlertRecord) -> float:
    return ((alert.end_us or alert.onset_us) - alert.onset_us) / 1e6


@settings(deadline=None, max_examples=80)
@given(episodes)
def test_what_is_worse_or_kills_at_once_is_raised_in_its_episode(drawn: list[tuple[str, float, float, float]]) -> None:
    tracker, now_s = SecondsTracker(has_rhythm=True), 0.0
    worst: dict[str, tuple[float, float]] = {}
    for kind, wait_s, length_s, rate_bpm in drawn:
        tracker.pass_time(now_s + wait_s, organised_since_s=now_s)
        now_s += wait_s
        measured = {**KINDS[kind], **({"rate_bpm": rate_bpm} if "rate_bpm" in KINDS[kind] else {})}
        sent = tracker.alerts(kind, now_s, **measured)
        sent += tracker.alerts(kind, now_s, now_s + length_s, **measured)
        raised = any(alert.raised_us in (to_us(now_s), to_us(now_s + length_s)) for alert in sent)
        longest_s, fastest_bpm = worst.get(kind, (0.0, 0.0))
        is_worse = length_s >= 1.5 * longest_s or ("rate_bpm" in measured and rate_bpm >= 1.2 * fastest_bpm)
        if kind in ALONE or is_worse or (kind == "vt" and length_s >= SUSTAINED_S):
            assert raised
        worst[kind] = max(longest_s, length_s, measured.get("pause_s", 0.0)), max(fastest_bpm, rate_bpm)
        now_s += length_s


class Ward(RuleBasedStateMachine):
    """A patient, the rules that watch the rhythm, and the clinic that sees the records.

    `ongoing` are the episodes that the rules report: kind and onset by the kind that identifies them. `held` are the alerts
    that must stay open, with the time from which an organised rhythm counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.tracker = SecondsTracker(has_rhythm=True)
        self.shown: dict[str, AlertRecord] = {}
        self.ongoing: dict[str, tuple[str, float]] = {}
        self.closed: set[str] = set()
        """The episodes whose alert the clinic closed."""
        self.held: dict[str, float] = {}
        self.organised_s: float | None = None

    @initialize()
    def begin(self) -> None:
        self.pass_time(1.0, organised=True)

    def take(self, sent: list[AlertRecord], *, is_closing: bool = False) -> None:
        for alert in sent:
            before = self.shown.get(alert.id)
            if before is not None:
                assert RANKS[alert.priority] >= RANKS[before.priority]
                assert alert.onset_us == before.onset_us
                assert is_closing or alert.id not in self.held or alert.end_us is None, "an alert was lost"
            self.shown[alert.id] = alert

    def open_alerts(self) -> list[AlertRecord]:
        return [alert for alert in self.shown.values() if alert.end_us is None]

    @precondition(lambda self: len(self.ongoing) < 2)
    @rule(kind=st.sampled_from(sorted(KINDS)))
    def find_episode(self, kind: str) -> None:
        self.now_s += 1.0
        self.organised_s = None if kind in HIGH else self.organised_s
        episode = EPISODES.get(kind, kind)
        if episode not in self.ongoing:
            self.ongoing[episode] = kind, self.now_s
            self.closed.discard(episode)
            self.take(self.tracker.alerts(kind, self.now_s, **KINDS[kind]))

    @rule()
    def turn_into_asystole(self) -> None:
        kind, onset_s = self.ongoing.get("pause", ("", 0.0))
        if kind in ("pause", "no_beats"):
            self.now_s += 1.0
            self.ongoing["pause"] = "asystole", onset_s
            self.closed.discard("pause")
            self.take(self.tracker.report(finding("asystole", onset_s)))

    @rule(data=st.data())
    def end_episode(self, data: st.DataObject) -> None:
        if self.ongoing:
            self.now_s += 1.0
            kind, onset_s = self.ongoing.pop(data.draw(st.sampled_from(sorted(self.ongoing))))
            self.take(self.tracker.alerts(kind, onset_s, self.now_s, **KINDS[kind]))

    @rule()
    def lose_signal(self) -> None:
        self.now_s += 1.0
        self.organised_s = None
        self.hold()
        for kind, onset_s in self.ongoing.values():
            self.take(self.tracker.lose(kind, onset_s, self.now_s, **KINDS[kind]))
        self.ongoing.clear()

    @rule(is_clean=st.booleans())
    def restart(self, is_clean: bool) -> None:
        if is_clean:
            self.lose_signal()
            self.take(list(self.tracker.end_stream(to_us(self.now_s), to_us(self.now_s))))
        self.hold()
        self.ongoing.clear()
        self.organised_s = None
        saved = json.loads(json.dumps(self.tracker.state()))
        open_ids = [alert.id for alert in self.open_alerts()]
        self.tracker = SecondsTracker(DEFAULT_LIMITS, saved, open_ids=open_ids, has_rhythm=True)
        self.take(list(self.tracker.end_stream(to_us(self.now_s), to_us(self.now_s))))

    def hold(self) -> None:
        """The signal is lost: what is open with high priority must stay so."""
        for alert in self.open_alerts():
            if alert.priority == "high":
                self.held[alert.id] = self.now_s

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 200.0, 700.0, 4000.0]), organised=st.booleans())
    def pass_time(self, seconds: float, organised: bool) -> None:
        if not organised or any(kind in HIGH for kind, _ in self.ongoing.values()):
            self.organised_s = None
        elif self.organised_s is None:
            self.organised_s = self.now_s
        self.now_s += seconds
        if self.organised_s is not None:
            since_s = self.organised_s
            self.held = {id_: from_s for id_, from_s in self.held.items() if self.now_s - max(from_s, since_s) < RELEASE_S}
        self.take(self.tracker.pass_time(self.now_s, self.organised_s))

    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        if self.open_alerts():
            alert = data.draw(st.sampled_from(sorted(self.open_alerts(), key=lambda one: one.id)))
            self.held.pop(alert.id, None)
            ended = self.tracker.close(alert.id, to_us(self.now_s), CLOSED_REASON, 1)
            assert ended is not None, "the clinic shows an alert as open that the hub does not know"
            self.closed.add(EPISODES.get(alert.kind, alert.kind))
            self.take([ended], is_closing=True)

    @invariant()
    def the_hub_and_the_clinic_agree(self) -> None:
        hub = {alert.id: (alert.kind, alert.priority) for alert in self.tracker.ongoing_alerts()}
        assert hub == {alert.id: (alert.kind, alert.priority) for alert in self.open_alerts()}

    @invariant()
    def an_episode_of_high_priority_has_an_open_alert(self) -> None:
        for episode, (kind, _) in self.ongoing.items():
            if kind in HIGH and episode not in self.closed:
                kinds = {EPISODES.get(alert.kind, alert.kind) for alert in self.open_alerts() if alert.priority == "high"}
                assert episode in kinds

    @invariant()
    def what_is_held_is_open(self) -> None:
        assert all(self.shown[id_].end_us is None for id_ in self.held)


TestWard = Ward.TestCase
TestWard.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)

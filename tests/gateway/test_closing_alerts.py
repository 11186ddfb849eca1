"""The clinic closes an open alert or marks it as false: once, with the outcome in one transaction, and only that episode."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from drivers.readings import Vital
from gateway.sensor_events import Notification
from gateway.sensor_runner import SensorRunner
from gateway.timeline import Arrival
from sync.commands import APPLIED_KIND, CommandKind
from sync.errors import TransientError
from sync.outbox import Outbox
from sync.records import AlertRecord
from tests.gateway.command_site import Site, run
from tests.gateway.test_alerts import SecondsTracker, to_us

ENDS = [(CommandKind.CLOSE_ALERT, "ended.closed_by_clinic"), (CommandKind.MARK_FALSE, "ended.marked_false")]


class TestTracker:
    """What an alert tracker does when the clinic closes one of its alerts."""

    def test_a_closed_alert_ends_now_with_the_reason_and_the_command(self) -> None:
        tracker = SecondsTracker()
        (first,) = tracker.alerts("af", 10.0)
        ended = tracker.close(first.id, to_us(40), "ended.closed_by_clinic", 7)
        assert ended == replace(
            first,
            end_us=to_us(40),
            decided_us=to_us(40),
            reasons=(*first.reasons, "ended.closed_by_clinic"),
            measured={**(first.measured or {}), "command": 7.0},
        )
        assert tracker.ongoing_alerts() == ()

    def test_only_an_open_alert_can_be_closed(self) -> None:
        tracker = SecondsTracker()
        (first,) = tracker.alerts("af", 10.0)
        assert tracker.close("0" * 24, to_us(40), "r", 7) is None
        assert tracker.close(first.id, to_us(40), "r", 7) is not None
        assert tracker.close(first.id, to_us(41), "r", 8) is None
        (other,) = tracker.alerts("vt", 50.0)
        tracker.alerts("vt", 50.0, 60.0)
        assert tracker.close(other.id, to_us(70), "r", 9) is None

    def test_an_alert_does_not_end_before_its_onset(self) -> None:
        tracker = SecondsTracker()
        (first,) = tracker.alerts("af", 10.0)
        ended = tracker.close(first.id, to_us(5), "r", 7)
        assert ended is not None
        assert ended.end_us == first.onset_us

    def test_the_rest_of_the_episode_raises_nothing_and_the_next_episode_does(self) -> None:
        tracker = SecondsTracker()
        (first,) = tracker.alerts("af", 10.0)
        tracker.close(first.id, to_us(40), "r", 7)
        assert tracker.alerts("af", 10.0) == []
        assert tracker.alerts("af", 10.0, 90.0) == []
        (second,) = tracker.alerts("af", 90_000.0)
        assert second.id != first.id

    def test_a_closed_episode_that_becomes_more_urgent_raises_a_new_alert(self) -> None:
        tracker = SecondsTracker()
        (first,) = tracker.alerts("spo2_low", 10.0, spo2_percent=90, limit_percent=91)
        tracker.close(first.id, to_us(40), "r", 7)
        assert tracker.alerts("spo2_low", 10.0, spo2_percent=89, limit_percent=91) == []
        (urgent,) = tracker.alerts("spo2_low", 10.0, spo2_percent=80, limit_percent=85)
        assert (urgent.priority, urgent.end_us) == ("high", None)
        assert urgent.id != first.id
        assert urgent.reasons == first.reasons
        (ended,) = tracker.alerts("spo2_low", 10.0, 120.0, spo2_percent=95, limit_percent=85)
        assert (ended.id, ended.onset_us) == (urgent.id, urgent.onset_us)
        assert ended.end_us == to_us(120)

    def test_a_restart_in_the_middle_of_a_closed_episode_does_not_raise_it_again(self) -> None:
        tracker = SecondsTracker()
        (first,) = tracker.alerts("fever", 10.0, limit_celsius=38.0)
        tracker.close(first.id, to_us(40), "r", 7)
        again, _ = tracker.restarted(50.0)
        assert again.alerts("fever", 10.0, limit_celsius=38.0) == []
        (urgent,) = again.alerts("fever", 10.0, limit_celsius=39.1)
        assert urgent.priority == "medium"


def strap(site: Site) -> SensorRunner:
    (closer,) = site.runs[-1][0].closers
    assert isinstance(closer, SensorRunner)
    return closer


async def measure(site: Site, celsius: float) -> None:
    runner = strap(site)
    arrival = Arrival.now(runner.clock)
    runner.events.put(Notification("temperature", b"", (Vital("temperature", celsius),), arrival))
    await asyncio.sleep(2)


def alerts(site: Site) -> list[AlertRecord]:
    """The alerts about the temperature: the strap's ECG raises others."""
    return [record for record in site.testbed.records() if isinstance(record, AlertRecord) and record.kind == "fever"]


def ids(site: Site) -> list[tuple[str, bool]]:
    """The alerts in the order of their records, and whether they last."""
    return [(alert.id, alert.end_us is None) for alert in alerts(site)]


@pytest.mark.parametrize(("kind", "reason"), ENDS)
def test_the_hub_ends_the_alert_and_says_why(site: Site, kind: CommandKind, reason: str) -> None:
    async def scenario() -> None:
        async with site.testbed.strap(), site.agent():
            await measure(site, 39.0)
            (first,) = alerts(site)
            command = site.send(kind, alert=first.id)
            for _ in range(2):
                await site.deliver(command.payload)
            (_, ended) = alerts(site)
            assert (ended.id, ended.reasons) == (first.id, (*first.reasons, reason))
            assert ended.measured == {**(first.measured or {}), "command": float(command.number)}
            assert ended.end_us is not None
            assert site.answers() == [(APPLIED_KIND, command.number)]
            await measure(site, 38.9)
            assert ids(site) == [(first.id, True), (first.id, False)]
            await measure(site, 36.5)
            await asyncio.sleep(60)  # a second episode within seconds is not one
            await measure(site, 40.0)
            assert [alert.id == first.id for alert in alerts(site)] == [True, True, False]

    run(site, scenario)


def test_an_alert_that_is_not_open_is_refused_with_the_reason(site: Site) -> None:
    async def scenario() -> None:
        async with site.agent():
            command = site.send(CommandKind.CLOSE_ALERT, alert="0" * 24)
            await site.deliver(command.payload)
        assert alerts(site) == []
        site.open_all()
        (shown,) = site.commands()
        assert (shown.state, shown.refusal) == ("refused", "alert")

    run(site, scenario)


def test_a_closed_episode_stays_closed_over_a_restart_of_the_agent(site: Site) -> None:
    async def scenario() -> None:
        async with site.testbed.strap():
            async with site.agent():
                await measure(site, 39.0)
                (first,) = alerts(site)
                await site.deliver(site.send(CommandKind.CLOSE_ALERT, alert=first.id).payload)
            async with site.agent():
                await measure(site, 39.0)
                assert ids(site) == [(first.id, True), (first.id, False)]

    run(site, scenario)


def test_a_kill_before_the_end_is_stored_leaves_the_command_unanswered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise TransientError("the disk does not answer")

    async def scenario() -> None:
        async with site.testbed.strap():
            with monkeypatch.context() as patch:
                async with site.agent(crash=True):
                    await measure(site, 39.0)
                    (first,) = alerts(site)
                    command = site.send(CommandKind.CLOSE_ALERT, alert=first.id)
                    patch.setattr(Outbox, "put_many", fail)
                    await site.deliver(command.payload, 10)
            async with site.agent():
                assert site.answers() == []
                await site.deliver(command.payload)
            (_, ended) = alerts(site)
            assert (ended.id, ended.reasons) == (first.id, first.reasons)  # by the restart, not by the command
            assert site.answers() == [("command_refused_alert", command.number)]

    run(site, scenario)


def test_end_and_outcome_are_stored_together(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[tuple[set[str], set[str]]] = []
    put_many = Outbox.put_many

    def note(outbox: Outbox, blocks: Any, state: Any = None, **options: Any) -> Any:
        blocks = list(blocks)
        stored.append(({lane for lane, _ in blocks}, set(state or {})))
        return put_many(outbox, blocks, state, **options)

    async def scenario() -> None:
        async with site.testbed.strap(), site.agent():
            await measure(site, 39.0)
            (first,) = alerts(site)
            monkeypatch.setattr(Outbox, "put_many", note)
            await site.deliver(site.send(CommandKind.CLOSE_ALERT, alert=first.id).payload)
            (lanes, states) = next(one for one in stored if "alert" in one[0])
            assert {"alert", "vital"} <= lanes
            assert {"commands", "timeline strap"} <= states

    run(site, scenario)

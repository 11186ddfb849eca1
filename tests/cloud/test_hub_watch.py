"""The clinic's alarms about hubs: silent for five minutes, or outdated; exactly one each, also over restarts."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from cloud.hub_watch import RETURN_S, SILENT_AFTER_S, HubWatch
from cloud.registry import Assignment
from cloud.store import Store
from cloud.store.hub_states import (
    HUB_OUTDATED,
    HUB_SILENT,
    HubAlarm,
    list_ongoing_alarms,
    list_states,
    note_heard,
    note_status,
)
from cloud.store.tables import hub_alarms
from sync.status import HubStatus, encode_status
from sync.versions import REVISION
from tests.cloud_ingest.ingest_testbed import NOW_US, START_S, FakeRegistry, SendingHub
from tests.cloud_ingest.test_statuses import STATUS
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
HUB = "hub-1"
S = 1_000_000


class WatchedRegistry(FakeRegistry):
    def hubs(self) -> tuple[str, ...]:
        return tuple(sorted(self.devices))


class Clinic:
    """A clinic whose two clocks a test sets; `watch` is replaced by a restart."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = WatchedRegistry()
        self.hub = SendingHub(HUB).register(self.registry)
        self.mono_s = 50.0
        self.wall_us = NOW_US
        self.seq = 0
        self.restart()

    def restart(self) -> None:
        self.watch = HubWatch(self.store, self.registry, lambda: self.mono_s, lambda: self.wall_us)

    def wait(self, seconds: float, step_s: float = 10.0) -> None:
        """Let the time pass, with a check every `step_s`."""
        end_s = self.mono_s + seconds
        while self.mono_s < end_s:
            self.mono_s += step_s
            self.wall_us += round(step_s * S)
            self.watch.check()

    def be_down(self, seconds: float) -> None:
        self.mono_s += seconds
        self.wall_us += round(seconds * S)
        self.restart()

    def speak(self, **changes: object) -> None:
        self.seq += 1
        status: HubStatus = replace(STATUS, seq=self.seq, **changes)  # type: ignore[arg-type]
        with self.store.transaction() as connection:
            assert note_status(connection, status, encode_status(status, self.hub.device), self.wall_us)

    def ongoing(self) -> list[HubAlarm]:
        with self.store.transaction() as connection:
            return list_ongoing_alarms(connection)

    def kinds(self) -> list[str]:
        return [alarm.kind for alarm in self.ongoing()]

    def raised(self) -> int:
        """Number of alarms that were ever raised."""
        with self.store.transaction() as connection:
            return len(connection.execute(hub_alarms.select()).all())


@pytest.fixture
def clinic(databases: Databases) -> Iterator[Clinic]:
    with closing(Store.open(databases.location("blocks"))) as store:
        yield Clinic(store)


def test_a_hub_that_is_silent_for_five_minutes_raises_one_alarm_that_ends_when_it_speaks(clinic: Clinic) -> None:
    for _ in range(5):
        clinic.speak()
        clinic.wait(60.0)
    heard_us = clinic.wall_us - 60 * S
    clinic.wait(SILENT_AFTER_S - 70.0)
    assert clinic.kinds() == []
    clinic.wait(30.0)
    (alarm,) = clinic.ongoing()
    assert (alarm.hub, alarm.kind, alarm.since_us, alarm.ended_us) == (HUB, HUB_SILENT, heard_us, None)
    assert SILENT_AFTER_S * S <= alarm.raised_us - heard_us <= (SILENT_AFTER_S + 20) * S
    clinic.wait(3600.0)
    assert clinic.ongoing() == [alarm]
    clinic.speak()
    clinic.wait(10.0)
    assert (clinic.kinds(), clinic.raised()) == ([], 1)
    clinic.wait(SILENT_AFTER_S + 10.0)
    assert (clinic.kinds(), clinic.raised()) == ([HUB_SILENT], 2)


def test_a_hub_that_never_spoke_since_it_was_registered_is_silent(clinic: Clinic) -> None:
    clinic.wait(10.0)
    clinic.wait(SILENT_AFTER_S - 20.0)
    assert clinic.kinds() == []
    clinic.wait(30.0)
    assert clinic.kinds() == [HUB_SILENT]


def test_blocks_count_as_a_sign_of_a_hub_without_statuses(clinic: Clinic) -> None:
    for _ in range(20):
        clinic.wait(60.0)
        with clinic.store.transaction() as connection:
            note_heard(connection, HUB, clinic.wall_us)
    assert HUB_SILENT not in clinic.kinds()


def test_a_hub_that_was_silent_when_the_clinic_started_raises_exactly_one_alarm(clinic: Clinic) -> None:
    clinic.speak()
    clinic.wait(60.0)
    clinic.be_down(3600.0)
    clinic.wait(RETURN_S - 20.0)
    assert clinic.kinds() == []
    clinic.wait(40.0)
    (alarm,) = clinic.ongoing()
    for _ in range(5):
        clinic.restart()
        clinic.wait(600.0)
    assert (clinic.ongoing(), clinic.raised()) == ([alarm], 1)


def test_hubs_that_return_after_a_restart_raise_no_alarm(clinic: Clinic) -> None:
    clinic.speak()
    clinic.wait(60.0)
    clinic.be_down(3600.0)
    clinic.wait(RETURN_S - 20.0)
    clinic.speak()
    clinic.wait(SILENT_AFTER_S - 20.0)
    assert clinic.raised() == 0


def test_restarts_every_two_minutes_do_not_hide_a_silent_hub(clinic: Clinic) -> None:
    clinic.speak()
    clinic.wait(10.0)
    for _ in range(6):
        clinic.restart()
        clinic.wait(120.0)
    assert clinic.kinds() == [HUB_SILENT]
    assert clinic.raised() == 1


def test_an_alarm_ends_after_a_restart_if_the_hub_spoke_meanwhile(clinic: Clinic) -> None:
    clinic.wait(SILENT_AFTER_S + 20.0)
    assert clinic.kinds() == [HUB_SILENT]
    clinic.be_down(10.0)
    clinic.speak()
    clinic.wait(10.0)
    assert clinic.kinds() == []


@pytest.mark.parametrize("step_s", [-365 * 86_400, -600, 600, 365 * 86_400])
def test_a_step_of_the_clinics_clock_raises_no_alarm_and_hides_none(clinic: Clinic, step_s: int) -> None:
    clinic.speak()
    clinic.wait(60.0)
    clinic.wall_us += step_s * S
    clinic.wait(120.0)
    clinic.speak()
    clinic.wait(SILENT_AFTER_S - 20.0)
    assert clinic.raised() == 0
    clinic.wait(40.0)
    assert clinic.kinds() == [HUB_SILENT]
    clinic.speak()
    clinic.wait(10.0)
    assert clinic.kinds() == []


def test_two_clinics_on_one_store_raise_one_alarm(clinic: Clinic) -> None:
    second = HubWatch(clinic.store, clinic.registry, lambda: clinic.mono_s, lambda: clinic.wall_us)
    for _ in range(40):
        clinic.wait(10.0)
        second.check()
    assert (clinic.kinds(), clinic.raised()) == ([HUB_SILENT], 1)


def test_a_hub_without_a_patient_is_not_expected_to_speak(clinic: Clinic) -> None:
    clinic.registry.of_hub[HUB] = [Assignment("subject-1", 0, START_S + 100)]
    clinic.wait(2 * SILENT_AFTER_S)
    assert clinic.kinds() == [HUB_SILENT]
    clinic.wait(3600.0 + 200.0)  # its assignment is tolerated for another hour
    assert clinic.kinds() == []
    clinic.registry.of_hub[HUB].append(Assignment("subject-2", START_S + 4000))
    clinic.wait(SILENT_AFTER_S - 20.0)
    assert clinic.kinds() == []
    clinic.wait(40.0)
    assert clinic.kinds() == [HUB_SILENT]
    with clinic.store.transaction() as connection:
        assert [state.subject for state in list_states(connection)] == ["subject-2"]


def test_the_alarm_of_a_hub_that_is_not_registered_any_more_ends(clinic: Clinic) -> None:
    clinic.wait(SILENT_AFTER_S + 20.0)
    del clinic.registry.devices[HUB]
    clinic.wait(10.0)
    assert clinic.kinds() == []


def test_each_hub_has_an_alarm_of_its_own(clinic: Clinic) -> None:
    SendingHub("hub-2", "subject-2").register(clinic.registry)
    for _ in range(7):
        clinic.speak()
        clinic.wait(60.0)
    assert [(alarm.hub, alarm.kind) for alarm in clinic.ongoing()] == [("hub-2", HUB_SILENT)]


def test_an_outdated_hub_raises_one_alarm_until_it_is_updated(clinic: Clinic) -> None:
    for _ in range(3):
        clinic.speak(revision=REVISION - 1)
        clinic.wait(20.0)
        clinic.restart()
    assert (clinic.kinds(), clinic.raised()) == ([HUB_OUTDATED], 1)
    clinic.speak(revision=REVISION)
    clinic.wait(10.0)
    assert (clinic.kinds(), clinic.raised()) == ([], 1)


def test_a_hub_that_sends_blocks_and_no_status_is_outdated(clinic: Clinic) -> None:
    clinic.wait(10.0)
    for n in range(8):
        with clinic.store.transaction() as connection:
            note_heard(connection, HUB, clinic.wall_us)
        clinic.wait(60.0)
        assert clinic.kinds() == ([] if n < 5 else [HUB_OUTDATED])

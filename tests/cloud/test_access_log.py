"""Each access of the page to a subject's data is logged before the data is shown, and what cannot be logged is not shown."""

import asyncio
import json

import pytest
import websockets
from fastapi.routing import APIRoute, APIWebSocketRoute
from sqlalchemy import Engine

from cloud.api.access import ACCESS_WINDOW_S, AccessLog
from cloud.api.app import CANNOT_LOG, create_app
from cloud.api.feed import Feed
from cloud.api.readers import choose_reader, choose_scope
from cloud.audit_actors import LOOPBACK, ORIGIN
from cloud.audit_log import AuditLog
from cloud.store import Store
from cloud.store.audit import read_rows
from sync.audit import Action, Actor, AuditEvent, Category, read_row
from sync.errors import TransientError
from sync.records import BeatsRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.running_clinic import RunningClinic, next_message, run_in_clinic
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, heart_rate, waveform
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
ABOUT = "subject=subject-1&hub=hub-1&sensor=strap-1"
RANGE = f"from_us={START_US - 10**8}&to_us={START_US + 10**8}"


@pytest.fixture
def filled(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> Clinic:
    """A clinic with data of subject-1, and an alert of subject-2."""
    hub.send(store, "alert", alert(id="one"))
    hub.send(store, "wave", waveform(START_US, counts(ecg_mv([0.5], 1.0))))
    hub.send(store, "vital", heart_rate(START_US, 72.0), BeatsRecord("strap-1", "ecg", START_US, START_US + 10**7, (), ()))
    clinic.add_hub("hub-2", "subject-2").send(store, "alert", alert(id="two"))
    open_all(store, engine, clinic)
    return clinic


def reads(store: Store) -> list[tuple[str, str | None]]:
    with store.snapshot() as connection:
        events = [read_row(*row).event for row in read_rows(connection)]
    assert {(event.action, event.actor, event.purpose) for event in events} <= {(Action.READ, LOOPBACK, "care")}
    return [(event.category, event.subject) for event in events]


BOTH = ["subject-1", "subject-2"]
ROUTES = {
    "/api/patients": ("overview", BOTH),
    "/api/alerts": ("alerts", BOTH),
    "/api/alerts?after_revision=1": ("alerts", ["subject-2"]),
    "/api/alerts/one?subject=subject-1&hub=hub-1": ("alerts", ["subject-1"]),
    "/api/sensors": ("vitals", ["subject-1"]),
    f"/api/ecg?{ABOUT}&{RANGE}": ("waveforms", ["subject-1"]),
    f"/api/judged?{ABOUT}&{RANGE}": ("vitals", ["subject-1"]),
    f"/api/vitals?{ABOUT}&kind=heart_rate": ("vitals", ["subject-1"]),
}
"""Requests, and what each shows of whom."""


def test_each_request_is_logged_once_in_a_window(store: Store, engine: Engine, filled: Clinic) -> None:
    """Each page has a window of its own."""
    expected = list[tuple[str, str | None]]()
    for path, (category, subjects) in ROUTES.items():
        expected += [(category, subject) for subject in subjects]

        async def test(clinic: RunningClinic, path: str = path) -> None:
            for _ in range(3):
                await clinic.json(path)
            await asyncio.gather(*(clinic.json(path) for _ in range(4)))

        run_in_clinic(store, engine, filled, test)
        assert reads(store) == expected, path


def test_requests_that_show_no_data_are_not_logged(store: Store, engine: Engine, filled: Clinic) -> None:
    nobody = ABOUT.replace("subject-1", "Jane%20Doe")

    async def test(clinic: RunningClinic) -> None:
        for path in (
            "/",
            "/api/counters",
            *(f"/api/{name}?{nobody}&{RANGE}" for name in ("ecg", "judged")),
            f"/api/vitals?{nobody}&kind=heart_rate",
        ):
            assert (await clinic.get(path))[0] == 200
        assert (await clinic.get("/api/alerts/none?subject=subject-1&hub=hub-1"))[0] == 404

    run_in_clinic(store, engine, filled, test)
    assert reads(store) == []


def test_live_data_is_logged_before_it_is_sent(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "vital", heart_rate(START_US, 70.0))
    open_all(store, engine, clinic)

    async def test(running: RunningClinic) -> None:
        async with running.websocket() as viewer:
            hub.send(store, "alert", alert(id="one"))
            running.opener.wake()
            await next_message(viewer, "alert")
            assert ("alerts", "subject-1") in reads(store)
            hub.send(store, "wave", waveform(START_US, counts(ecg_mv([0.5], 1.0))))
            running.opener.wake()
            await next_message(viewer, "ecg")
            assert ("waveforms", "subject-1") in reads(store)
            await next_message(viewer, "sensor")  # the last of this batch

    run_in_clinic(store, engine, clinic, test)
    assert sorted(reads(store)) == [(name, "subject-1") for name in ("alerts", "overview", "vitals", "waveforms")]


def fail(_self: AuditLog, *_events: AuditEvent) -> None:
    raise TransientError("the store is locked")


def test_data_whose_access_cannot_be_logged_is_not_shown(
    store: Store, engine: Engine, filled: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditLog, "append", fail)

    async def test(clinic: RunningClinic) -> None:
        for path in ROUTES:
            status, _, body = await clinic.get(path)
            assert (status, json.loads(body)) == (503, {"detail": "the clinic's database cannot be used now"})
        async with clinic.websocket() as viewer:
            filled.add_hub("hub-3", "subject-3").send(store, "alert", alert(id="three"))
            clinic.opener.wake()
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await next_message(viewer, "alert")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == CANNOT_LOG

    run_in_clinic(store, engine, filled, test)


def test_a_window_ends_and_readers_are_told_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    access = AccessLog(AuditLog(store, lambda: START_US), lambda: now_s[0])
    other = Actor("dr-2", "staff", ORIGIN.name)
    for reader in (LOOPBACK, LOOPBACK, other):
        access.note(reader, Category.ALERTS, ["subject-1", "not a name"])
    now_s[0] = ACCESS_WINDOW_S - 1
    access.note(LOOPBACK, Category.ALERTS, ["subject-1", "subject-2"])
    now_s[0] = ACCESS_WINDOW_S
    access.note(LOOPBACK, Category.ALERTS, ["subject-1"])
    monkeypatch.setattr("cloud.api.access.MAX_REMEMBERED", 0)
    access.note(LOOPBACK, Category.VITALS, ["subject-1"])
    access.note(LOOPBACK, Category.ALERTS, ["subject-1"])
    with store.snapshot() as connection:
        found = [(event.actor.id, event.subject) for event in (read_row(*row).event for row in read_rows(connection))]
    mine = "loopback"
    assert found == [(mine, "subject-1"), ("dr-2", "subject-1"), (mine, "subject-2"), *[(mine, "subject-1")] * 3]


@pytest.mark.sqlite_only
def test_every_route_to_data_knows_its_reader(store: Store, engine: Engine) -> None:
    routes = [
        route for route in create_app(store, engine, Feed(engine)).routes if isinstance(route, APIRoute | APIWebSocketRoute)
    ]
    for route in routes:
        calls = {dependency.call for dependency in route.dependant.dependencies}
        assert (choose_reader in calls) == (choose_scope in calls and route.path != "/api/counters"), route.path
    assert len(routes) > 7

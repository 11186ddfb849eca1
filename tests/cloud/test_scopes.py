"""A viewer of some subjects gets nothing of the others, by any route or message, whatever the others do."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from sqlalchemy import Engine
from starlette.routing import Mount

from cloud.api.app import create_app
from cloud.api.feed import RESYNC, Feed
from cloud.api.readers import choose_scope
from cloud.opener import Opener
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from cloud.store.hub_states import HUB_SILENT, note_known, raise_alarm
from sync.records import AlertRecord, BeatsRecord, FindingRecord, GapRecord, StatusRecord
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.running_clinic import RunningClinic, next_message, run_in_clinic
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, heart_rate, strip, times, waveform
from tests.databases import ON_BOTH

DATABASES = ON_BOTH

MINE: Final = Scope(frozenset({"subject-1"}))
NOBODY: Final = Scope(frozenset())
WITHOUT_DATA: Final = {"/"}
"""Routes that show nothing of any subject."""
ABOUT_SENSOR: Final = "subject={subject}&hub={hub}&sensor=strap-1"
ADDRESSES: Final = {
    "/api/hubs": ["/api/hubs"],
    "/api/patients": ["/api/patients"],
    "/api/commands": ["/api/commands?subject={subject}"],
    "/api/alerts": ["/api/alerts", "/api/alerts?after_revision=1"],
    "/api/alerts/{id_:path}": ["/api/alerts/tachycardia-0?subject={subject}&hub={hub}"],
    "/api/sensors": ["/api/sensors"],
    "/api/ecg": [f"/api/ecg?{ABOUT_SENSOR}&from_us={START_US}&to_us={START_US + 10**7}"],
    "/api/vitals": [f"/api/vitals?{ABOUT_SENSOR}&kind=heart_rate"],
    "/api/judged": [f"/api/judged?{ABOUT_SENSOR}&from_us={START_US}&to_us={START_US + 10**8}"],
    "/api/counters": ["/api/counters"],
}
"""Requests by each route to data."""


@pytest.fixture
def other(clinic: Clinic) -> Hub:
    return clinic.add_hub("hub-0", "subject-2")  # opened before hub-1


@pytest.fixture
def opener(store: Store, engine: Engine, clinic: Clinic) -> Opener:
    opener = clinic.opener(store, engine)
    opener.check_databases()
    return opener


def send_all(store: Store, hub: Hub, opener: Opener, n: int = 0) -> None:
    """Send one of each record that a route or a message shows, and open it."""
    at_us = START_US + n * 1_000_000
    raised = alert(onset_us=at_us, id=f"tachycardia-{n}", strip=strip(at_us, [0.5], 2.0))
    hub.send(store, "alert", raised)
    hub.send(store, "alert", alert("pause", onset_us=at_us, end_us=at_us + 9))
    hub.send(store, "wave", waveform(at_us, counts(ecg_mv([0.5], 1.0))), GapRecord("strap-1", "ecg", at_us, None, 7, "lost"))
    hub.send(store, "vital", heart_rate(at_us, 61.0 + n), StatusRecord("strap-1", "battery", times(at_us), 87))
    hub.send(store, "vital", FindingRecord("strap-1", "af", at_us, None, "rule"))
    hub.send(store, "vital", BeatsRecord("strap-1", "ecg", at_us, at_us + 10**7, (at_us // 1000,), (n % 3,)))
    while opener.open_batch() is not None:
        pass
    with store.transaction() as connection:
        note_known(connection, hub.name, hub.subject, at_us)
        raise_alarm(connection, hub.name, HUB_SILENT, at_us, at_us)


def answers(store: Store, engine: Engine, scope: Scope, hub: Hub) -> dict[str, tuple[int, Any]]:
    """What each route answers to a viewer of this scope, asked about the subject and hub of `hub`, by address."""
    asked = [text.format(subject=hub.subject, hub=hub.name) for addresses in ADDRESSES.values() for text in addresses]

    async def ask(clinic: RunningClinic) -> dict[str, tuple[int, Any]]:
        found = {address: await clinic.get(address) for address in asked}
        return {address: (status, json.loads(body)) for address, (status, _, body) in found.items()}

    return run_in_clinic(store, engine, hub.clinic, ask, scope)


def without_order(answer: Any) -> Any:
    """The answer without the numbers that order all alerts of the clinic, and without the time of the answer."""
    if isinstance(answer, dict):
        return {name: without_order(value) for name, value in answer.items() if name not in {"revision", "now_us"}}
    return [without_order(one) for one in answer] if isinstance(answer, list | tuple) else answer


def depends_on_scope(dependant: Dependant) -> bool:
    return any(one.call is choose_scope for one in dependant.dependencies)


def test_every_route_takes_the_scope_of_its_viewer(store: Store, engine: Engine) -> None:
    app = create_app(store, engine, Feed(engine))
    assert {type(route) for route in app.routes} == {APIRoute, APIWebSocketRoute, Mount}
    assert {route.path for route in app.routes if isinstance(route, Mount)} == {"/static/reporting", "/static"}
    routes = [route for route in app.routes if isinstance(route, APIRoute | APIWebSocketRoute)]
    assert {route.path for route in routes if not depends_on_scope(route.dependant)} == WITHOUT_DATA
    assert {route.path for route in routes} - WITHOUT_DATA == {*ADDRESSES, "/ws"}


def test_the_data_of_others_changes_no_answer(store: Store, engine: Engine, hub: Hub, other: Hub, opener: Opener) -> None:
    send_all(store, hub, opener)
    before = answers(store, engine, MINE, hub)
    assert {status for status, _ in before.values()} == {200}
    assert all("strap-1" in str(answer) for address, (_, answer) in before.items() if re.search("alerts|sensors|ecg", address))
    for n in range(2):
        send_all(store, other, opener, n)
    other.send_block(store, other.seal("vital", b"\xff"))
    opener.open_batch()
    assert without_order(answers(store, engine, MINE, hub)) == without_order(before)
    assert without_order(answers(store, engine, EVERY_SUBJECT, hub)) != without_order(before)


def test_the_newest_revision_is_that_of_the_scope(store: Store, engine: Engine, hub: Hub, other: Hub, opener: Opener) -> None:
    send_all(store, hub, opener)
    send_all(store, other, opener)
    newest = {}
    for scope in (MINE, EVERY_SUBJECT, NOBODY):
        found = answers(store, engine, scope, hub)
        newest[scope] = {found[address][1]["revision"] for address in ("/api/alerts", "/api/alerts?after_revision=1")}
    assert newest == {MINE: {2}, EVERY_SUBJECT: {4}, NOBODY: {0}}


def test_questions_about_others_find_nothing(store: Store, engine: Engine, hub: Hub, other: Hub, opener: Opener) -> None:
    send_all(store, hub, opener)
    unknown = other.clinic.add_hub("hub-9", "subject-9")
    of_unknown = answers(store, engine, MINE, unknown)
    send_all(store, other, opener)
    of_other = answers(store, engine, MINE, other)
    renamed = str(of_unknown).replace("subject-9", "subject-2").replace("hub-9", "hub-0")
    assert re.sub(r"'now_us': \d+", "", str(of_other)) == re.sub(r"'now_us': \d+", "", renamed)


def test_a_viewer_of_nobody_gets_nothing(store: Store, engine: Engine, hub: Hub, opener: Opener) -> None:
    send_all(store, hub, opener)
    for address, (status, answer) in answers(store, engine, NOBODY, hub).items():
        assert status == (404 if "tachycardia" in address else 200)
        assert not re.search("'samples': [1-9]|'alerts': [1-9]|'opened': [1-9]|'mv'|at_us", str(answer)), address


def test_numbers_that_belong_to_no_subject_are_for_the_scope_of_every_subject(
    store: Store, engine: Engine, hub: Hub, other: Hub, opener: Opener
) -> None:
    for one in (hub, other):
        send_all(store, one, opener)
    hub.send_block(store, hub.seal("vital", b"\xff"))
    opener.open_batch()
    blocks = {scope: answers(store, engine, scope, hub)["/api/counters"][1] for scope in (MINE, EVERY_SUBJECT)}
    totals = {"samples": 130, "missing_samples": 7, "gaps": 1, "alerts": 2, "unknown_records": 0}
    assert blocks[MINE] == {"blocks": {"opened": 6}} | totals
    assert blocks[EVERY_SUBJECT]["blocks"]["unopened"] == 1
    assert (blocks[EVERY_SUBJECT]["blocks"]["stored"], blocks[EVERY_SUBJECT]["blocks"]["opened"]) == (13, 12)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def test_each_viewer_gets_the_messages_of_its_scope(store: Store, engine: Engine, hub: Hub, other: Hub, opener: Opener) -> None:
    async def run() -> dict[Scope, list[dict[str, Any]]]:
        feed = Feed(engine)
        scopes = (MINE, NOBODY, EVERY_SUBJECT)
        async with AsyncExitStack() as stack:
            viewers = {scope: await stack.enter_async_context(feed.register_viewer(scope)) for scope in scopes}
            for one in (hub, other):
                send_all(store, one, opener)
                await feed.send_changes()
            return {scope: [one.queue.get_nowait() for _ in range(one.queue.qsize())] for scope, one in viewers.items()}

    found = asyncio.run(run())
    kinds = {"alert", "patient", "ecg", "vital", "sensor"}
    assert found[NOBODY] == []
    assert {message["subject"] for message in found[MINE]} == {"subject-1"}
    assert {message["type"] for message in found[MINE]} == kinds
    assert not {"subject-2", "hub-0"} & set(leaves(found[MINE]))
    assert found[EVERY_SUBJECT][: len(found[MINE])] == found[MINE]
    assert {message["subject"] for message in found[EVERY_SUBJECT]} == {"subject-1", "subject-2"}


def test_the_backlog_of_another_makes_no_viewer_reload(
    store: Store, engine: Engine, hub: Hub, other: Hub, opener: Opener
) -> None:
    def many() -> list[AlertRecord]:
        return [alert(onset_us=START_US + n) for n in range(100)]

    async def run() -> list[list[Any]]:
        feed = Feed(engine)
        async with feed.register_viewer(MINE) as mine, feed.register_viewer(EVERY_SUBJECT) as every:
            other.send(store, "alert", *many())
            hub.send(store, "alert", alert())
            while opener.open_batch() is not None:
                pass
            await feed.send_changes()
            return [[one.queue.get_nowait() for _ in range(one.queue.qsize())] for one in (mine, every)]

    mine, every = asyncio.run(run())
    assert [message["type"] for message in mine] == ["alert", "patient"]
    assert every == [RESYNC]


def test_a_websocket_is_a_viewer_of_its_scope(store: Store, engine: Engine, hub: Hub, other: Hub) -> None:
    async def watch(clinic: RunningClinic) -> list[str]:
        found: list[str] = []
        async with clinic.websocket() as viewer:
            other.send(store, "alert", alert())
            hub.send(store, "alert", alert())
            clinic.opener.wake()
            while "subject-1" not in found:
                found.append((await next_message(viewer, "alert"))["subject"])
        return found

    assert run_in_clinic(store, engine, hub.clinic, watch, MINE) == ["subject-1"]
    assert run_in_clinic(store, engine, hub.clinic, watch, EVERY_SUBJECT) == ["subject-2", "subject-1"]

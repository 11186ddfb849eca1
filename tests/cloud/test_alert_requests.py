"""A reader asks to close an alert: from the page only, logged before, signed where the key is, once, and shown as it is."""

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cloud import tables
from cloud.alert_requests import WAIT_LIMIT_S, CommandSigner
from cloud.audit_actors import operator
from cloud.audit_log import AuditLog
from cloud.clock import now_us
from cloud.commands import LIFE_S, send_command
from cloud.projections_database import erase_subject
from cloud.registry import hub_file, load_hub, save_hub
from cloud.scope import Scope
from cloud.store import Store
from cloud.store.audit import read_rows
from cloud.store.commands import CommandAnswer, list_commands, note_answers
from sync.audit import AuditEvent, read_row
from sync.commands import CommandKey, CommandKind, decode_command
from sync.errors import TransientError
from sync.recipients import RecipientKeyPair
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.running_clinic import RunningClinic, run_in_clinic
from tests.cloud.synthetic import alert
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
HUB_KEY = CommandKey(RecipientKeyPair.generate())
CLOSE = {"subject": "subject-1", "hub": "hub-1", "alert": "one", "kind": "close_alert"}
Json = dict[str, Any]


@pytest.fixture
def filled(clinic: Clinic, hub: Hub, store: Store, engine: Engine) -> Clinic:
    """A clinic with an open alert "one", an ended alert "two" and an open technical alert "three"."""
    path = hub_file(clinic.folder.hubs, "hub-1")
    save_hub(clinic.folder.hubs, replace(load_hub(path), command_key=HUB_KEY.public))
    onset_us = now_us()
    records = (alert(onset_us=onset_us, id="one"), alert(onset_us=onset_us, id="two", end_us=onset_us + 1))
    hub.send(store, "alert", *records, alert("pairing_lost", "low", onset_us, id="three"))
    open_all(store, engine, clinic)
    return clinic


class Asking:
    """Requests to a running clinic, as its page sends them."""

    def __init__(self, running: RunningClinic) -> None:
        self.running = running

    async def ask(self, body: object = CLOSE, **headers: str | None) -> int:
        own = {"origin": f"http://127.0.0.1:{self.running.port}", "content-type": "application/json"}
        sent = {name: value for name, value in (own | headers).items() if value is not None}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, _ = await self.running.request("POST", "/api/commands", data, **sent)
        return status

    async def shown(self, subject: str = "subject-1") -> list[Json]:
        found: list[Json] = (await self.running.json(f"/api/commands?subject={subject}"))["commands"]
        return found

    async def states(self) -> list[str]:
        return [one["state"] for one in await self.shown()]


def make_signer(store: Store, engine: Engine, clinic: Clinic, *, late_s: int = 0) -> CommandSigner:
    return CommandSigner(store, engine, clinic.registry, clinic.signing.command, lambda: now_us() + late_s * 1_000_000)


def events(store: Store) -> list[AuditEvent]:
    with store.transaction() as connection:
        return [read_row(*row).event for row in read_rows(connection)]


def actions(store: Store) -> list[str]:
    return [event.action for event in events(store) if "command" in event.action]


def answer(store: Store, refusal: str | None = None) -> None:
    with store.transaction() as connection:
        note_answers(connection, [CommandAnswer("hub-1", one.number, refusal, now_us()) for one in list_commands(connection)])


@pytest.mark.parametrize("kind", ["close_alert", "mark_false"])
def test_what_was_asked_for_is_signed_once_and_shown_as_the_hub_answers(
    store: Store, engine: Engine, filled: Clinic, kind: str
) -> None:
    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        assert await asking.ask(CLOSE | {"kind": kind}) == 202
        (shown,) = await asking.shown()
        wanted = {"hub": "hub-1", "kind": kind, "alert": "one", "by": "loopback", "state": "waiting", "refusal": None}
        assert {name: shown[name] for name in wanted} == wanted
        for _ in range(2):
            make_signer(store, engine, filled).sign_waiting()
        (shown,) = await asking.shown()
        assert {name: shown[name] for name in wanted} == wanted | {"state": "sent"}
        with store.transaction() as connection:
            (stored,) = list_commands(connection)
        command = decode_command(stored.payload, "hub-1", HUB_KEY, filled.signing.command.public)
        assert (command.kind, command.subject, command.arguments) == (kind, "subject-1", {"alert": "one"})
        assert command.number == shown["number"]
        answer(store)
        assert await asking.states() == ["applied"]

    run_in_clinic(store, engine, filled, test)
    asked, sent = (event for event in events(store) if "command" in event.action)
    assert (asked.action, sent.action) == ("ask-command", "send-command")
    assert asked.actor == sent.actor
    assert (asked.actor.id, asked.subject, asked.objects[0]) == ("loopback", "subject-1", "hub:hub-1")


def test_another_site_cannot_ask_with_the_readers_certificate(store: Store, engine: Engine, filled: Clinic) -> None:
    foreign: list[dict[str, str | None]] = [
        {"origin": None},
        {"origin": ""},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost:8600"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ]

    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        assert [await asking.ask(**headers) for headers in foreign] == [403] * len(foreign)
        assert await asking.shown() == []
        assert await asking.ask(**{"sec-fetch-site": "same-origin"}) == 202

    run_in_clinic(store, engine, filled, test)
    assert actions(store) == ["ask-command"]


def test_a_request_that_is_not_allowed_changes_nothing(store: Store, engine: Engine, filled: Clinic) -> None:
    bodies: list[tuple[object, int]] = [
        (CLOSE | {"kind": "restart"}, 422),
        (CLOSE | {"kind": "limits"}, 422),
        (CLOSE | {"number": 1}, 422),
        ({name: value for name, value in CLOSE.items() if name != "alert"}, 422),
        (CLOSE | {"alert": 1}, 422),
        (b"{", 422),
        (b"x" * 5000, 413),
        (CLOSE | {"alert": "four"}, 404),
        (CLOSE | {"hub": "hub-2"}, 404),
        (CLOSE | {"subject": "subject-2"}, 404),
        (CLOSE | {"alert": "two"}, 409),
        (CLOSE | {"alert": "three"}, 409),
    ]

    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        assert [await asking.ask(body) for body, _ in bodies] == [status for _, status in bodies]
        assert await asking.ask(**{"transfer-encoding": "chunked"}) == 413
        assert await asking.shown() == []

    run_in_clinic(store, engine, filled, test)
    assert actions(store) == []


def test_an_alert_outside_the_viewers_scope_is_neither_shown_nor_closed(store: Store, engine: Engine, filled: Clinic) -> None:
    send(store, filled)

    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        assert await asking.ask() == 404
        assert await asking.shown() == []

    run_in_clinic(store, engine, filled, test, Scope(frozenset({"subject-2"})))


def test_the_same_is_not_asked_twice_while_the_hub_may_answer(store: Store, engine: Engine, filled: Clinic) -> None:
    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        assert await asking.ask() == 202
        assert await asking.ask() == 409
        make_signer(store, engine, filled).sign_waiting()
        assert await asking.ask(CLOSE | {"kind": "mark_false"}) == 409
        answer(store, "time")
        assert [(one["state"], one["refusal"]) for one in await asking.shown()] == [("refused", "time")]
        assert await asking.ask() == 202

    run_in_clinic(store, engine, filled, test)


def test_what_cannot_be_logged_is_not_asked(
    store: Store, engine: Engine, filled: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise TransientError("the store is locked")

    async def test(running: RunningClinic) -> None:
        monkeypatch.setattr(AuditLog, "append", fail)
        assert await Asking(running).ask() == 503

    run_in_clinic(store, engine, filled, test)
    with engine.connect() as connection:
        assert connection.execute(select(tables.alert_requests)).all() == []


def test_a_request_that_no_signer_took_in_time_expires(store: Store, engine: Engine, filled: Clinic) -> None:
    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        assert await asking.ask() == 202
        make_signer(store, engine, filled, late_s=WAIT_LIMIT_S + 1).sign_waiting()
        assert await asking.states() == ["expired"]

    run_in_clinic(store, engine, filled, test)
    assert actions(store) == ["ask-command"]


def test_a_hub_that_takes_no_command_or_has_another_patient_is_not_sent_one(
    store: Store, engine: Engine, filled: Clinic
) -> None:
    hubs = filled.folder.hubs
    registered = load_hub(hub_file(hubs, "hub-1"))
    cases = [(replace(registered, command_key=None), "hub"), (registered.assign("subject-2", now_us() // 1_000_000), "subject")]

    async def test(running: RunningClinic) -> None:
        asking = Asking(running)
        for changed, refusal in cases:
            save_hub(hubs, changed)
            assert await asking.ask() == 202
            make_signer(store, engine, filled).sign_waiting()
            newest, *_ = await asking.shown()
            assert (newest["state"], newest["refusal"]) == ("refused", refusal)
            save_hub(hubs, registered)

    run_in_clinic(store, engine, filled, test)
    with store.transaction() as connection:
        assert list_commands(connection) == []


def test_a_forged_row_gets_no_other_command_signed(store: Store, engine: Engine, filled: Clinic) -> None:
    """Whoever takes the page's process over can write rows."""
    row = {"id": "a", "role": "staff", "reader": "dr-may", "asked_us": now_us(), "state": "waiting"}
    rows = [
        row | CLOSE | {"kind": "restart"},
        row | CLOSE | {"id": "b", "alert": "unknown"},
        row | CLOSE | {"id": "c", "subject": "subject-2"},
    ]
    with engine.begin() as connection:
        connection.execute(tables.alert_requests.insert(), rows)
    make_signer(store, engine, filled).sign_waiting()
    with engine.connect() as connection:
        found = connection.execute(select(tables.alert_requests.c["state", "refusal"])).all()
    assert [tuple(one) for one in found] == [("not_made", "alert")] * 3
    with store.transaction() as connection:
        assert list_commands(connection) == []


def test_a_kill_between_both_databases_makes_no_second_command(
    store: Store, engine: Engine, filled: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(running: RunningClinic) -> None:
        assert await Asking(running).ask() == 202

    run_in_clinic(store, engine, filled, test)
    signer = make_signer(store, engine, filled)
    with engine.connect() as connection:
        (row,) = connection.execute(select(tables.alert_requests)).all()
    signer.sign_waiting()
    with engine.begin() as connection:  # as if the last write had not been made
        connection.execute(tables.alert_requests.update().values(state=row.state))
    signer.sign_waiting()
    with store.transaction() as connection:
        assert [command.request for command in list_commands(connection)] == [row.id]
    assert actions(store) == ["ask-command", "send-command"]


def send(store: Store, clinic: Clinic) -> None:
    """A command of the operator about the patient."""
    hub = load_hub(hub_file(clinic.folder.hubs, "hub-1"))
    send_command(store, clinic.signing.command, hub, CommandKind.UPLOAD, {"policy": "all"}, operator(), now_us())


def test_commands_of_the_operator_are_listed_too_and_reading_is_logged(store: Store, engine: Engine, filled: Clinic) -> None:
    send(store, filled)

    async def test(running: RunningClinic) -> None:
        (shown,) = await Asking(running).shown()
        assert (shown["kind"], shown["alert"], shown["by"], shown["state"]) == ("upload", None, operator().id, "sent")
        assert await Asking(running).shown("subject-2") == []

    run_in_clinic(store, engine, filled, test)
    read = [(event.category, event.subject) for event in events(store) if event.action == "read"]
    assert read == [("commands", "subject-1")]
    assert LIFE_S > WAIT_LIMIT_S


def test_erasing_a_subject_deletes_what_was_asked_about_them(store: Store, engine: Engine, filled: Clinic) -> None:
    async def test(running: RunningClinic) -> None:
        assert await Asking(running).ask() == 202

    run_in_clinic(store, engine, filled, test)
    erase_subject(engine, "subject-1")
    with engine.connect() as connection:
        assert connection.execute(select(tables.alert_requests)).all() == []

"""While a page is open, acknowledgements ask the hubs of its patients to commit every second."""

import asyncio

import pytest
from sqlalchemy import Engine

from cloud.api import watching
from cloud.api.watching import WATCH_S, renew_watch, watch_patients
from cloud.clock import now_us
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from sync.errors import TransientError
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.running_clinic import RunningClinic, run_in_clinic
from tests.cloud.synthetic import START_US, heart_rate
from tests.databases import ON_BOTH

DATABASES = ON_BOTH

SECOND_US = 1_000_000


def live_s(store: Store, hub: Hub, at_us: int) -> int:
    """What an acknowledgement at this time asks the hub for."""
    ack, _ = hub.receive(store, hub.message(hub.seal_records("vital", heart_rate(at_us, 61.0))), at_us)
    return ack.live_s


def test_acknowledgements_say_how_long_somebody_watches(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    assert live_s(store, hub, START_US) == 0
    open_all(store, engine, clinic)
    watch_patients(store, engine, EVERY_SUBJECT, START_US)
    assert live_s(store, hub, START_US) == WATCH_S
    assert live_s(store, hub, START_US + (WATCH_S + 1) * SECOND_US) == 0
    watch_patients(store, engine, EVERY_SUBJECT, START_US + (WATCH_S + 1) * SECOND_US)
    assert live_s(store, hub, START_US + (WATCH_S + 1) * SECOND_US) == WATCH_S


def test_a_hub_of_a_patient_that_the_page_does_not_know_is_not_asked(store: Store, engine: Engine, clinic: Clinic) -> None:
    watch_patients(store, engine, EVERY_SUBJECT, START_US)
    assert live_s(store, clinic.add_hub("hub-2", "subject-2"), START_US) == 0


def test_an_open_page_watches_the_patients_of_its_viewers_scope(store: Store, engine: Engine, clinic: Clinic, hub: Hub) -> None:
    other = clinic.add_hub("hub-2", "subject-2")
    for one in (hub, other):
        assert live_s(store, one, START_US) == 0
    open_all(store, engine, clinic)

    async def open_page(running: RunningClinic) -> None:
        async with running.websocket():
            while not live_s(store, other, now_us()):
                await asyncio.sleep(0.01)

    run_in_clinic(store, engine, clinic, open_page, Scope(frozenset({"subject-2"})))
    assert live_s(store, other, now_us()) > 0
    assert live_s(store, hub, now_us()) == 0


@pytest.mark.sqlite_only
def test_a_locked_store_is_tried_again(store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[None] = []

    def fail(*_: object) -> None:
        attempts.append(None)
        raise TransientError("locked")

    async def run() -> None:
        monkeypatch.setattr(watching, "RENEW_S", 0)
        monkeypatch.setattr(watching, "watch_patients", fail)
        task = asyncio.create_task(renew_watch(store, engine, EVERY_SUBJECT))
        async with asyncio.timeout(10):
            while len(attempts) < 2:
                await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())

"""A hub whose buffer was restored from a backup, or that was copied, sends again: nothing is displaced, nothing conflicts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.api import alert_queries
from cloud.api.alert_queries import ListCursor
from cloud.scope import EVERY_SUBJECT
from tests.cloud.synthetic import START_US, alert, heart_rate
from tests.cloud.two_patients import RegisteredHub, TwoPatients
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH


@pytest.fixture
def clinic(tmp_path: Path, databases: Databases) -> Iterator[TwoPatients]:
    clinic = TwoPatients(tmp_path, databases)
    yield clinic
    clinic.stop()
    for hub in clinic.hubs.values():
        hub.outbox.close()


def send_alert(clinic: TwoPatients, hub: RegisteredHub, name: str) -> None:
    hub.put({"alert": [alert(id=name)], "vital": [heart_rate(START_US, 61.0)]})
    clinic.receive(hub)
    assert not any(hub.outbox.statistics().pending.values())


def shown(clinic: TwoPatients) -> set[str]:
    return {found["id"] for found in alert_queries.list_alerts(clinic.engine, EVERY_SUBJECT, ListCursor(0))["alerts"]}


def test_alerts_of_a_buffer_that_was_rolled_back_are_shown(clinic: TwoPatients) -> None:
    hub = clinic.hubs["hub-1"]
    send_alert(clinic, hub, "before")
    hub.outbox.close()
    backup = shutil.copytree(hub.folder, hub.folder.with_name("backup"))
    for name in ("first", "second", "third"):
        hub.outbox = hub.open()
        send_alert(clinic, hub, name)
        hub.outbox.close()
        shutil.copy(backup / "outbox.db", hub.folder / "outbox.db")
    hub.outbox = hub.open()
    assert shown(clinic) == {"before", "first", "second", "third"}
    counts = clinic.store.counts()
    assert (counts.stored, counts.conflicts, counts.quarantined) == (8, 0, 0)
    assert counts.copied_hubs == 1  # a buffer that goes back again and again looks like two machines


def test_alerts_of_both_machines_with_one_identity_are_shown_and_the_copy_is_reported(clinic: TwoPatients) -> None:
    hub = clinic.hubs["hub-1"]
    send_alert(clinic, hub, "before")
    hub.outbox.close()
    folders = [hub.folder, shutil.copytree(hub.folder, hub.folder.with_name("copy"))]
    for number in range(3):
        for machine, hub.folder in enumerate(folders):
            hub.outbox = hub.open()
            send_alert(clinic, hub, f"{machine}-{number}")
            hub.outbox.close()
    hub.outbox = hub.open()
    assert shown(clinic) == {"before", *(f"{machine}-{number}" for machine in range(2) for number in range(3))}
    counts = clinic.store.counts()
    assert (counts.stored, counts.conflicts, counts.quarantined, counts.copied_hubs) == (14, 0, 0, 1)
    (ack,) = [clinic.handle(message) for message in hub.sent[-1:]]
    assert ack.copied

"""`pulsegate-cloud hubs` and `/api/hubs`: what the clinic knows of its hubs."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine

from cloud import cli
from cloud.cli_hubs import make_table
from cloud.hub_overview import list_hubs
from cloud.outdated import GRACE_S
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from cloud.store.hub_states import HUB_OUTDATED, HUB_SILENT, note_known, note_outdated, note_status, raise_alarm
from cloud.store.tables import hub_states
from sync.signing import SigningKey, Use
from sync.status import Backlog, Battery, HubStatus, encode_status
from tests.clinic_testbed import Clinic
from tests.cloud.running_clinic import run_clinic
from tests.cloud_ingest.ingest_testbed import NOW_US
from tests.cloud_ingest.test_statuses import STATUS
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
S = 1_000_000
FULL: HubStatus = replace(
    STATUS,
    at_us=NOW_US + 2 * S,
    backlog=(Backlog("alert", 0, None), Backlog("vital", 3, 12), Backlog("wave", 40, 7200), Backlog("archive", 0, None)),
    battery=Battery(81, is_charging=True),
    certificate_days=5,
)


def fill(store: Store) -> None:
    """hub-1 is well, hub-2 never spoke and is silent, hub-3 is outdated."""
    device = SigningKey.generate(Use.DEVICE)
    with store.transaction() as connection:
        for n in (1, 2, 3):
            note_known(connection, f"hub-{n}", f"subject-{n}", NOW_US)
        note_status(connection, FULL, encode_status(FULL, device), NOW_US)
        raise_alarm(connection, "hub-2", HUB_SILENT, NOW_US, NOW_US + 300 * S)
        old = replace(FULL, hub="hub-3", version="0.0.9", revision=0, battery=None, certificate_days=None)
        note_status(connection, old, encode_status(old, device), NOW_US)
        note_outdated(connection, "hub-3", NOW_US)
        raise_alarm(connection, "hub-3", HUB_OUTDATED, NOW_US, NOW_US)


def fetch_hubs(store: Store, engine: Engine, clinic: Clinic, scope: Scope) -> list[dict[str, Any]]:
    """What the page gets."""

    async def main() -> list[dict[str, Any]]:
        async with run_clinic(store, engine, clinic, scope) as running:
            return list((await running.json("/api/hubs"))["hubs"])

    return asyncio.run(main())


def lines_of(store: Store, now_us: int) -> list[str]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(make_table(list_hubs(store, EVERY_SUBJECT, now_us), now_us))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_the_table_has_what_an_operator_looks_for(store: Store) -> None:
    fill(store)
    assert lines_of(store, NOW_US + 400 * S) == [
        "hub last seen version backlog battery certificate alarms",
        "hub-1 7 min ago 0.1.0 43 blocks, 2 h 81 %, charging 5 days",
        "hub-2 never unknown unknown unknown unknown silent",
        "hub-3 7 min ago 0.0.9 43 blocks, 2 h none none outdated: update it by 2026-12-20",
    ]
    assert lines_of(store, NOW_US + GRACE_S * S)[3].endswith("outdated: only its alerts are taken")


def test_programs_get_the_same_as_json(store: Store, engine: Engine, clinic: Clinic) -> None:
    fill(store)
    hubs = {hub["hub"]: hub for hub in fetch_hubs(store, engine, clinic, EVERY_SUBJECT)}
    assert list(hubs) == ["hub-1", "hub-2", "hub-3"]
    assert hubs["hub-1"] | {"status": None} == {
        "hub": "hub-1",
        "subject": "subject-1",
        "heard_us": NOW_US,
        "status_us": NOW_US,
        "update_by_s": None,
        "is_refused": False,
        "alarms": [],
        "status": None,
    }
    assert hubs["hub-1"]["status"] == {
        "version": "0.1.0",
        "revision": FULL.revision,
        "backlog": {
            "alert": {"blocks": 0, "oldest_s": None},
            "vital": {"blocks": 3, "oldest_s": 12},
            "wave": {"blocks": 40, "oldest_s": 7200},
            "archive": {"blocks": 0, "oldest_s": None},
        },
        "battery": {"percent": 81, "is_charging": True},
        "clock_offset_us": None,
        "clock_difference_us": 2 * S,
        "certificate_days": 5,
        "models": 1,
        "free_bytes": 10**9,
        "links": {"streaming": 1},
    }
    assert hubs["hub-2"]["alarms"] == [
        {"kind": HUB_SILENT, "priority": "medium", "since_us": NOW_US, "raised_us": NOW_US + 300 * S}
    ]
    assert (hubs["hub-3"]["update_by_s"], hubs["hub-3"]["alarms"][0]["priority"]) == (NOW_US // S + GRACE_S, "low")


def test_a_viewer_sees_the_hubs_of_its_patients_only(store: Store, engine: Engine, clinic: Clinic) -> None:
    fill(store)
    found = fetch_hubs(store, engine, clinic, Scope(frozenset({"subject-2"})))
    assert [hub["hub"] for hub in found] == ["hub-2"]


def test_a_status_that_cannot_be_read_any_more_hides_no_hub(store: Store) -> None:
    fill(store)
    with store.transaction() as connection:
        connection.execute(hub_states.update().values(status=b"of another version"))
    assert [hub.status for hub in list_hubs(store, EVERY_SUBJECT, NOW_US)] == [None] * 3


@pytest.mark.sqlite_only
def test_the_command_prints_a_table_or_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store.open(tmp_path / "blocks.db").close()
    assert cli.main(["hubs", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split()[:3] == ["hub", "last", "seen"]
    store = Store.open(tmp_path / "blocks.db")
    fill(store)
    store.close()
    assert cli.main(["hubs", "--data", str(tmp_path), "--json"]) == 0
    hubs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [hub["hub"] for hub in hubs] == ["hub-1", "hub-2", "hub-3"]
    assert hubs[2]["update_by_s"] == NOW_US // S + GRACE_S
    assert cli.main(["hubs", "--data", str(tmp_path / "missing")]) == 1
    assert "no clinic in" in capsys.readouterr().err

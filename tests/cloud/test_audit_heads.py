"""The heads that site and hub exchange: restored databases, attacks on either log, and cuts are found."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from cloud.audit_actors import ORIGIN, service
from cloud.store import Store
from cloud.store.audit import cut_log
from cloud.store.audit_hubs import list_hub_logs
from sync.audit import (
    Action,
    AuditEvent,
    Category,
    Position,
    append_events,
    hash_row,
    object_id,
)
from sync.audit_heads import sign_head
from sync.signing import SignatureError, SigningKey, Use
from tests.clinic_testbed import Clinic
from tests.cloud.audit_logs import DAY_US, HUB, START_US, Hub, Site, event
from tests.databases import ON_BOTH

DATABASES = ON_BOTH


@pytest.fixture
def hub() -> Hub:
    hub = Hub(SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.AUDIT), [])
    hub.append(3)
    return hub


def problems(site: Site) -> list[tuple[str, ...]]:
    return [row.event.objects for row in site.rows() if row.event.action == Action.FIND_FORK]


def problem(name: str) -> list[tuple[str, ...]]:
    return [("hub:hub-1", f"problem:{name}")]


def test_each_end_keeps_the_highest_head_of_the_other(site: Site, hub: Hub) -> None:
    site.append(1, 2)
    site.sign()
    hub.seen = site.signed()
    hub.show(site)
    site.append(3)
    report = site.check()
    assert (report.findings, report.anchored, report.anchored_by) == ((), 2, "hub hub-1")
    assert report.unanchored_since_us == START_US
    hub.append()
    hub.seen = None
    hub.show(site)
    with site.store.snapshot() as connection:
        (held,) = list_hub_logs(connection)
    assert (held.head.number, held.forked_us) == (4, None)
    assert site.check().anchored == 2
    assert problems(site) == []


def test_a_restored_store_is_found_by_what_a_hub_holds(site: Site, hub: Hub) -> None:
    site.append(1, 2)
    site.sign()
    site.store.close()
    site.databases.back_up("blocks")
    with closing(Store.open(site.databases.location("blocks"))) as store:
        site.store = store
        site.append(3, 4)
        site.sign()
        hub.seen = site.signed()
    site.databases.restore("blocks")
    with closing(Store.open(site.databases.location("blocks"))) as store:
        site.store = store
        assert site.check().findings == ()
        hub.show(site)
        assert problems(site) == problem("site-log-went-back")
        assert [finding.row for finding in site.check().findings] == [4]  # the row about it took the place of row 3
        site.append(5, 6)
        site.sign()
        hub.show(site)
        assert "row 4 does not have" in site.check().findings[0].text
        assert problems(site) == problem("site-log-went-back")  # once


def test_a_site_log_that_was_rewritten_by_the_owner_of_its_key_is_found(site: Site, hub: Hub) -> None:
    site.append(1, 2)
    site.sign()
    hub.seen = site.signed()
    site.execute("DELETE FROM audit_rows")
    site.execute("DELETE FROM audit_log")
    site.append(7, 8, 9)
    site.sign()
    hub.show(site)
    assert problems(site) == problem("site-log-changed")
    assert [finding.row for finding in site.check().findings] == [2]


@pytest.mark.parametrize("attack", ["lower", "changed", "other key", "hub says", "head of a stranger"])
def test_a_hub_log_that_contradicts_its_earlier_head_is_found(site: Site, hub: Hub, attack: str) -> None:
    hub.show(site)
    expected = {
        "lower": "hub-log-went-back",
        "changed": "hub-log-changed",
        "other key": "hub-audit-key-changed",
        "hub says": "hub-found-its-log-changed",
        "head of a stranger": "site-head-not-by-this-key",
    }[attack]
    if attack == "lower":
        hub.rows.pop()
    elif attack == "changed":
        hub.rows[-1] = next(append_events(HUB, Position(2, hash_row(hub.rows[1])), [event(99)], START_US))[1]
    elif attack == "other key":
        hub.key = SigningKey.generate(Use.AUDIT)
    elif attack == "hub says":
        hub.is_forked = True
    else:
        hub.seen = sign_head(SigningKey.generate(Use.AUDIT), ORIGIN, Position(9, bytes(32)))
    hub.show(site)
    hub.show(site)
    assert problems(site) == problem(expected)
    with site.store.snapshot() as connection:
        (held,) = list_hub_logs(connection)
    assert (held.head.number, held.forked_us) == (3, START_US)


def test_a_hub_with_a_new_device_key_begins_a_new_log(site: Site, hub: Hub) -> None:
    hub.show(site)
    again = Hub(SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.AUDIT), [])
    again.append()
    again.show(site)
    with site.store.snapshot() as connection:
        (held,) = list_hub_logs(connection)
    assert (held.head.number, held.forked_us, problems(site)) == (1, None, [])


def test_a_head_that_is_not_signed_by_the_hub_changes_nothing(site: Site, hub: Hub) -> None:
    stranger = SigningKey.generate(Use.DEVICE)
    with pytest.raises(SignatureError):
        site.log.note_hub(site.signing.audit.public, "hub-1", stranger.public, hub.audit())
    with pytest.raises(SignatureError):
        site.log.note_hub(site.signing.audit.public, "hub-2", hub.device.public, hub.audit())
    with site.store.snapshot() as connection:
        assert list_hub_logs(connection) == []


def test_an_acknowledgement_carries_both_heads(site: Site, hub: Hub, tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "clinic")
    sender = clinic.add_hub()
    assert sender.send_block(site.store, sender.seal("vital", b"1")).audit is None
    site.append(1)
    site.sign()
    ack = sender.send_block(site.store, sender.seal("vital", b"2"))
    assert ack.audit is not None
    assert (ack.audit.head, ack.audit.seen) == (site.signed(), None)
    hub.show(site)
    ack = sender.send_block(site.store, sender.seal("vital", b"3"))
    assert ack.audit is not None
    assert ack.audit.seen == hub.audit().head._replace(signature=ack.audit.seen.signature if ack.audit.seen else b"")


def test_a_damaged_head_stops_neither_ingest_nor_the_signer(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Clinic(tmp_path / "clinic").add_hub()
    site.append(1)
    site.sign()
    site.execute("UPDATE audit_log SET signed = :bad", bad=b"x")
    assert sender.send_block(site.store, sender.seal("vital", b"1")).audit is None
    monkeypatch.setattr("cloud.audit_log.SIGN_INTERVAL_S", 0.01)

    async def keep_signed() -> None:
        async with asyncio.timeout(0.5):
            await site.log.keep_signed(site.signing.audit)

    with pytest.raises(TimeoutError):
        asyncio.run(keep_signed())
    assert len(caplog.records) == 1
    assert "the audit log was changed" in caplog.text


def test_a_cut_log_is_checked_from_the_cut_on(site: Site, hub: Hub) -> None:
    site.append(1, 2, 3)
    site.sign()
    hub.seen = site.signed()
    hub.show(site)
    site.at_us += 10 * DAY_US
    site.append(4)
    cut = AuditEvent(service("test"), Action.CUT_LOG, Category.LOG)
    with site.store.transaction() as connection:
        assert cut_log(connection, ORIGIN, site.signing.audit, cut, START_US + DAY_US, site.at_us) == 3
    with site.store.transaction() as connection:
        assert cut_log(connection, ORIGIN, site.signing.audit, cut, START_US + DAY_US, site.at_us) == 0
    site.sign()
    report = site.check()
    assert (report.findings, report.first, report.last) == ((), 4, 5)
    assert site.rows()[-1].event.objects == (object_id("rows", 3),)
    hub.show(site)
    assert problems(site) == []
    site.execute("UPDATE audit_log SET cut = NULL")
    assert [finding.row for finding in site.check().findings][-1] == 1

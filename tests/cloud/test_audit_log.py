"""The site's audit log: several processes, kill -9, attacks on its tables, restored databases, cuts, and its commands."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cloud.audit_actors import ORIGIN, service
from cloud.audit_log import AuditLog
from cloud.cli import main
from cloud.folder import ClinicFolder
from cloud.ingest import handle_message
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from cloud.store.audit import cut_log, read_log, read_rows, read_state
from cloud.store.audit_hubs import list_hub_logs
from sync.audit import (
    Action,
    AuditEvent,
    AuditRow,
    Category,
    ChainError,
    End,
    Origin,
    Outcome,
    Position,
    append_events,
    hash_row,
    log_start,
    object_id,
    read_row,
)
from sync.audit_check import LogReport, check_log
from sync.audit_heads import HubAudit, SignedHead, certify_audit_key, head_to_bytes, sign_head
from sync.messages import encode_envelope
from sync.mqtt import Message
from sync.signing import SignatureError, SigningKey, Use
from tests.clinic_testbed import Clinic
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
DAY_US = 86_400_000_000
START_US = 1_790_000_000_000_000
HUB = Origin(End.HUB, "hub-1")


@dataclass
class Site:
    """A site's store and log at a clock of the test's own."""

    databases: Databases
    store: Store
    signing: SigningKeys
    at_us: int = START_US

    @property
    def log(self) -> AuditLog:
        return AuditLog(self.store, lambda: self.at_us)

    def append(self, *numbers: int, subject: str | None = None) -> None:
        for number in numbers:
            self.log.append(event(number, subject))

    def sign(self) -> None:
        self.log.sign(self.signing.audit)

    def rows(self) -> list[AuditRow]:
        with self.store.snapshot() as connection:
            return [read_row(*row) for row in read_rows(connection)]

    def check(self) -> LogReport:
        with self.store.snapshot() as connection:
            return check_log(read_log(connection, ORIGIN), self.signing.audit.public)

    def signed(self) -> SignedHead:
        with self.store.snapshot() as connection:
            signed = read_state(connection, ORIGIN).signed
        assert signed is not None
        return signed

    def execute(self, statement: str, **values: Any) -> None:
        with self.store.transaction() as connection:
            connection.execute(text(statement), values)


def event(number: int = 0, subject: str | None = None) -> AuditEvent:
    return AuditEvent(service("test"), Action.READ, Category.VITALS, subject, (object_id("number", number),))


@pytest.fixture
def signing(tmp_path: Path) -> SigningKeys:
    folder = ClinicFolder(tmp_path / "site")
    folder.create()
    return folder.load_or_create_signing_keys()


@pytest.fixture
def site(databases: Databases, signing: SigningKeys) -> Iterator[Site]:
    with closing(Store.open(databases.location("blocks"))) as store:
        yield Site(databases, store, signing)


def start_appender(databases: Databases, name: str, n_events: int) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("append_audit.py")
    command = [sys.executable, script, str(databases.location("blocks")), name, str(n_events)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(script.parents[2])})


def test_processes_that_append_at_once_never_fork_the_chain(site: Site) -> None:
    processes = [start_appender(site.databases, f"p{n}", 30) for n in range(2)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert site.check().findings == ()
    rows = site.rows()
    assert len(rows) == 60
    for n in range(2):
        own = [row.event.objects[0] for row in rows if row.event.actor.id == f"p{n}"]
        assert own == [object_id("number", number) for number in range(1, 31)]


def test_a_row_whose_append_returned_survives_kill_9(site: Site) -> None:
    n_known = 0
    for n in range(2):
        with start_appender(site.databases, f"p{n}", 0) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(5 * n + 1)]
            process.kill()
            lines += process.stdout.readlines()
        n_known += sum(line.endswith(b"\n") for line in lines)
        rows = site.rows()
        assert n_known <= len(rows) <= n_known + n + 1  # the one whose answer the kill cut off
        assert site.check().findings == ()
    site.sign()
    assert site.check().last == len(site.rows())


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("UPDATE audit_rows SET subject = 'subject-2' WHERE number = 3", 3),
        ("UPDATE audit_rows SET subject = NULL WHERE number = 3", 3),
        ("UPDATE audit_rows SET at_us = at_us + 1 WHERE number = 3", 3),
        ("UPDATE audit_rows SET row = (SELECT row FROM audit_rows WHERE number = 2) WHERE number = 3", 3),
        ("DELETE FROM audit_rows WHERE number = 3", 3),
        ("DELETE FROM audit_rows WHERE number > 3", 4),
        ("DELETE FROM audit_rows", 1),
        ("UPDATE audit_rows SET number = number + 1 WHERE number = 5", 5),
        ("UPDATE audit_log SET signed = NULL", None),
        ("UPDATE audit_log SET number = 4", None),
    ],
)
def test_each_change_of_the_tables_is_found(site: Site, statement: str, row: int | None) -> None:
    """The last two change no row: the next one that is appended or signed is refused or found."""
    site.append(1, 2, 3, 4, 5, subject="subject-1")
    site.sign()
    assert site.check().findings == ()
    site.execute(statement)
    found = [finding.row for finding in site.check().findings]
    assert found[:1] == ([] if row is None else [row])


def test_a_moved_end_appends_nothing(site: Site) -> None:
    site.append(1, 2, 3)
    site.execute("UPDATE audit_log SET number = 2")
    with pytest.raises(Exception, match="audit_rows"):  # the primary key
        site.append(4)
    site.execute("UPDATE audit_log SET number = 3, head = :head", head=bytes(32))
    site.append(4)
    assert [finding.row for finding in site.check().findings] == [4]


def test_a_rewritten_log_gets_no_new_signature(site: Site) -> None:
    """Who can write to the database but has no audit key."""
    site.append(1, 2, 3)
    site.sign()
    before = site.signed()
    rewritten = list(append_events(ORIGIN, log_start(ORIGIN), [event(n) for n in (9, 9, 9, 9)], START_US))
    site.execute("DELETE FROM audit_rows")
    for row, encoded in rewritten:
        site.execute("INSERT INTO audit_rows VALUES (:n, :at, NULL, :row)", n=row.number, at=row.at_us, row=encoded)
    site.execute("UPDATE audit_log SET number = 4, head = :head", head=hash_row(rewritten[-1][1]))
    with pytest.raises(ChainError, match="row 4 does not follow row 3"):
        site.sign()
    assert site.signed() == before
    assert [finding.row for finding in site.check().findings] == [3]

    forged = sign_head(SigningKey.generate(Use.AUDIT), ORIGIN, Position(4, hash_row(rewritten[-1][1])))
    site.execute("UPDATE audit_log SET signed = :signed", signed=head_to_bytes(forged))
    with pytest.raises(ChainError, match="not by this site's audit key"):
        site.sign()
    assert "is not signed by the audit key" in site.check().findings[0].text


def test_a_long_unsigned_log_is_signed_in_parts(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.store.audit.SIGN_LIMIT_ROWS", 2)
    monkeypatch.setattr("cloud.store.audit.PAGE_ROWS", 3)
    site.append(1, 2, 3, 4, 5)
    found = []
    for _ in range(4):
        site.sign()
        found.append(site.signed().number)
    assert found == [2, 4, 5, 5]
    assert site.check().findings == ()


@dataclass
class Hub:
    """A hub's own log, and what its status messages say of it."""

    device: SigningKey
    key: SigningKey
    rows: list[bytes]
    seen: SignedHead | None = None
    is_forked: bool = False

    def append(self, n: int = 1) -> None:
        place = Position(len(self.rows), hash_row(self.rows[-1])) if self.rows else log_start(HUB)
        self.rows += [
            encoded for _, encoded in append_events(HUB, place, [event(len(self.rows) + i) for i in range(n)], START_US)
        ]

    def audit(self) -> HubAudit:
        head = sign_head(self.key, HUB, Position(len(self.rows), hash_row(self.rows[-1])))
        certificate = certify_audit_key(self.device, HUB.name, self.key.public)
        return HubAudit(head, self.key.public.to_bytes(), certificate, self.seen, self.is_forked)

    def show(self, site: Site) -> None:
        """Let the site receive a status message of this hub."""
        site.log.note_hub(site.signing.audit.public, HUB.name, self.device.public, self.audit())


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


def test_refused_messages_are_one_row_for_each_hub_reason_and_hour(site: Site, tmp_path: Path) -> None:
    clinic = Clinic(tmp_path / "clinic")
    sender = clinic.add_hub()
    stranger = clinic.add_hub("hub-2")
    right = sender.message(sender.seal("vital", b"1"))
    key = clinic.signing.acknowledgement
    forged = [
        Message(right.topic, stranger.message(stranger.seal("vital", b"1")).payload),  # of another hub
        Message(right.topic, encode_envelope(sender.envelope(), stranger.device)),  # not signed by its device
        Message("pulsegate/v1/nobody/up/vital", right.payload),
        *(Message(f"pulsegate/v1/nobody-{n}/up/vital", b"x") for n in range(20)),
    ]
    for message in forged:
        handle_message(site.store, clinic.registry, key, message, site.at_us)
    site.sign()
    assert site.rows() == []  # the hour is not over
    site.at_us += 3_600_000_000
    site.sign()
    found = {row.event.objects[:2]: row.event.count for row in site.rows()}
    assert found == {
        ("hub:hub-1", "reason:malformed"): 1,
        ("hub:hub-1", "reason:not-signed"): 1,
        ("hub:unregistered", "reason:malformed"): 21,
    }
    assert {row.event.outcome for row in site.rows()} == {Outcome.REFUSED}
    site.sign()
    assert len(site.rows()) == 3


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


class TestCommands:
    """`pulsegate-cloud audit` and what the other commands write."""

    @pytest.fixture
    def options(self, databases: Databases, tmp_path: Path) -> list[str]:
        location = databases.location("blocks")
        if isinstance(location, Path):
            return ["--data", str(tmp_path)]
        return ["--data", str(tmp_path), "--store", str(location), "--projections", str(databases.location("projections"))]

    @pytest.fixture
    def registered(self, options: list[str], tmp_path: Path) -> None:
        SigningKey.generate(Use.DEVICE).public.save(tmp_path / "device.pub")
        names = ["--hub", "hub-1", "--subject", "subject-1", "--hub-key", str(tmp_path / "device.pub")]
        assert main(["register", *options, *names, "--out", str(tmp_path / "registration.toml")]) == 0

    @pytest.mark.usefixtures("registered")
    def test_what_commands_do_is_logged(self, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        private, public = str(tmp_path / "recovery.key"), str(tmp_path / "recovery.pub")
        assert main(["create-recovery-key", "--private", private, "--public", public]) == 0
        assert main(["backup-keys", *options, "--recovery", public, "--out", str(tmp_path / "backups")]) == 0
        assert main(["restore-keys", *options, "--recovery", public, str(tmp_path / "none.backup")]) == 1
        assert main(["erase", *options, "--subject", "subject-1"]) == 0
        capsys.readouterr()
        assert main(["audit", "show", *options, "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(row["action"], row["subject"], row["outcome"]) for row in rows] == [
            ("register", "subject-1", "done"),
            ("create-key", "subject-1", "done"),
            ("back-up-keys", None, "done"),
            ("restore-keys", None, "done"),
            ("restore-keys", None, "failed"),
            ("destroy-key", "subject-1", "done"),
            ("erase", "subject-1", "done"),
            ("read", None, "done"),
        ]
        assert rows[2]["objects"][0].endswith("Z.backup")
        assert rows[3]["objects"] == ["file:sha256-df4b1d49e3529b77"]  # a name that a person chose
        assert {row["actor"]["id"] for row in rows} == {f"uid-{os.getuid()}"}
        assert main(["audit", "show", *options, "--subject", "subject-1", "--since", "2000-01-01T00:00:00Z"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[3] for line in lines] == ["register", "create-key", "destroy-key", "erase", "read"]
        assert main(["audit", "show", *options, "--since", "2100-01-01T00:00:00Z"]) == 0
        assert capsys.readouterr().out == ""
        assert main(["audit", "verify", *options]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "rows 1 to 10 follow each other"

    @pytest.mark.usefixtures("registered")
    def test_verify_names_the_row_and_fails(
        self, options: list[str], databases: Databases, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with closing(Store.open(databases.location("blocks"))) as store, store.transaction() as connection:
            connection.execute(text("UPDATE audit_rows SET subject = 'subject-2' WHERE number = 2"))
        capsys.readouterr()
        assert main(["audit", "verify", *options]) == 1
        assert "FOUND row 2: row 2 was changed: its time or subject" in capsys.readouterr().out
        assert main(["audit", "verify", *options, "--json"]) == 1
        assert [finding["row"] for finding in json.loads(capsys.readouterr().out)["findings"]] == [2]
        with closing(Store.open(databases.location("blocks"))) as store, store.transaction() as connection:
            connection.execute(text("UPDATE audit_rows SET subject = 'subject-1' WHERE number = 2"))
            connection.execute(text("DELETE FROM audit_rows WHERE number = 1"))
        assert main(["audit", "verify", *options]) == 1
        assert capsys.readouterr().out.startswith("no row could be followed\nFOUND row 1: row 1 is missing")
        with closing(Store.open(databases.location("blocks"))) as store, store.transaction() as connection:
            connection.execute(text("UPDATE audit_log SET signed = :bad"), {"bad": b"x"})
        assert main(["audit", "verify", *options]) == 1
        assert "FOUND log: a head or a note of an audit log is damaged" in capsys.readouterr().out

    @pytest.mark.usefixtures("registered")
    def test_cut_and_bad_usage(self, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["audit", "cut", *options, "--keep-days", "30"]) == 0
        assert "cut 0 rows" in capsys.readouterr().out
        assert main(["audit", "cut", *options, "--keep-days", "29"]) == 2
        assert main(["audit", "show", *options, "--subject", "a b"]) == 1
        assert "correct --subject" in capsys.readouterr().err

    def test_no_clinic_is_created(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["audit", "verify", "--data", str(tmp_path / "none")]) == 1
        assert "no clinic in" in capsys.readouterr().err
        assert not (tmp_path / "none").exists()

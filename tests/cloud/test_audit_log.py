"""The site's audit log: several processes, kill -9, attacks on its tables, refused messages, and its commands."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from cloud.audit_actors import ORIGIN
from cloud.cli import main
from cloud.ingest import handle_message
from cloud.store import Store
from sync.audit import (
    ChainError,
    Outcome,
    Position,
    append_events,
    hash_row,
    log_start,
    object_id,
)
from sync.audit_heads import head_to_bytes, sign_head
from sync.messages import encode_envelope
from sync.mqtt import Message
from sync.signing import SigningKey, Use
from tests.clinic_testbed import Clinic
from tests.cloud.audit_logs import START_US, Site, event
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH


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

"""The hub's audit log: kill -9, two processes, a full and a damaged disk, changed rows, cuts, and what the agent writes."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cloud.audit_actors import ORIGIN
from cloud.audit_log import AuditLog as SiteLog
from cloud.signing_keys import SigningKeys
from cloud.store.audit import read_log
from cloud.store.audit_hubs import list_hub_logs
from gateway import audit_events, audit_log
from gateway.audit_events import AgentAudit
from gateway.audit_log import AUDIT_FILE, AuditLog
from gateway.cli import main
from gateway.models import LoadedModels
from sync.audit import (
    Action,
    Actor,
    AuditEvent,
    AuditRow,
    Category,
    End,
    Origin,
    Position,
    append_events,
    hash_row,
    log_start,
    object_id,
    read_row,
)
from sync.audit_heads import SignedHead, SiteAudit, check_head, read_audit_key, sign_head
from sync.errors import PermanentError, SyncError, TransientError
from sync.signing import SignatureError, SigningKey, Use
from tests.gateway.testbed import START_US, Testbed, run_scenario
from tests.namespaces import unshare_command

SCRIPT = Path(__file__).with_name("append_audit.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
HUB, SITE = Origin(End.HUB, "hub-1"), Origin(End.SITE, "main")
SITE_KEY, DEVICE = SigningKey.generate(Use.AUDIT), SigningKey.generate(Use.DEVICE)
DISK_BYTES = 6 * 1024 * 1024


def event(number: int = 0) -> AuditEvent:
    return AuditEvent(Actor("agent", "service", "main"), Action.START, Category.SERVICE, None, (object_id("number", number),))


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path, "hub-1", "main", lambda: START_US)


def rows(log: AuditLog) -> list[AuditRow]:
    return [read_row(*row) for row in log.rows()]


def actions(log: AuditLog) -> list[tuple[str, ...]]:
    return [(row.event.action, *row.event.objects) for row in rows(log)]


def forks(log: AuditLog) -> list[str]:
    return [row.event.objects[0] for row in rows(log) if row.event.action == Action.FIND_FORK]


def execute(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / AUDIT_FILE)) as connection, connection:
        connection.execute(statement, values)


def test_every_row_is_signed_with_its_transaction(log: AuditLog, tmp_path: Path) -> None:
    log.append(event(1), event(2))
    log.append(event(3))
    log.append()
    assert log.check().findings == ()
    signed = log.state().signed
    assert signed is not None
    assert signed.number == 3
    status = log.status(DEVICE)
    check_head(read_audit_key(DEVICE.public, "hub-1", status), HUB, status.head)
    assert status.head == signed
    assert (tmp_path / AUDIT_FILE).stat().st_mode & 0o077 == 0


def test_an_empty_log_has_a_head_too(log: AuditLog) -> None:
    assert log.status(DEVICE).head.position == log_start(HUB)


def test_a_row_whose_append_returned_survives_kill_9_beside_another_process(log: AuditLog, tmp_path: Path) -> None:
    known: dict[str, int] = {}
    for _ in range(2):
        processes = [
            subprocess.Popen([sys.executable, SCRIPT, tmp_path, name, "forever"], stdout=subprocess.PIPE, env=ENVIRONMENT)
            for name in ("one", "two")
        ]
        for name, process in zip(("one", "two"), processes, strict=True):
            with process:
                assert process.stdout is not None
                lines = [process.stdout.readline() for _ in range(8)]
                process.kill()
                lines += process.stdout.readlines()
            known[name] = known.get(name, 0) + sum(line.endswith(b"\n") for line in lines)
    found = [row.event.actor.id for row in rows(log)]
    for name, n in known.items():
        assert n <= found.count(name) <= n + 2  # those whose answers the kills cut off
    assert log.check().findings == ()


def test_a_full_disk_takes_the_rows_and_loses_none_at_kill_9(tmp_path: Path) -> None:
    shell = f"""mount -t tmpfs -o size={DISK_BYTES} tmpfs {tmp_path}
{sys.executable} {SCRIPT} {tmp_path} one fill || [ $? = 137 ]
{sys.executable} {SCRIPT} {tmp_path} one reopen"""
    words = [*unshare_command("--mount"), "sh", "-ec", shell]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    taken, reopened = done.stdout.splitlines()
    assert taken == "20"
    assert reopened == "22 0"


@pytest.mark.parametrize(
    ("statement", "is_end_changed"),
    [
        ("UPDATE rows SET row = (SELECT row FROM rows WHERE number = 1) WHERE number = 2", False),
        ("UPDATE rows SET row = CAST(replace(row, 'start', 'pause') AS BLOB) WHERE number = 3", True),
        ("DELETE FROM rows WHERE number = 2", False),
        ("DELETE FROM rows WHERE number = 3", True),
        ("DELETE FROM rows", True),
        ("UPDATE rows SET number = 4 WHERE number = 3", True),
    ],
)
def test_changed_rows_are_found_and_no_changed_end_is_signed(
    log: AuditLog, tmp_path: Path, statement: str, is_end_changed: bool
) -> None:
    log.append(event(1), event(2), event(3))
    execute(tmp_path, statement)
    assert log.check().findings
    signed = log.state().signed
    log.append(event(4))
    assert read_row(*log.rows()[-1]).event == event(4)  # it is kept all the same
    assert log.check().findings
    assert (log.state().signed == signed) == is_end_changed
    assert log.status(DEVICE).is_forked == is_end_changed


def site_heads(n: int) -> list[SignedHead]:
    """Signed heads of a site's log after 1, 2, … n rows."""
    encoded = [row for _, row in append_events(SITE, log_start(SITE), [event(i) for i in range(n)], START_US)]
    return [sign_head(SITE_KEY, SITE, Position(i + 1, hash_row(row))) for i, row in enumerate(encoded)]


def test_the_hub_keeps_the_highest_heads_and_anchors_its_rows(log: AuditLog) -> None:
    heads = site_heads(3)
    log.append(event(1), event(2))
    own = log.status(DEVICE).head
    log.note_site(SiteAudit(heads[1], None), SITE_KEY.public)
    log.note_site(SiteAudit(heads[2], own), SITE_KEY.public)
    log.append(event(3))
    assert log.state().site == heads[2] == log.status(DEVICE).seen
    report = log.check()
    assert (report.findings, report.anchored, report.anchored_by) == ((), 2, "the clinic")
    assert forks(log) == []
    with pytest.raises(SignatureError):
        log.note_site(SiteAudit(sign_head(SigningKey.generate(Use.AUDIT), SITE, heads[2].position)), SITE_KEY.public)


def test_a_site_that_shows_a_lower_or_another_head_is_logged_once(log: AuditLog) -> None:
    heads = site_heads(3)
    log.note_site(SiteAudit(heads[2]), SITE_KEY.public)
    log.note_site(SiteAudit(heads[1]), SITE_KEY.public)
    log.note_site(SiteAudit(sign_head(SITE_KEY, SITE, Position(3, bytes(32)))), SITE_KEY.public)
    assert forks(log) == ["problem:site-log-changed"]
    state = log.state()
    assert (state.site, state.site_fork, state.own_fork) == (heads[2], True, False)


def test_a_log_restored_from_a_backup_is_found_by_what_the_clinic_holds(log: AuditLog, tmp_path: Path) -> None:
    (head,) = site_heads(1)
    log.append(event(1), event(2))
    backup = (tmp_path / AUDIT_FILE).read_bytes()
    log.append(event(3), event(4))
    held = log.status(DEVICE).head
    (tmp_path / AUDIT_FILE).write_bytes(backup)
    assert log.check().findings == ()
    log.append(event(5), event(6), event(7))  # more rows than before: only the hub itself can tell
    log.note_site(SiteAudit(head, held), SITE_KEY.public)
    log.note_site(SiteAudit(head, held), SITE_KEY.public)
    assert forks(log) == ["problem:own-log-changed"]
    assert [finding.row for finding in log.check().findings] == [4]
    assert log.status(DEVICE).is_forked


def test_a_head_of_the_device_before_is_no_evidence(log: AuditLog) -> None:
    (head,) = site_heads(1)
    others = sign_head(SigningKey.generate(Use.AUDIT), HUB, Position(9, bytes(32)))
    log.note_site(SiteAudit(head, others), SITE_KEY.public)
    assert (forks(log), log.state().held) == ([], None)


def test_a_long_log_is_cut_with_a_signed_note(log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MAX_ROWS", 10)
    monkeypatch.setattr(audit_log, "KEPT_ROWS", 6)
    for number in range(1, 12):
        log.append(event(number))
    report = log.check()
    assert (report.findings, report.first, report.last) == ((), 6, 12)
    assert actions(log)[-1] == (Action.CUT_LOG, "rows:5")
    for number in range(12, 30):
        log.append(event(number))
    assert log.check().findings == ()
    assert len(log.rows()) <= 10
    execute(tmp_path, "DELETE FROM rows WHERE number = (SELECT min(number) FROM rows)")
    assert log.check().findings


def test_a_changed_value_is_an_event_and_the_first_is_not(log: AuditLog) -> None:
    for value in ("a", "a", "b", "b", "a"):
        log.note_value("settings", value, event(ord(value)))
    assert [row.event for row in rows(log)] == [event(ord("b")), event(ord("a"))]


@pytest.mark.parametrize("damage", [b"not a database", None])
def test_a_damaged_log_is_kept_and_a_new_one_says_so(log: AuditLog, tmp_path: Path, damage: bytes | None) -> None:
    for number in range(50):
        log.append(event(number))
    content = bytearray((tmp_path / AUDIT_FILE).read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (tmp_path / AUDIT_FILE).write_bytes(content if damage is None else damage * 1000)
    with pytest.raises(SyncError):
        log.rows()
    log.replace_if_damaged()
    assert forks(log) == ["problem:own-log-damaged"]
    assert (tmp_path / "audit-damaged.db").exists()
    log.replace_if_damaged()
    assert len(log.rows()) == 1


def test_a_newer_log_is_refused(log: AuditLog, tmp_path: Path) -> None:
    log.append(event(1))
    execute(tmp_path, "PRAGMA user_version = 2")
    with pytest.raises(PermanentError, match="newer pulsegate"):
        log.append(event(2))


class TestAgent:
    """What the agent writes, and how it exchanges heads with a real clinic."""

    @pytest.fixture
    def testbed(self, tmp_path: Path) -> Iterator[Testbed]:
        testbed = Testbed(tmp_path, LoadedModels(release=7))
        yield testbed
        testbed.clinic.store.close()

    @staticmethod
    def log(testbed: Testbed) -> AuditLog:
        return AuditLog(testbed.settings.data, "hub-1", "main", lambda: START_US)

    def test_starts_changes_and_the_clock_are_logged_and_anchored(self, testbed: Testbed, tmp_path: Path) -> None:
        site = SiteLog(testbed.clinic.store, lambda: START_US)
        signing = SigningKeys.load(tmp_path / "clinic")
        site.append(AuditEvent(Actor("test", "service", "main"), Action.START, Category.SERVICE))
        site.sign(signing.audit)

        async def scenario(testbed: Testbed) -> None:
            async with testbed.strap():
                async with testbed.agent():
                    await asyncio.sleep(15)
                    testbed.wall_step_us = -3_600_000_000
                    await asyncio.sleep(15)
                testbed.models = LoadedModels(release=8)
                testbed.clinic.register("subject-1")
                async with testbed.agent():
                    await asyncio.sleep(25)

        run_scenario(testbed, scenario)
        log = self.log(testbed)
        found = actions(log)
        assert [name for name, *_ in found] == ["start", "change-clock", "stop", "start", "change-models", "stop"]
        assert found[1] == ("change-clock", "moved-s:-3600")
        assert found[4] == ("change-models", "models:8")
        report = log.check()
        assert report.findings == ()
        assert report.anchored_by == "the clinic"
        assert report.anchored == 5  # what the status at the second connection showed
        with testbed.clinic.store.snapshot() as connection:
            (held,) = list_hub_logs(connection)
            seen = read_log(connection, ORIGIN).held
        assert (held.hub, held.head.number, held.forked_us) == ("hub-1", 5, None)
        assert seen["hub hub-1"].number == 1
        state = log.state()
        assert state.site is not None
        check_head(signing.audit.public, ORIGIN, state.site)

    def test_an_agent_whose_log_cannot_be_written_runs_and_writes_later(
        self, testbed: Testbed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_events, "MAX_WAITING", 3)
        log, failing = self.log(testbed), [True]
        append = AuditLog.append

        def append_or_fail(self: AuditLog, *events: AuditEvent) -> None:
            if failing:
                raise TransientError("the disk is full")
            append(self, *events)

        monkeypatch.setattr(AuditLog, "append", append_or_fail)
        audit = AgentAudit(log, testbed.clinic.register("subject-1"))
        for number in range(5):
            audit.append(event(number))
        failing.clear()
        audit.append()
        assert [row.event for row in rows(log)] == [event(0), event(1), event(2)]


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    path = tmp_path / "pulsegate.toml"
    assert main(["init", "--config", str(path)]) == 0
    text = path.read_text().replace('data = "/var/lib/pulsegate"', f'data = "{tmp_path}"')
    path.write_text(text)
    return ["--config", str(path)]


def test_the_command_verifies_and_shows(
    log: AuditLog, tmp_path: Path, config: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["audit", "verify", *config]) == 1
    assert "there is no audit log" in capsys.readouterr().err
    hub = next(
        line.split('"')[1] for line in (tmp_path / "pulsegate.toml").read_text().splitlines() if line.startswith("hub =")
    )
    log = AuditLog(tmp_path, hub, "main", lambda: START_US)
    log.append(event(1), AuditEvent(log.operator(), Action.PAIR, Category.SENSORS, "subject-1"))
    assert main(["audit", "show", *config, "--subject", "subject-1"]) == 0
    assert capsys.readouterr().out.startswith(f"2 2027-01-15T08:00:00Z operator:uid-{os.getuid()}@main pair sensors")
    assert main(["audit", "show", *config, "--json", "--since", "2027-01-15T07:00:00Z"]) == 0
    assert [json.loads(line)["row"] for line in capsys.readouterr().out.splitlines()] == [1, 2]
    assert main(["audit", "show", *config, "--since", "2028-01-01T00:00:00Z"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["audit", "verify", *config]) == 0
    assert capsys.readouterr().out.startswith("rows 1 to 2 follow each other\n")
    execute(tmp_path, "DELETE FROM rows WHERE number = 2")
    assert main(["audit", "verify", *config]) == 1
    assert "FOUND row 2:" in capsys.readouterr().out
    assert main(["audit", "verify", *config, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["row"] == 2

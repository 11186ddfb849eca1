"""`pulsegate enroll`, `renew` and `erase`, and the operator's commands: as a person types them, and killed at each step."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.cli import main
from config.settings import load_settings
from config.tls import make_client_context
from gateway.commands.enroll import run_enroll
from gateway.enrolment.identity import FOLDER, SiteRecord
from gateway.startup import load_device_key
from sync.invitation import Invitation
from sync.registration import Registration
from tests.enrolment.site_testbed import STARTED_S, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose clock is right: the commands use the machine's clocks."""
    with Site(tmp_path / "clinic", now_s=STARTED_S).serving() as site:
        yield site


def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def pulsegate_cloud(*arguments: str) -> int:
    return main(arguments)


def code_of(invitation: Invitation) -> str:
    return "\n".join(invitation.rows())


def assert_enrolled(data: Path, hub: str) -> None:
    """Check that all files fit together, and that only the owner reads the keys."""
    folder = data / FOLDER
    record = SiteRecord.load(folder)
    assert record.hub == hub
    assert Registration.load(folder / "registration.toml", hub).hub == hub
    assert make_client_context((folder / "roots.pem").read_text(), "DE", identity=folder) is not None
    for path in (data / "device.key", folder / "identity.pem", folder):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_enroll_writes_the_settings_where_there_are_none_and_prints_them_otherwise(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data = tmp_path / "etc" / "pulsegate.toml", tmp_path / "data"
    environment = {"PULSEGATE_DATA": str(data)}
    code = code_of(site.invite())
    assert run_enroll(config, code, environment) == 0

    assert_enrolled(data, "hub-1")
    settings = load_settings(config, {})
    assert settings.data == data
    assert (settings.hub, settings.subject, settings.clinic.broker.host, settings.clinic.broker.port) == (
        "hub-1",
        "subject-1",
        "mqtt.example",
        8883,
    )
    assert (settings.clinic.broker.identity, settings.clinic.broker.region) == (data / FOLDER, "DE")
    assert settings.clinic.registration == data / FOLDER / "registration.toml"
    assert capsys.readouterr().out == ""
    assert run_enroll(config, code, environment) == 0
    assert capsys.readouterr().out == ""
    config.write_text(config.read_text().replace('"hub-1"', '"hub-0"'))

    assert run_enroll(config, code, environment) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ['hub = "hub-1"', 'subject = "subject-1"', 'host = "mqtt.example"']


def test_a_code_is_read_from_standard_input_and_mistakes_are_told_in_one_line(site: Site, tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = tmp_path / "pulsegate.toml"
    code = code_of(site.invite())
    wrong = run("gateway.cli", "enroll", "--config", config, stdin=code.replace("-", "-Z", 1))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "typing mistake in row 1" in wrong.stderr
    os.environ["PULSEGATE_DATA"] = str(data)
    try:
        done = run("gateway.cli", "enroll", "-", "--config", config, stdin=code)
        renewed = run("gateway.cli", "renew", "--config", config)
    finally:
        del os.environ["PULSEGATE_DATA"]

    assert done.returncode == 0, done.stderr
    assert "this hub is enrolled as hub-1" in done.stderr
    assert renewed.returncode == 0, renewed.stderr
    assert site.paths[-3:] == ["/v2/time", "/v2/nonce", "/v2/renew"]
    assert_enrolled(data, "hub-1")


AT_A_TERMINAL = """
import io, sys
class Terminal(io.TextIOWrapper):
    def isatty(self): return True
sys.stdin = Terminal(sys.stdin.buffer)
from gateway.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""`pulsegate` as at a terminal, also on a machine that has none."""


def test_at_a_terminal_a_mistyped_row_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    rows = site.invite().rows()
    typed = [rows[0], rows[1].replace(rows[1][0], "Z" if rows[1][0] != "Z" else "Y", 1), *rows[1:]]
    environment = os.environ | {"PULSEGATE_DATA": str(tmp_path / "data")}
    command = [sys.executable, "-c", AT_A_TERMINAL, "enroll", "--config", tmp_path / "pulsegate.toml"]
    done = subprocess.run(
        command,
        input="".join(f"{row}\n" for row in typed),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "row 1 of the code: " in text
    assert "typing mistake in row 2 of the code" in text
    assert text.count(f"row 2 of {len(rows)} of the code: ") == 2
    assert_enrolled(tmp_path / "data", "hub-1")


def test_the_help_says_where_the_code_is_safe() -> None:
    shown = " ".join(run("gateway.cli", "enroll", "--help").stdout.split())

    assert "Without it, or with -, it is asked for: other users of this machine see arguments" in shown


def test_a_site_that_is_not_there_is_told_in_plain_words(tmp_path: Path) -> None:
    code = code_of(Invitation("127.0.0.1", 1, bytes(32), bytes(16)))
    failed = run("gateway.cli", "enroll", "--config", tmp_path / "pulsegate.toml", stdin=code)

    assert failed.returncode == 1
    assert "your clinic cannot be reached at 127.0.0.1:1" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "pulsegate.toml").exists()


def test_a_hub_that_is_killed_at_any_step_enrols_with_the_same_code(site: Site, tmp_path: Path) -> None:
    """At each step that a person or another process could see, or that the site sees."""
    folder = tmp_path / "hubs"
    folder.mkdir()
    codes = [code_of(site.invite(f"hub-{step}")).replace("\n", "") for step in range(30)]
    killed = run("tests.enrolment.killed_enrolments", folder, stdin="\n".join(codes))
    outcomes = killed.stdout.splitlines()
    assert killed.returncode == 0, killed.stderr
    assert outcomes[-1] == "finished"
    assert len(outcomes) > 12

    for step in range(len(outcomes)):
        data = folder / str(step)
        if (data / FOLDER / "site.json").exists():
            assert_enrolled(data, f"hub-{step}")
        assert run_enroll(data / "pulsegate.toml", codes[step], {"PULSEGATE_DATA": str(data)}) == 0
        assert_enrolled(data, f"hub-{step}")
        assert load_settings(data / "pulsegate.toml", {}).hub == f"hub-{step}"
        assert load_device_key(data).public.to_bytes().hex() in (site.folder.hubs / f"hub-{step}.toml").read_text()


class TestOperator:
    def test_invite_prints_a_code_once_and_writes_a_private_picture(
        self, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        clinic, svg = str(site.folder.path), tmp_path / "code.svg"
        names = ("--hub", "hub-1", "--subject", "subject-1", "--address", f"127.0.0.1:{site.port}", "--svg", str(svg))
        assert pulsegate_cloud("invite", "--data", clinic, *names) == 0
        shown = capsys.readouterr().out
        code = "\n".join(re.findall(r"^[0-9A-Z]{1,5}(?:-[0-9A-Z]{1,5})*$", shown, re.MULTILINE))
        assert stat.S_IMODE(svg.stat().st_mode) == 0o600
        assert svg.read_text().startswith("<?xml")
        assert "█" in shown

        data = tmp_path / "data"
        assert run_enroll(tmp_path / "pulsegate.toml", code, {"PULSEGATE_DATA": str(data)}) == 0
        assert_enrolled(data, "hub-1")
        assert pulsegate_cloud("invitations", "--data", clinic) == 0
        listed = capsys.readouterr().out
        assert re.search(r"^[0-9a-f]{8}  used  .*hub hub-1, subject subject-1\n\Z", listed, re.MULTILINE)
        assert pulsegate_cloud("invite", "--data", clinic, *names) == 1
        assert "give the path of a new file" in capsys.readouterr().err
        assert len(site.invitations.list()) == 1

    def test_an_invitation_is_cancelled_by_its_id(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        site = Site(tmp_path / "clinic")
        site.invite()
        clinic, id_ = str(site.folder.path), site.invitations.list()[0].id

        assert pulsegate_cloud("cancel-invitation", "--data", clinic, id_) == 0
        assert pulsegate_cloud("invitations", "--data", clinic) == 0
        assert f"{id_}  cancelled" in capsys.readouterr().out
        assert pulsegate_cloud("cancel-invitation", "--data", clinic, "0123") == 1
        assert "0 invitations have the id '0123'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "status", "says"),
        [
            (("--hub", "a/b", "--subject", "s", "--address", "h:1"), 1, "names of 1 to 64 letters"),
            (("--hub", "a", "--subject", "gone", "--address", "h:1"), 1, "gone was erased"),
            (("--hub", "a", "--subject", "s", "--address", "h"), 2, "give one such as clinic.example:8443"),
        ],
    )
    def test_invite_refuses_what_no_hub_could_use(
        self, tmp_path: Path, options: tuple[str, ...], status: int, says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "keys" / "gone").mkdir(parents=True)
        (tmp_path / "keys" / "gone" / "erased").touch()

        assert pulsegate_cloud("invite", "--data", str(tmp_path), *options) == status
        assert says in capsys.readouterr().err

    def test_the_service_runs_and_stops(self, tmp_path: Path) -> None:
        site = Site(tmp_path / "clinic", now_s=STARTED_S)
        command = [sys.executable, "-m", "cloud.cli", "enrolment", "--data", str(tmp_path / "clinic"), "--port", "0"]
        command += ["--host", "127.0.0.1", "--broker", "mqtt.example:8883", "--watch-stdin"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            site.port = int(process.stdout.readline().rstrip("/\n").rpartition(":")[2])
            data = tmp_path / "data"
            assert run_enroll(tmp_path / "p.toml", code_of(site.invite()), {"PULSEGATE_DATA": str(data)}) == 0
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(timeout=20) == 0

        assert SiteRecord.load(data / FOLDER).brokers == [["mqtt.example", 8883, "DE"]]
        assert json.loads((data / FOLDER / "time.json").read_text())["highest_s"] >= site.now_s

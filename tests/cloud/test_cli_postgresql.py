"""`pulsegate-cloud` with its databases in PostgreSQL: start, receive, restart, totals, rebuild; the password in no output."""

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cloud.cli import main
from cloud.store import Store
from tests.clinic_testbed import Hub
from tests.cloud.synthetic import alert
from tests.databases import Databases

DATABASES = ("postgresql",)
LIMIT_S = 60


@pytest.fixture
def options(databases: Databases, tmp_path: Path) -> list[str]:
    urls = [str(databases.location(name)) for name in ("blocks", "projections")]
    return ["--data", str(tmp_path), "--store", urls[0], "--projections", urls[1]]


def shown_alerts(folder: Path, options: list[str]) -> list[str]:
    """Run the clinic until its page shows an alert; returns the ids."""
    command = [sys.executable, "-m", "cloud.cli", "dev", *options, "--port", "0", "--watch-stdin"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline, ids = time.monotonic() + LIMIT_S, list[str]()
        while not ids:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.1)
            if (folder / "clinic.json").exists():
                page = json.loads((folder / "clinic.json").read_text())["page"]
                with urlopen(f"{page}api/alerts", timeout=LIMIT_S) as answer:  # noqa: S310
                    ids = [found["id"] for found in json.load(answer)["alerts"]]
    finally:
        _, error = process.communicate(timeout=LIMIT_S)  # closes its stdin
    assert (process.returncode, error) == (0, b"")
    return ids


def test_a_clinic_on_postgresql_shows_what_is_stored(
    tmp_path: Path, options: list[str], databases: Databases, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(Store.open(databases.location("blocks"))) as store:
        hub.send(store, "alert", alert(id="one"))
    assert shown_alerts(tmp_path, options) == ["one"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "acknowledgement.key",
        "audit.key",
        "audit.pub",
        "command.key",
        "hubs",
        "keys",
        "lock",
        "receipt.key",
    ]
    for rebuild in ([], ["--rebuild"]):
        assert main(["open", *options, *rebuild]) == 0
        account: Any = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (account["blocks"], account["records"], account["unopened"]) == (1, 1, {})
    assert shown_alerts(tmp_path, options) == ["one"]


def test_a_wrong_password_is_one_line(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGPASSWORD", "CANARY-4711")
    assert main(["open", *options]) == 1
    error = capsys.readouterr().err
    assert "cannot open the store postgresql://pulsegate@/blocks" in error
    assert "password authentication failed" in error
    assert error.count("\n") == 1
    assert "CANARY" not in error


def test_no_server_is_one_line(tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options[3] = f"postgresql://pulsegate@/blocks?host={tmp_path}"
    assert main(["open", *options]) == 1
    error = capsys.readouterr().err
    assert "cannot open the store" in error
    assert "check that the server runs" in error
    assert error.count("\n") == 1

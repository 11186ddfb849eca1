"""An export holds everything of one subject, reads back complete, and says what could not be opened."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.cli import main
from tests.cloud.test_patient_consent import command
from tests.cloud.two_patients import CANARIES, TwoPatients, records_of
from tests.databases import ON_BOTH, Databases

DATABASES = ON_BOTH
SUBJECT = "patient-1"
FILES = {"alert_requests", "alerts", "audit", "commands", "consents", "holds", "records", "registrations", "unopened"}


@pytest.fixture
def clinic(tmp_path: Path, databases: Databases) -> Iterator[TwoPatients]:
    clinic = TwoPatients(tmp_path, databases)
    for hub in clinic.hubs.values():
        hub.put(records_of(hub.subject))
        clinic.receive(hub)
    yield clinic
    clinic.stop()
    for hub in clinic.hubs.values():
        hub.outbox.close()


def export(clinic: TwoPatients, out: Path, subject: str = SUBJECT) -> int:
    return main(["export", "--data", str(clinic.folder.path), *clinic.options, "--subject", subject, "--out", str(out)])


def read(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_record_reads_back(clinic: TwoPatients, tmp_path: Path) -> None:
    out = tmp_path / "export"
    assert export(clinic, out) == 0
    rows, sealed = read(out, "records"), records_of(SUBJECT)
    assert [(row["type"], row["lane"]) for row in rows] == [
        *[("alert", "alert")],
        *[("vital", "vital")] * 20,
        *[("waveform", "wave")] * 10,
    ]
    for row, record in zip(rows[1:21], sealed["vital"], strict=True):
        assert (row["kind"], row["value"], row["at_us"]) == (record.kind, record.value, record.times.at_us)  # type: ignore[union-attr]
    for row, record in zip(rows[21:], sealed["wave"], strict=True):
        assert row["samples"] == record.samples.tolist()  # type: ignore[union-attr]
        assert (row["scale"], row["rate_hz"]) == (record.scale, record.rate_hz)  # type: ignore[union-attr]
    (alert,) = read(out, "alerts")
    (sealed_alert,) = sealed["alert"]
    assert alert["strip_samples"] == sealed_alert.strip.samples.tolist()  # type: ignore[union-attr]
    assert alert["reasons"] == [CANARIES[SUBJECT]]


def test_the_manifest_proves_each_file(clinic: TwoPatients, tmp_path: Path) -> None:
    out = tmp_path / "export"
    assert export(clinic, out) == 0
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert {path.stem for path in out.glob("*.jsonl")} == FILES == {name.removesuffix(".jsonl") for name in manifest["files"]}
    for name, written in manifest["files"].items():
        content = (out / name).read_bytes()
        assert written == {
            "lines": content.count(b"\n"),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    assert (manifest["blocks"], manifest["opened"], manifest["is_complete"]) == (3, 3, True)
    assert manifest["records"] == {"alert": 1, "vital": 20, "waveform": 10}
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


def test_it_holds_nothing_of_another_subject(clinic: TwoPatients, tmp_path: Path) -> None:
    out = tmp_path / "export"
    assert export(clinic, out) == 0
    content = b"".join(path.read_bytes() for path in out.iterdir())
    assert CANARIES[SUBJECT].encode() in content
    for foreign in (CANARIES["patient-2"], "patient-2", "hub-2"):
        assert foreign.encode() not in content


def test_it_says_who_looked_what_was_agreed_and_which_hub_it_was(clinic: TwoPatients, tmp_path: Path) -> None:
    (tmp_path / "consent.txt").write_text("I agree.\n", encoding="utf-8")
    assert command(clinic, "consent", "give", "--text", str(tmp_path / "consent.txt")) == 0
    assert command(clinic, "hold", "set", "--reason", "case 12") == 0
    out = tmp_path / "export"
    assert export(clinic, out) == 0
    assert [(row["hub"], row["to"]) for row in read(out, "registrations")] == [("hub-1", None)]
    assert [(row["given"], row["text"]) for row in read(out, "consents")] == [(True, "I agree.\n")]
    assert [row["reason"] for row in read(out, "holds")] == ["case 12"]
    rows = read(out, "audit")
    assert [row["action"] for row in rows] == ["give-consent", "set-hold", "export"]  # its own row, too
    assert {row["subject"] for row in rows} == {SUBJECT}
    assert (rows[-1]["purpose"], rows[-1]["outcome"]) == ("subject-request", "done")


def test_blocks_that_do_not_open_are_listed_and_the_export_says_so(
    clinic: TwoPatients, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (key,) = (clinic.folder.keys / SUBJECT).glob("*.key")
    key.rename(tmp_path / "moved.key")
    out = tmp_path / "export"
    assert export(clinic, out) == 1
    assert "3 of 3 blocks could not be opened" in capsys.readouterr().err
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["is_complete"], manifest["unopened"], manifest["opened"]) == (False, {"no key": 3}, 0)
    assert [(row["lane"], row["reason"]) for row in read(out, "unopened")] == [
        (lane, "no key") for lane in ("alert", "vital", "wave")
    ]


def test_what_cannot_be_exported_is_refused(clinic: TwoPatients, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert export(clinic, tmp_path / "there") == 1
    assert "exists" in capsys.readouterr().err
    assert export(clinic, tmp_path / "export", "nobody") == 1
    assert "nothing is known" in capsys.readouterr().err
    assert export(clinic, tmp_path / "export", "../patient-1") == 1
    assert clinic.erase(SUBJECT) == 0
    assert export(clinic, tmp_path / "export") == 1
    assert "was erased" in capsys.readouterr().err
    assert not (tmp_path / "export").exists()

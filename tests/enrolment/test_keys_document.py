"""docs/keys.md names every key: those in the code, and those that lie in the folders of an enrolled hub and its site."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloud.cli import main
from cloud.signing_keys import USES, key_file
from config.settings import load_settings
from gateway.audit_log import open_audit_log
from gateway.commands.enroll import run_enroll
from gateway.commands.erase import KEYS
from gateway.hub_key import ARGON2, CREDENTIAL, MIN_PASSPHRASE_CHARACTERS, PASSPHRASE_CREDENTIAL, SALT_BYTES, load_hub_key
from gateway.sealed_files import KEY_FILES
from sync.signing import Label, SigningKey, Use
from tests.enrolment.site_testbed import STARTED_S, Site

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "keys.md"
SUBJECT: Final = "subject-1"
NOT_MADE: Final = {"buffer.db", "bonds.json", "clinic.key"}
"""Rows whose key has no file of its own here: it lies in a database, belongs to a radio, or is of an old version."""


@dataclass(frozen=True, slots=True)
class Row:
    """A key of the document: its name, purpose and kind, and the file that the row names first."""

    name: str
    purpose: str
    kind: str
    file: str


def tables() -> dict[str, list[list[str]]]:
    """The cells of the rows below each heading."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith("|---"):
            found.setdefault(heading, []).append([cell.strip() for cell in line.strip("|").split(" | ")])
    return {name: rows[1:] for name, rows in found.items()}


def rows_of(heading: str) -> list[Row]:
    return [Row(name, purpose, kind, re.findall(r"`([^`]+)`", file)[0]) for name, purpose, kind, file, *_ in tables()[heading]]


def find_private_keys(folder: Path) -> Iterator[Path]:
    """Files that hold a private key, whatever their name: by a title, by PEM or PKCS#12, or as 32 bytes."""
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        is_titled = re.match(rb"pulsegate [a-z ]+ (private key|hub key)", content)
        if is_titled or b"PRIVATE KEY-----" in content or path.suffix in (".key", ".p12") or len(content) == 32:
            yield path


def kind_of(path: Path) -> str:
    content = path.read_bytes()
    if b"PRIVATE KEY-----" in content:
        key = load_pem_private_key(content[: content.index(b"\n", content.index(b"-----END ")) + 1], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return {"secp256r1": "ECDSA P-256", "secp384r1": "ECDSA P-384"}[key.curve.name]
    if len(content) == 32:
        return "256 random bits"
    return {32: "ECDSA P-256", 96: "ML-KEM-768 and X25519"}[len(bytes.fromhex(content.split(b"\n")[1].decode()))]


def matches(file: str, path: str) -> bool:
    """Whether a path is one of the files that a row names: N is a number, and SUBJECT and FOLDER are names."""
    pattern = re.escape(file).replace("SUBJECT", "[^/]+").replace("FOLDER", "[^/]+").replace("N\\.", "[0-9]+\\.")
    return re.fullmatch(pattern.replace("/N/", "/[0-9]+/"), path) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of an enrolled hub, and with its clinic, of which every command that makes a key was run."""
    folder = tmp_path_factory.mktemp("keys")
    with Site(folder / "clinic", now_s=STARTED_S).serving() as site:
        environment = {"PULSEGATE_DATA": str(folder / "hub")}
        code = "\n".join(site.invite(subject=SUBJECT).rows())
        assert run_enroll(folder / "pulsegate.toml", code, environment) == 0
        load_hub_key(folder / "hub")
        open_audit_log(load_settings(folder / "pulsegate.toml", environment), lambda: STARTED_S)
        data = ["--data", str(folder / "clinic")]
        assert main(["rotate-key", *data, "--subject", SUBJECT]) == 0
        assert (
            main(
                [
                    "site",
                    "issue-service",
                    *data,
                    "--name",
                    "page",
                    "--host",
                    "localhost",
                    "--out",
                    str(folder / "clinic" / "page"),
                ]
            )
            == 0
        )
        assert main(["site", "rotate-root", *data]) == 0
        assert main(["user", "add", "dr-may", *data, "--out", str(folder / "NAME.p12")]) == 0
        recovery = ["--private", str(folder / "recovery.key"), "--public", str(folder / "recovery.pub")]
        assert main(["create-recovery-key", *recovery]) == 0
    return folder


@pytest.mark.parametrize(("heading", "place"), [("On the hub", "hub"), ("At the clinic", "clinic")])
def test_every_key_file_has_a_row_and_every_row_its_file(site: Path, heading: str, place: str) -> None:
    rows, folder = rows_of(heading), site / place
    found = list(find_private_keys(folder))
    assert len(found) >= len([row for row in rows if row.file not in NOT_MADE])

    named = set()
    for path in found:
        matching = [row for row in rows if matches(row.file, str(path.relative_to(folder)))]
        assert len(matching) == 1, f"docs/keys.md has {len(matching)} rows for {path}"
        row = matching[0]
        assert row.kind == kind_of(path)
        assert path.stat().st_mode & 0o777 == 0o600
        named.add(row.file)
    assert {row.file for row in rows} - named <= NOT_MADE


def test_keys_elsewhere_have_a_row(site: Path) -> None:
    elsewhere = " ".join(" ".join(cells) for cells in tables()["Elsewhere"])
    found = [path for path in find_private_keys(site) if path.parent == site]

    assert {path.name for path in found} == {"NAME.p12", "recovery.key"}
    for name in ("`NAME.p12`", "`recovery.key`", f"`{CREDENTIAL}`", f"`{PASSPHRASE_CREDENTIAL}`", "Ed25519"):
        assert name in elsewhere


def test_each_key_of_the_code_has_a_row() -> None:
    hub, clinic = ({row.file for row in rows_of(heading)} for heading in ("On the hub", "At the clinic"))

    assert set(KEYS) <= hub
    assert set(KEY_FILES) <= hub
    assert {key_file(Path(), use).name for use in USES} <= clinic


def test_each_key_has_one_purpose_of_its_own() -> None:
    rows = [(cells[0], cells[1]) for heading in ("On the hub", "At the clinic", "Elsewhere") for cells in tables()[heading]]

    for column in (0, 1):
        values = [row[column] for row in rows]
        assert len(set(values)) == len(values)
    assert all(
        len(cells) == (8 if heading == "At the clinic" else 7)
        for heading in ("On the hub", "At the clinic")
        for cells in tables()[heading]
    )
    assert all(all(cells) for found in tables().values() for cells in found), "a row leaves something open"


def test_the_labels_of_each_use_are_those_of_the_code() -> None:
    documented = {use: set(re.findall(r"`([^`]+)`", labels)) for use, labels in tables()["What a signing key signs"]}

    signed = {str(use): {str(label) for label in Label if signs(use, label)} for use in Use}
    assert documented == signed


def signs(use: Use, label: Label) -> bool:
    try:
        SigningKey.generate(use).sign(label, "hub-1")
    except ValueError:
        return False
    return True


def test_the_figures_are_those_of_the_code() -> None:
    text = " ".join(DOCUMENT.read_text().split())

    assert f"{ARGON2.iterations} passes over {ARGON2.memory_kib // 1024} MiB in {ARGON2.lanes} lanes" in text
    assert f"a salt of {SALT_BYTES} bytes" in text
    assert f"a passphrase of at least {MIN_PASSPHRASE_CHARACTERS} characters" in text


def test_a_key_that_nobody_described_is_found(tmp_path: Path) -> None:
    """The search itself: it sees a new kind of key under any name."""
    SigningKey.generate(Use.TIME).create(tmp_path / "new")
    (tmp_path / "raw").write_bytes(bytes(32))
    (tmp_path / "notes.txt").write_text("no key")

    assert [path.name for path in find_private_keys(tmp_path)] == ["new", "raw"]
    assert not any(matches(row.file, "new") for row in rows_of("On the hub"))

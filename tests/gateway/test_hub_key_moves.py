"""The move of a hub key between a plain file, a systemd credential and a passphrase."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.site import Authority
from config.files import locked
from config.identity import write_identity
from config.settings import load_settings
from gateway.audit_log import AUDIT_KEY_FILE, open_audit_log
from gateway.cli import main
from gateway.enrolment.identity import FOLDER, encode_tls_key
from gateway.hub_key import (
    CREDENTIAL,
    PASSPHRASE_CREDENTIAL,
    HubKeyError,
    Place,
    find_place,
    load_hub_key,
    seal_hub_key,
    unlock_hub_key,
)
from gateway.startup import LOCK_FILE, load_command_key, load_device_key
from sync.key_files import KeyFileError
from tests.gateway.hub_keys import KEY, KNOWN, NOW_S, SECRETS, can_use_tls, move, read_all


@pytest.fixture
def enrolled(hub: Path, cheap_argon2: None) -> Path:
    """A hub with all its keys: with a certificate, a command key and an audit log."""
    data = hub / "data"
    authority = Authority.create(hub / "site", "main", "DE", "BE", NOW_S)
    key = ec.generate_private_key(ec.SECP256R1())
    chain = authority.issue_hub("hub-1", key.public_key(), NOW_S)
    write_identity(data / FOLDER, encode_tls_key(key, None), chain, authority.roots)
    load_command_key(data)
    open_audit_log(load_settings(hub / "pulsegate.toml", {}), lambda: NOW_S)
    return hub


@pytest.mark.parametrize("place", KNOWN)
def test_a_move_keeps_every_key_and_leaves_none_in_plain(place: Place, enrolled: Path, credentials: Path) -> None:
    data = enrolled / "data"
    before, plain = read_all(enrolled), {path.name: path.read_bytes() for path in data.rglob("*.key")}
    os.utime(data / "hub.key", (NOW_S, NOW_S))

    move(enrolled, place)

    assert find_place(data / "hub.key") == place
    assert read_all(enrolled) == before
    assert set(plain) == {"hub.key", "device.key", "command.key", AUDIT_KEY_FILE}
    for path in data.rglob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
        secret = plain[path.name] if path.name == "hub.key" else plain[path.name].split(b"\n")[1]
        assert secret not in path.read_bytes()
    assert (data / "hub.key").stat().st_mtime == NOW_S, "the key is as old as before"
    assert (data / FOLDER / "identity.pem").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert not can_use_tls(data, None)
    with pytest.raises(KeyFileError, match="sealed with a hub key"):
        load_device_key(data)

    move(enrolled, Place.FILE)

    assert {path.name: path.read_bytes() for path in data.rglob("*.key")} == plain
    assert read_all(enrolled) == before


def test_a_passphrase_is_changed_by_another_move(enrolled: Path, credentials: Path) -> None:
    move(enrolled, Place.PASSPHRASE)
    before = read_all(enrolled)

    move(enrolled, Place.PASSPHRASE, b"another passphrase")

    with pytest.raises(HubKeyError, match="does not open"):
        load_hub_key(enrolled / "data")
    (credentials / PASSPHRASE_CREDENTIAL).write_text("another passphrase")
    assert read_all(enrolled) == before


def test_a_hub_can_be_protected_before_its_first_start(hub: Path, credentials: Path) -> None:
    for path in (hub / "data").iterdir():
        path.unlink()

    move(hub, Place.CREDENTIAL)
    load_device_key(hub / "data", unlock_hub_key(hub / "data"))

    assert b"sealed with the hub key" in (hub / "data" / "device.key").read_bytes()


def test_what_the_file_held_before_is_overwritten(enrolled: Path, credentials: Path) -> None:
    paths = [enrolled / "data" / name for name in ("hub.key", "device.key", "command.key", f"{FOLDER}/identity.pem")]
    former = [path.open("rb") for path in paths]
    move(enrolled, Place.CREDENTIAL)

    for file in former:
        with file:
            content = file.read()
            assert content == bytes(len(content)) != b""


def test_nothing_moves_while_the_agent_runs_or_without_the_present_secret(enrolled: Path, credentials: Path) -> None:
    with locked(enrolled / "data" / LOCK_FILE), pytest.raises(HubKeyError, match="agent is running"):
        move(enrolled, Place.CREDENTIAL)
    move(enrolled, Place.CREDENTIAL)
    (credentials / CREDENTIAL).write_bytes(bytes(32))
    before = {path: path.read_bytes() for path in (enrolled / "data").rglob("*.key")}

    with pytest.raises(HubKeyError, match="does not open"):
        move(enrolled, Place.FILE)
    assert {path: path.read_bytes() for path in (enrolled / "data").rglob("*.key")} == before


@pytest.mark.parametrize("key", ["device.key", "command.key", AUDIT_KEY_FILE])
def test_a_key_file_of_another_hub_key_is_named(key: str, enrolled: Path, credentials: Path) -> None:
    move(enrolled, Place.CREDENTIAL)
    path = enrolled / "data" / "hub.key"
    path.write_bytes(seal_hub_key(KEY, Place.CREDENTIAL, SECRETS[Place.CREDENTIAL]))
    (enrolled / "data" / FOLDER / "identity.pem").unlink()

    for name in {"device.key", "command.key", AUDIT_KEY_FILE} - {key}:
        (enrolled / "data" / name).unlink()
    with pytest.raises(KeyFileError, match=f"{key} is damaged, or sealed with another hub key"):
        move(enrolled, Place.FILE)
    assert find_place(path) == Place.CREDENTIAL


def test_a_move_that_is_killed_at_any_step_leaves_readable_keys(enrolled: Path, credentials: Path) -> None:
    """A child makes each move once for each system call that changes a file, and exits there."""
    killed = subprocess.run(
        [sys.executable, "-m", "tests.gateway.killed_moves", enrolled],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert killed.returncode == 0, killed.stderr
    outcomes = [json.loads(line) for line in killed.stdout.splitlines()]

    moves = {(outcome["from"], outcome["to"]) for outcome in outcomes}
    assert moves == {("file", "credential"), ("credential", "file"), ("credential", "passphrase")}
    for pair in moves:
        steps = [outcome for outcome in outcomes if (outcome["from"], outcome["to"]) == pair]
        assert len(steps) > 2
        assert steps[-1]["is_done"]
        assert {step["place"] for step in steps} == set(pair)
    assert all(outcome["is_readable"] for outcome in outcomes)
    assert all(outcome["is_readable_again"] for outcome in outcomes)


def test_the_command_moves_and_lists_without_a_secret(
    enrolled: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(enrolled / "pulsegate.toml")
    data = enrolled / "data"
    secrets = [load_hub_key(data).secret.hex(), *(path.read_text().split("\n")[1] for path in data.glob("[acd]*.key"))]
    assert len(secrets) == 4
    assert main(["keys", "move", "credential", "--config", config]) == 0
    assert capsys.readouterr().out == "the hub key lies in: credential\n"

    assert main(["keys", "list", "--config", config]) == 0
    shown = capsys.readouterr().out
    for words in ("hub key: seals what only this hub reads", "sealed under a credential", "device key", "command key",
                  "audit key", "TLS key", "data key ", "encrypts blocks of subject-1", "sealed with the hub key"):  # fmt: skip
        assert words in shown
    assert "in plain" not in shown

    assert main(["keys", "list", "--json", "--config", config]) == 0
    listed = capsys.readouterr().out
    assert [key["name"].split(" ")[0] for key in json.loads(listed)] == ["hub", "device", "command", "audit", "TLS", "data"]
    assert not any(secret in shown + listed for secret in secrets)


def test_a_wrong_passphrase_is_one_line_that_does_not_quote_it(
    enrolled: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    move(enrolled, Place.PASSPHRASE)
    (credentials / PASSPHRASE_CREDENTIAL).write_text("wrong horse battery staple")

    for command in ("check-config", "identity", "run", "persons", "doctor", "renew"):
        assert main([command, "--config", str(enrolled / "pulsegate.toml")]) == 1
        said = capsys.readouterr().err
        assert "the passphrase does not open" in said
        assert said.count("\n") == 1
        assert "wrong horse" not in said

"""The hub key in a plain file, under a systemd credential and under a passphrase, and its move between them."""

import getpass
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.site import Authority
from config.endpoint import Endpoint
from config.files import locked
from config.identity import write_identity
from config.settings import load_settings
from config.tls import TlsSetupError, make_endpoint_context
from gateway.audit_log import AUDIT_KEY_FILE, open_audit_log
from gateway.cli import main
from gateway.commands.keys import move_hub_key
from gateway.enrolment.identity import FOLDER, encode_tls_key
from gateway.hub_key import (
    ARGON2,
    CREDENTIAL,
    MAX_SECRET_BYTES,
    MIN_PASSPHRASE_CHARACTERS,
    PASSPHRASE_CREDENTIAL,
    STRONGEST_ARGON2,
    Argon2Parameters,
    HubKeyError,
    Place,
    find_place,
    load_hub_key,
    open_hub_key,
    read_hub_key,
    read_new_passphrase,
    read_secret_of_system,
    seal_hub_key,
    unlock_hub_key,
)
from gateway.startup import LOCK_FILE, load_command_key, load_device_key
from sync.cbor import decode_cbor, encode_cbor
from sync.key_files import KeyFileError
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.registration import Registration
from sync.signing import SigningKey, Use

KEY = HubKey(bytes(range(32)))
PASSPHRASE = "correct horse battery staple"
SECRETS = {Place.CREDENTIAL: bytes(range(100, 132)), Place.PASSPHRASE: PASSPHRASE.encode()}
NOW_S = 1_790_000_000
KNOWN = {
    Place.PASSPHRASE: (
        "8550000102030405060708090a0b0c0d0e0f03041a00010000583c000102030405060708090a0b6601b824163a05d428c173d287737cf83aa4"
        "e3b13530ddb7bbac9c0db337615db80166ed281757553e5adcd38c78ccb7"
    ),
    Place.CREDENTIAL: (
        "8250000102030405060708090a0b0c0d0e0f583c000102030405060708090a0b93b27776c5699ddf7743c0ac0aa65d72e1868dc2fd8492e136"
        "06c72a408610148d3f16c80f31a4f73243e29b70e333be"
    ),
}
"""Written by another program from the description in the module: argon2-cffi, HMAC of the standard library, CBOR by hand."""
CHEAP_ARGON2 = Argon2Parameters(1, 1, 8)
READ_PATHS: dict[str, Callable[[Path], object]] = {
    "hub": load_hub_key,
    "device": lambda data: load_device_key(data, unlock_hub_key(data)).to_bytes(),
    "command": lambda data: load_command_key(data, unlock_hub_key(data)).pair.to_bytes(),
}


def write(path: Path, place: Place, digits: str) -> Path:
    path.write_text(f"pulsegate hub key sealed under a {place}, version 1\n{digits}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id with the smallest parameters, where its cost is not tested: the real ones take a second."""
    monkeypatch.setattr("gateway.hub_key.ARGON2", CHEAP_ARGON2)


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a unit that loads both credentials."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / CREDENTIAL).write_bytes(SECRETS[Place.CREDENTIAL])
    (folder / PASSPHRASE_CREDENTIAL).write_text(f"{PASSPHRASE}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.fixture
def enrolled(hub: Path, cheap: None) -> Path:
    """A hub with all its keys: with a certificate, a command key and an audit log."""
    data = hub / "data"
    authority = Authority.create(hub / "site", "main", "DE", "BE", NOW_S)
    key = ec.generate_private_key(ec.SECP256R1())
    chain = authority.issue_hub("hub-1", key.public_key(), NOW_S)
    write_identity(data / FOLDER, encode_tls_key(key, None), chain, authority.roots)
    load_command_key(data)
    open_audit_log(load_settings(hub / "pulsegate.toml", {}), lambda: NOW_S)
    return hub


def move(hub: Path, place: Place, secret: bytes | None = None) -> None:
    move_hub_key(load_settings(hub / "pulsegate.toml", {}), place, lambda wanted: secret or SECRETS[wanted])


def can_use_tls(data: Path, hub_key: HubKey | None) -> bool:
    password = b"" if hub_key is None else hub_key.tls_password()
    try:
        return make_endpoint_context(Endpoint("mqtt.example", 8883, data / FOLDER, "DE"), password=password) is not None
    except TlsSetupError:
        return False


def read_keys(hub: Path) -> list[object]:
    """Every key of a hub, however it is stored; the TLS key proves itself."""
    data = hub / "data"
    hub_key = unlock_hub_key(data)
    assert can_use_tls(data, hub_key)
    audit = SigningKey.load(data / AUDIT_KEY_FILE, Use.AUDIT, hub_key)
    return [*(read(data) for read in READ_PATHS.values()), audit.to_bytes()]


def read_all(hub: Path) -> list[object]:
    """Every key of a hub, of which the hub key opens the buffer."""
    data = hub / "data"
    keys = HubKeys(load_hub_key(data), load_device_key(data, unlock_hub_key(data)))
    registration = Registration.load(hub / "registration.toml", "hub-1")
    opened = Outbox.open(
        data / "buffer.db", hub="hub-1", subject="subject-1", keys=keys, registration=registration, clock=lambda: 1_800_000_000
    )
    with closing(opened) as outbox:
        assert outbox.pending("vital", (0, 0), 10**6)
    return read_keys(hub)


@pytest.mark.parametrize("place", KNOWN)
def test_opens_what_another_program_sealed(place: Place, tmp_path: Path) -> None:
    secret = "correct horse bättery".encode() if place == Place.PASSPHRASE else SECRETS[place]

    assert open_hub_key(write(tmp_path / "hub.key", place, KNOWN[place]), lambda _: secret) == KEY


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("place", Place)
def test_what_is_sealed_opens_in_its_place_only(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    path.write_bytes(seal_hub_key(KEY, place, SECRETS.get(place, b"")))
    path.chmod(0o600)

    assert find_place(path) == place
    assert open_hub_key(path, lambda asked: SECRETS[asked]) == KEY
    if place != Place.FILE:
        assert KEY.secret.hex() not in path.read_text()
        with pytest.raises(HubKeyError, match=f"the {place} does not open"):
            open_hub_key(path, lambda asked: SECRETS[asked] + b"x")


def test_two_files_of_one_key_have_nothing_in_common(tmp_path: Path) -> None:
    first, second = (
        decode_cbor(bytes.fromhex(seal_hub_key(KEY, Place.CREDENTIAL, bytes(32)).split(b"\n")[1].decode()), limit_bytes=999)
        for _ in range(2)
    )
    assert first[0] != second[0]
    assert first[1][:12] != second[1][:12]


def test_a_passphrase_costs_what_rfc_9106_recommends() -> None:
    items = decode_cbor(bytes.fromhex(seal_hub_key(KEY, Place.PASSPHRASE, b"x").split(b"\n")[1].decode()), limit_bytes=999)

    assert tuple(items[1:4]) == tuple(ARGON2) == (3, 4, 65536)
    assert len(items[0]) == 16


@pytest.mark.parametrize("place", KNOWN)
def test_a_flipped_bit_is_found(place: Place, tmp_path: Path) -> None:
    content, secret = bytes.fromhex(KNOWN[place]), SECRETS[place]
    n_bits = len(content) * 8
    bits = range(n_bits) if place == Place.CREDENTIAL else (20, 150, n_bits - 480, n_bits - 200, n_bits - 1)  # Argon2 is slow
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path = write(tmp_path / "hub.key", place, changed.hex())
        with pytest.raises(HubKeyError, match=r"does not open|damaged"):
            open_hub_key(path, lambda _: secret)


@pytest.mark.parametrize(
    "parameters",
    [
        (2, 4, 65536),
        (3, 3, 65536),
        (3, 4, 65535),
        (STRONGEST_ARGON2.iterations + 1, 4, 65536),
        (3, STRONGEST_ARGON2.lanes + 1, 65536),
        (3, 4, STRONGEST_ARGON2.memory_kib + 1),
        (3, 4, 2**40),
        (3, 4),
        (3, 4, 65536, 1),
        (3, 4, True),
        (3, 4, "65536"),
        (3, 4, None),
    ],
)
def test_weaker_and_absurd_parameters_are_refused(parameters: tuple[object, ...], tmp_path: Path) -> None:
    path = write(tmp_path / "hub.key", Place.PASSPHRASE, encode_cbor([bytes(16), *parameters, bytes(60)]).hex())

    with pytest.raises(HubKeyError, match="damaged"):
        open_hub_key(path, lambda _: pytest.fail("the passphrase is not asked for"))


@pytest.mark.parametrize("digits", ["", "zz", "00", "80", "a0", "8240", "8143616263", "83404040", "824161634161"])
def test_other_contents_are_damage(digits: str, tmp_path: Path) -> None:
    for place in KNOWN:
        with pytest.raises(HubKeyError, match="damaged"):
            open_hub_key(write(tmp_path / "hub.key", place, digits), lambda asked: SECRETS[asked])


def test_a_form_of_a_newer_version_is_not_taken_for_a_damaged_key(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    path.write_text("pulsegate hub key sealed under a smart card, version 1\n00\n")

    with pytest.raises(HubKeyError, match="update pulsegate"):
        find_place(path)


@pytest.mark.parametrize("place", KNOWN)
def test_a_file_that_others_may_read_is_refused(place: Place, tmp_path: Path) -> None:
    path = write(tmp_path / "hub.key", place, KNOWN[place])
    path.chmod(0o640)

    with pytest.raises(KeyFileError, match="chmod 600"):
        open_hub_key(path, lambda asked: SECRETS[asked])


class TestSecrets:
    def test_come_from_the_credentials_of_the_unit(self, credentials: Path) -> None:
        assert read_secret_of_system(Place.CREDENTIAL) == SECRETS[Place.CREDENTIAL]
        assert read_secret_of_system(Place.PASSPHRASE) == PASSPHRASE.encode()

    def test_a_process_without_the_credential_is_told_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        with pytest.raises(HubKeyError, match="LoadCredentialEncrypted"):
            read_secret_of_system(Place.CREDENTIAL)

    def test_short_and_overlong_credentials_are_refused(self, credentials: Path) -> None:
        (credentials / CREDENTIAL).write_bytes(bytes(31))
        with pytest.raises(HubKeyError, match="31 bytes"):
            read_secret_of_system(Place.CREDENTIAL)
        (credentials / CREDENTIAL).write_bytes(bytes(MAX_SECRET_BYTES + 1))
        with pytest.raises(HubKeyError, match="over the limit"):
            read_secret_of_system(Place.CREDENTIAL)

    def test_without_a_terminal_nobody_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        monkeypatch.setattr(sys, "stdin", io.StringIO(PASSPHRASE))
        with pytest.raises(HubKeyError, match="there is no terminal"):
            read_secret_of_system(Place.PASSPHRASE)

    def test_at_a_terminal_a_new_one_is_typed_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        typed = iter([PASSPHRASE, PASSPHRASE, PASSPHRASE, f"{PASSPHRASE} ", "short", "short", "e\u0301" * 15, "\u00e9" * 15])
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(getpass, "getpass", lambda _: next(typed))

        assert read_new_passphrase() == PASSPHRASE.encode()
        with pytest.raises(HubKeyError, match="differ"):
            read_new_passphrase()
        with pytest.raises(HubKeyError, match=f"at least {MIN_PASSPHRASE_CHARACTERS}"):
            read_new_passphrase()
        assert read_new_passphrase() == ("\u00e9" * 15).encode()  # two keyboards, one passphrase

    def test_the_agent_gives_its_renewal_the_key_and_nothing_else(self) -> None:
        assert read_hub_key(io.BytesIO(KEY.secret)) == KEY
        with pytest.raises(HubKeyError, match="31 bytes"):
            read_hub_key(io.BytesIO(bytes(31)))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("place", KNOWN)
def test_a_move_keeps_every_key_and_leaves_none_in_plain(place: Place, enrolled: Path, credentials: Path) -> None:
    data = enrolled / "data"
    before, plain = read_all(enrolled), {path.name: path.read_bytes() for path in data.rglob("*.key")}

    move(enrolled, place)

    assert find_place(data / "hub.key") == place
    assert read_all(enrolled) == before
    assert set(plain) == {"hub.key", "device.key", "command.key", AUDIT_KEY_FILE}
    for path in data.rglob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
        secret = plain[path.name] if path.name == "hub.key" else plain[path.name].split(b"\n")[1]
        assert secret not in path.read_bytes()
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
        assert len(steps) > 5
        assert steps[-1]["is_done"]
        assert {step["place"] for step in steps} == set(pair)
    assert all(outcome["is_readable"] for outcome in outcomes)
    assert all(outcome["is_readable_again"] for outcome in outcomes)


def test_the_command_moves_and_lists_without_a_secret(
    enrolled: Path, credentials: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(enrolled / "pulsegate.toml")
    secrets = [path.read_bytes() for path in (enrolled / "data").rglob("*.key")]
    assert main(["keys", "move", "credential", "--config", config]) == 0
    assert capsys.readouterr().out == "the hub key lies in: credential\n"

    assert main(["keys", "list", "--config", config]) == 0
    shown = capsys.readouterr().out
    for words in ("hub key: seals what only this hub reads", "sealed under a credential", "device key", "command key",
                  "audit key", "TLS key", "data key ", "encrypts blocks of subject-1", "sealed with the hub key"):  # fmt: skip
        assert words in shown
    assert "in plain" not in shown
    for secret in secrets:
        assert secret.split(b"\n")[-1].hex() not in shown or secret.endswith(b"\n")
        assert secret.decode(errors="replace").strip().split("\n")[-1] not in shown

    assert main(["keys", "list", "--json", "--config", config]) == 0
    names = [key["name"].split(" ")[0] for key in json.loads(capsys.readouterr().out)]
    assert names == ["hub", "device", "command", "audit", "TLS", "data"]


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

"""The hub key in a plain file, under a systemd credential and under a passphrase."""

import getpass
import io
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.hub_key import (
    ARGON2,
    CREDENTIAL,
    MAX_SECRET_BYTES,
    MIN_PASSPHRASE_CHARACTERS,
    STRONGEST_ARGON2,
    HubKeyError,
    Place,
    find_place,
    open_hub_key,
    read_hub_key,
    read_new_passphrase,
    read_secret_of_system,
    seal_hub_key,
)
from sync.cbor import decode_cbor, encode_cbor
from sync.key_files import KeyFileError
from tests.gateway.hub_keys import KEY, KNOWN, PASSPHRASE, SECRETS, write


@pytest.mark.parametrize("place", KNOWN)
def test_opens_what_another_program_sealed(place: Place, tmp_path: Path) -> None:
    secret = "correct horse bättery".encode() if place == Place.PASSPHRASE else SECRETS[place]

    assert open_hub_key(write(tmp_path / "hub.key", place, KNOWN[place]), lambda _: secret) == KEY


@pytest.mark.usefixtures("cheap_argon2")
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


OPEN_AND_MEASURE = """
import sys
from pathlib import Path
from gateway.hub_key import open_hub_key
key = open_hub_key(Path(sys.argv[1]), lambda _: "correct horse bättery".encode())
lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(len(key.secret), int(lines["VmHWM"].split()[0]), int(lines["VmRSS"].split()[0]))
"""


def test_the_memory_that_argon2_takes_is_given_back(tmp_path: Path) -> None:
    path = write(tmp_path / "hub.key", Place.PASSPHRASE, KNOWN[Place.PASSPHRASE])
    command = [sys.executable, "-c", OPEN_AND_MEASURE, path]
    opened = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    n_bytes, highest_kib, after_kib = map(int, opened.stdout.split())
    assert n_bytes == 32
    assert highest_kib - after_kib > 0.9 * ARGON2.memory_kib


@pytest.mark.parametrize("place", KNOWN)
def test_a_flipped_bit_is_found(place: Place, tmp_path: Path) -> None:
    content, secret = bytes.fromhex(KNOWN[place]), SECRETS[place]
    n_bits = len(content) * 8
    bits = range(n_bits) if place == Place.CREDENTIAL else (20, n_bits - 200)  # of the salt and of the key: Argon2 is slow
    path = write(tmp_path / "hub.key", place, KNOWN[place])
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_text(path.read_text().split("\n")[0] + f"\n{changed.hex()}\n")
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

"""A hub with all its keys, and the places of its hub key."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from config.endpoint import Endpoint
from config.settings import load_settings
from config.tls import TlsSetupError, make_endpoint_context
from gateway.audit_log import AUDIT_KEY_FILE
from gateway.commands.keys import move_hub_key
from gateway.enrolment.identity import FOLDER
from gateway.hub_key import (
    Argon2Parameters,
    Place,
    load_hub_key,
    unlock_hub_key,
)
from gateway.startup import load_command_key, load_device_key
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

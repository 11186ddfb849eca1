"""Fixtures for the tests of the agent: the folder of a hub, its credentials, and a clinic that sends commands."""

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.hub_key import CREDENTIAL, PASSPHRASE_CREDENTIAL, Place
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.signing import SigningKey, Use
from tests.fake_clinic import FakeClinic
from tests.gateway.command_site import Site
from tests.gateway.hub_keys import CHEAP_ARGON2, PASSPHRASE, SECRETS

SETTINGS = """
hub = "hub-1"
subject = "subject-1"
data = "data"
radio = "virtual:none.sock"
[clinic]
host = "127.0.0.1"
port = 1
registration = "registration.toml"
[[sensor]]
name = "strap"
advertised_name = "Virtual H10"
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's folder with settings, a registration and a buffer that contains one block."""
    (tmp_path / "pulsegate.toml").write_text(SETTINGS)
    data = tmp_path / "data"
    data.mkdir()
    keys = HubKeys(HubKey.load_or_create(data / "hub.key"), SigningKey.load_or_create(data / "device.key", Use.DEVICE))
    registration = FakeClinic("hub-1", keys.device.public).registration
    registration.save(tmp_path / "registration.toml")
    settings: Any = {"hub": "hub-1", "subject": "subject-1", "keys": keys, "registration": registration}
    with closing(Outbox.open(tmp_path / "data" / "buffer.db", clock=lambda: 1_800_000_000, **settings)) as outbox:
        outbox.put("vital", b"a reading")
    return tmp_path


@pytest.fixture
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
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
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A clinic and a whole agent, which may change the level of the log."""
    level = logging.getLogger().level
    site = Site(tmp_path, monkeypatch)
    with closing(site.store):
        yield site
    site.engine.dispose()
    logging.getLogger().setLevel(level)

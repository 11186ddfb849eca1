"""Fixtures for the tests of the agent: the folder of a hub."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.signing import SigningKey, Use
from tests.fake_clinic import FakeClinic

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

"""Fixtures for the tests of the agent: the folder of a hub."""

from contextlib import closing
from pathlib import Path

import pytest

from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair

SETTINGS = """
hub = "hub-1"
subject = "subject-1"
data = "data"
radio = "virtual:none.sock"
[clinic]
host = "127.0.0.1"
port = 1
public_key = "clinic.pub"
[[sensor]]
name = "strap"
advertised_name = "Virtual H10"
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's folder with settings, a clinic's public key and a buffer that contains one block."""
    (tmp_path / "pulsegate.toml").write_text(SETTINGS)
    pair = ClinicKeyPair.generate()
    pair.public.save(tmp_path / "clinic.pub")
    (tmp_path / "data").mkdir()
    key = HubKey.load_or_create(tmp_path / "data" / "hub.key")
    settings = {"hub": "hub-1", "subject": "subject-1", "hub_key": key, "clinic": pair.public}
    with closing(Outbox.open(tmp_path / "data" / "buffer.db", clock=lambda: 1_800_000_000, **settings)) as outbox:
        outbox.put("vital", b"a reading")
    return tmp_path

"""A hub whose keys are sealed under a credential enrols and renews, and gets the clinic's new key for its subject."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.cli import main
from cloud.key_store import KeyStore
from config.endpoint import Endpoint
from config.sample import make_sample
from config.settings import parse_settings
from config.tls import TlsSetupError, make_endpoint_context
from gateway.commands.enroll import run_enroll
from gateway.commands.keys import move_hub_key
from gateway.enrolment.identity import FOLDER
from gateway.hub_key import CREDENTIAL, Place, unlock_hub_key
from gateway.renewal import renew_by_process
from sync.registration import Registration
from tests.enrolment.site_testbed import STARTED_S, Site

SECRET = bytes(range(32))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "clinic", now_s=STARTED_S).serving() as site:
        yield site


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The unit's credential and data folder."""
    (tmp_path / CREDENTIAL).write_bytes(SECRET)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("PULSEGATE_DATA", str(tmp_path / "data"))
    return monkeypatch


def test_no_key_of_an_enrolled_hub_is_ever_in_plain(site: Site, tmp_path: Path, unit: pytest.MonkeyPatch) -> None:
    config, data = tmp_path / "pulsegate.toml", tmp_path / "data"
    environment = {"PULSEGATE_DATA": str(data)}
    move_hub_key(parse_settings(make_sample(), config, environment), Place.CREDENTIAL, lambda _: SECRET)
    assert run_enroll(config, "\n".join(site.invite().rows()), environment) == 0
    hub_key, identity = unlock_hub_key(data), data / FOLDER / "identity.pem"
    assert hub_key is not None
    enrolled = identity.read_bytes()
    unit.delenv("CREDENTIALS_DIRECTORY")  # the agent gives its renewal the key, not the credential

    assert not asyncio.run(renew_by_process(config))
    assert asyncio.run(renew_by_process(config, hub_key))

    assert identity.read_bytes() != enrolled
    endpoint = Endpoint("mqtt.example", 8883, data / FOLDER, "DE")
    assert make_endpoint_context(endpoint, password=hub_key.tls_password()) is not None
    with pytest.raises(TlsSetupError, match="holds no key"):
        make_endpoint_context(endpoint)
    for path in (data / "device.key", data / "command.key"):
        assert path.read_text().split("\n")[0].endswith(", sealed with the hub key")
    for content in (enrolled, identity.read_bytes()):
        assert b"-----BEGIN PRIVATE KEY-----" not in content


def test_a_renewal_brings_the_clinics_new_key_for_the_subject(site: Site, tmp_path: Path, unit: pytest.MonkeyPatch) -> None:
    config, data = tmp_path / "pulsegate.toml", tmp_path / "data"
    assert run_enroll(config, "\n".join(site.invite().rows()), {"PULSEGATE_DATA": str(data)}) == 0
    registration = data / FOLDER / "registration.toml"
    before = Registration.load(registration, "hub-1").recipients["subject-1"]

    assert main(["rotate-key", "--data", str(site.folder.path), "--subject", "subject-1"]) == 0
    assert asyncio.run(renew_by_process(config))

    after, newest = (
        Registration.load(registration, "hub-1").recipients["subject-1"],
        KeyStore(site.folder.keys).public("subject-1"),
    )
    assert newest is not None
    assert after.fingerprint == newest.fingerprint != before.fingerprint

"""An enrolled hub's agent against a real mosquitto: switched on after a month, it renews and then connects."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from config.sample import make_sample
from config.settings import parse_settings
from gateway.commands.enroll import run_enroll
from gateway.commands.keys import move_hub_key
from gateway.enrolment.identity import FOLDER, SiteRecord
from gateway.hub_key import CREDENTIAL, Place, read_secret_of_system
from sync.enrolment import Broker as BrokerAddress
from tests.enrolment.site_testbed import DAY_S, Site
from tests.mosquitto import HOST, Broker

LIMIT_S = 60.0


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@contextmanager
def running(broker: Broker) -> Iterator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.mark.parametrize("is_sealed", [False, True], ids=["keys in plain", "keys under a credential"])
def test_an_agent_that_was_off_for_a_month_renews_and_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    config, data = tmp_path / "pulsegate.toml", tmp_path / "data"
    if is_sealed:
        seal_keys(data, monkeypatch)
    now_s = int(time.time())  # the broker's own clock: that of the tests' start may be many minutes behind
    with Site(tmp_path / "clinic", now_s=now_s - 30 * DAY_S).serving() as site:
        broker = Broker(site.authority, tmp_path)
        site.service.brokers = [BrokerAddress(HOST, broker.hubs_port, "DE")]
        assert run_enroll(config, "\n".join(site.invite().rows()), {"PULSEGATE_DATA": str(data)}) == 0
        site.pass_time(30 * DAY_S)
        site.authority.write_crls(site.now_s)
        reboot(data, config)
        command = [sys.executable, "-m", "gateway.cli", "run", "--config", config]
        log = tmp_path / "agent.log"
        with running(broker), log.open("w") as file, subprocess.Popen(command, stderr=file) as agent:
            try:
                wait_until(lambda: any(re.search(r" as hub-1 ", line) for line in broker.log), lambda: "\n".join(broker.log))
                wait_until(lambda: "the certificate of this hub was renewed" in log.read_text(), log.read_text)
            finally:
                agent.kill()  # a clean stop would wait for a clinic, which is not there

    assert site.paths[-3:] == ["/v2/time", "/v2/nonce", "/v2/renew"]
    assert ((data / FOLDER / "identity.pem").read_text().startswith("-----BEGIN ENCRYPTED")) == is_sealed
    leaf = x509.load_pem_x509_certificates((data / FOLDER / "identity.pem").read_bytes())[0]
    assert leaf.not_valid_after_utc.timestamp() == SiteRecord.load(data / FOLDER).until_s > time.time() + 6 * DAY_S


def seal_keys(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub key lie under a credential before it enrols."""
    (data.parent / CREDENTIAL).write_bytes(bytes(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(data.parent))
    settings = parse_settings(make_sample(), data.parent / "pulsegate.toml", {"PULSEGATE_DATA": str(data)})
    move_hub_key(settings, Place.CREDENTIAL, read_secret_of_system)


def reboot(data: Path, config: Path) -> None:
    """Let the site's time be of an earlier boot, and give the hub a radio without sensors."""
    path = data / FOLDER / "time.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "an earlier one"}))
    config.write_text(config.read_text().replace('radio = "bluetooth"', 'radio = "virtual:none.sock"'))

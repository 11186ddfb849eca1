"""`site keep`: certificates and revocation lists stay current by themselves, and a revocation takes effect."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from cloud.site import Authority, Kind
from cloud.site.certificates import LIFE_S
from cloud.site.identity import keep_identity
from cloud.site.keeper import RENEW_S, Keeper
from config.identity import IDENTITY_FILE
from sync.mqtt import Connected, Disconnected, MqttClient
from tests.mosquitto import Broker, now_s

LIMIT_S = 30
HUB = "hub-of-the-keeper"


class Database:
    """A process in place of the database server: it ends when it is told to read its files again."""

    def __init__(self, pid_file: Path) -> None:
        self.process = subprocess.Popen(["sleep", "600"])
        self.pid_file = pid_file
        pid_file.write_text(f"{self.process.pid}\n/data\n")

    def was_reloaded(self) -> bool:
        return self.process.wait(LIMIT_S) == -1  # SIGHUP

    def is_running(self) -> bool:
        return self.process.poll() is None


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "postmaster.pid")
    yield database
    database.process.kill()
    database.process.wait()


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is cut, so that the keeper need not wait for the broker."""
    monkeypatch.setattr("cloud.site.keeper.RELOAD_S", 0.0)


class Keeping:
    """A keeper of the tests' site, whose clock is the test's."""

    def __init__(self, broker: Broker, database: Database) -> None:
        self.clock_s = 0.0
        self.issued = 0
        self.keeper = Keeper(
            broker.authority, self._issue, lambda: self.clock_s, broker=broker.folder / "broker", database_pid=database.pid_file
        )

    def _issue(self, _authority: Authority) -> None:
        self.issued += 1


def list_number(authority: Authority) -> int:
    crl = x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes())
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


@pytest.mark.usefixtures("_at_once")
def test_lists_and_certificates_are_renewed_each_hour(broker: Broker, database: Database) -> None:
    keeping, number = Keeping(broker, database), list_number(broker.authority)
    asyncio.run(keeping.keeper.look())
    assert (list_number(broker.authority), keeping.issued) == (number + 1, 1)
    assert database.was_reloaded()
    keeping.clock_s = RENEW_S - 1
    asyncio.run(keeping.keeper.look())
    assert (list_number(broker.authority), keeping.issued) == (number + 1, 1)
    keeping.clock_s = RENEW_S
    asyncio.run(keeping.keeper.look())
    assert (list_number(broker.authority), keeping.issued) == (number + 2, 2)


def test_a_hub_that_an_operator_revokes_is_cut_and_refused(
    broker: Broker, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.mqtt_backoff.BACKOFF_S", (0.01, 0.01))
    keeping = Keeping(broker, database)

    async def run() -> None:
        await keeping.keeper.look()
        second = Database(tmp_path / "second.pid")
        keeping.keeper._database_pid = second.pid_file
        client = MqttClient(broker.hub(HUB), client_id=HUB, subscriptions=())
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            assert await client.receive() == Connected()
            broker.authority.revoke(Kind.HUBS, HUB, now_s())
            await keeping.keeper.look()
            event = await client.receive()
            while isinstance(event, Connected) or "revoked" not in event.reason:
                assert isinstance(event, Connected | Disconnected)
                event = await client.receive()
            running.cancel()
        assert await asyncio.to_thread(second.was_reloaded)

    asyncio.run(run())


@pytest.mark.usefixtures("_at_once")
def test_nothing_is_reloaded_as_long_as_the_lists_are_the_same(broker: Broker, database: Database, tmp_path: Path) -> None:
    keeping = Keeping(broker, database)
    asyncio.run(keeping.keeper.look())
    second = Database(tmp_path / "second.pid")
    keeping.keeper._database_pid = second.pid_file
    asyncio.run(keeping.keeper.look())
    assert second.is_running()
    second.process.kill()
    second.process.wait()


@pytest.mark.usefixtures("_at_once")
def test_what_fails_is_logged_and_tried_again(broker: Broker, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    keeping = Keeping(broker, database)
    pid = database.pid_file.read_text()
    database.pid_file.unlink()
    asyncio.run(keeping.keeper.look())
    assert "cannot reload the database" in caplog.text
    assert database.is_running()
    database.pid_file.write_text(pid)
    asyncio.run(keeping.keeper.look())
    assert database.was_reloaded()


class TestIdentity:
    def test_a_certificate_is_renewed_in_its_last_third_and_for_other_hosts(self, broker: Broker, tmp_path: Path) -> None:
        folder, start_s = tmp_path / "page", int(time.time())
        life_s = LIFE_S[Kind.SERVICES]
        assert keep_identity(broker.authority, folder, "page", ["clinic.example", "127.0.0.1"], start_s)
        first = (folder / IDENTITY_FILE).read_bytes()
        assert not keep_identity(broker.authority, folder, "page", ["127.0.0.1", "clinic.example"], start_s + life_s // 2)
        assert (folder / IDENTITY_FILE).read_bytes() == first
        assert keep_identity(broker.authority, folder, "page", ["clinic.example"], start_s)
        assert keep_identity(broker.authority, folder, "page", ["clinic.example"], start_s + life_s * 7 // 10)

    def test_a_service_without_a_host_keeps_its_certificate(self, broker: Broker, tmp_path: Path) -> None:
        assert keep_identity(broker.authority, tmp_path / "a", "metrics", [], now_s())
        assert not keep_identity(broker.authority, tmp_path / "a", "metrics", [], now_s())
        shutil.rmtree(tmp_path / "a")
        assert keep_identity(broker.authority, tmp_path / "a", "metrics", [], now_s())

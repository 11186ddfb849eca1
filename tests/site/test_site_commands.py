"""`pulsegate-cloud site`: an operator sets a site up, revokes a hub at the running broker, and rotates the root."""

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud.cli import main
from cloud.site import Authority, Kind
from cloud.site.authority import ROOT_OVERLAP_S
from sync.mqtt import Connected, Disconnected, MqttClient
from tests.mosquitto import Broker, now_s

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on a new site; returns what it prints."""

    def run_command(command: str, *arguments: object, status: int = 0, data: Path = tmp_path / "clinic") -> str:
        assert main(["site", command, "--data", str(data), *map(str, arguments)]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    run_command("init", "--site", "Testklinik", "--country", "DE", "--region", "Bayern")
    return run_command


def test_a_service_gets_a_private_key_and_the_roots(run: Run, tmp_path: Path) -> None:
    run("issue-service", "--name", "page", "--host", "clinic.example", "--host", "192.0.2.1", "--out", tmp_path / "page")
    assert stat.S_IMODE((tmp_path / "page" / "identity.pem").stat().st_mode) == 0o600
    assert (tmp_path / "page" / "roots.pem").read_bytes() == Authority.load(tmp_path / "clinic" / "site").roots
    lines = run("show").splitlines()
    assert lines[0] == "site Testklinik, Bayern, DE"
    assert [line.split()[0] for line in lines[1:]] == ["root", "services"]
    assert "page" in lines[2]
    assert "valid until" in lines[2]


def test_a_revoked_service_is_shown_as_such(run: Run, tmp_path: Path) -> None:
    run("issue-service", "--name", "page", "--out", tmp_path / "page")
    assert "accept them until they read the lists again" in run("revoke", "services", "page")
    assert run("show").splitlines()[2].endswith(" revoked")


def test_the_root_is_rotated(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("rotate-root")
    assert [line.split()[0] for line in run("show").splitlines()] == ["site", "root", "root"]
    assert "the new root is too young" in run("retire-root", status=1)
    monkeypatch.setattr("cloud.cli_site._now_s", lambda: now_s() + ROOT_OVERLAP_S)
    run("retire-root")
    assert [line.split()[0] for line in run("show").splitlines()] == ["site", "root"]


def test_failures_are_one_line_that_says_what_to_do(run: Run, tmp_path: Path) -> None:
    country = ("--site", "a", "--country", "US", "--region", "b")
    assert "give the code of a country of the EU or the EEA" in run("init", *country, status=1, data=tmp_path / "other")
    assert "create it with pulsegate-cloud site init" in run("show", status=1, data=tmp_path / "none")
    assert "no valid certificate of hubs" in run("revoke", "hubs", "hub-1", status=1)
    (tmp_path / "file").touch()
    assert "choose a folder" in run("issue-service", "--name", "page", "--out", tmp_path / "file", status=1)
    assert "cannot reload the broker" in run("crl", "--broker", tmp_path, status=1)


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.1:0", ":8883", "a b:8883", "192.0.2.1:x"])
def test_a_listener_that_is_no_address_is_bad_usage(run: Run, tmp_path: Path, address: str) -> None:
    folders = ("--identity", tmp_path, "--out", tmp_path)
    assert "is not an address" in run("configure-broker", "--hubs", address, "--services", "127.0.0.1:1", *folders, status=2)


def test_the_configuration_names_both_listeners(run: Run, tmp_path: Path) -> None:
    run("issue-service", "--name", "broker", "--host", "192.0.2.1", "--out", tmp_path / "broker")
    folders = ("--identity", tmp_path / "broker", "--out", tmp_path / "mosquitto")
    printed = run("configure-broker", "--hubs", "192.0.2.1:8883", "--services", "[::1]:8884", *folders)
    assert f"mosquitto -c {tmp_path}/mosquitto/mosquitto.conf" in printed
    config = (tmp_path / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    assert [line for line in config if line.startswith("listener")] == ["listener 8883 192.0.2.1", "listener 8884 ::1"]


def test_the_configuration_of_the_database_asks_for_tls_and_certificates(run: Run, tmp_path: Path) -> None:
    run("issue-service", "--name", "database", "--host", "192.0.2.1", "--out", tmp_path / "database")
    printed = run("configure-database", "--identity", tmp_path / "database", "--out", tmp_path / "postgresql")
    policy = Path(printed.strip().rpartition("OPENSSL_CONF=")[2])
    assert "Ciphersuites = TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256" in policy.read_text()
    assert "ssl_min_protocol_version = 'TLSv1.3'" in (tmp_path / "postgresql" / "pulsegate.conf").read_text()
    rules = [line.split() for line in (tmp_path / "postgresql" / "pg_hba.conf").read_text().splitlines() if line[0] != "#"]
    assert [(rule[0], rule[2], *rule[3:]) for rule in rules] == [
        ("local", "postgres", "peer"),
        ("local", "all", "scram-sha-256"),
        ("hostssl", "all", "all", "scram-sha-256", "clientcert=verify-ca"),
    ]


def test_a_revoked_hub_is_cut_from_the_running_broker(broker: Broker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.mqtt_backoff.BACKOFF_S", (0.01, 0.01))
    data = broker.authority.folder.parent / "clinic"
    data.mkdir()
    (data / "site").symlink_to(broker.authority.folder)

    async def scenario() -> None:
        client = MqttClient(broker.hub("hub-cut"), client_id="hub-cut", subscriptions=[])
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(client.run())
            assert await client.receive() == Connected()
            command = ("revoke", Kind.HUBS, "hub-cut", "--broker", broker.folder / "broker")
            assert "open connections of revoked hubs were cut" in await asyncio.to_thread(run, *command, data=data)
            events = [await client.receive() for _ in range(2)]
            assert all(isinstance(event, Disconnected) for event in events)
            assert "which was revoked" in str(events[1])
            running.cancel()

    asyncio.run(scenario())

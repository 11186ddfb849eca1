"""Endpoints beside the site's: an allow-list at both ends, and a refusal in the audit log, at start and at connect."""

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from cloud import audit_log as cloud_audit
from cloud.cli import main as clinic
from cloud.services import logging_start_and_stop
from cloud.site_settings import SAMPLE, load_site_settings
from cloud.store import Store
from cloud.store.audit import read_rows
from config import egress
from config.egress import EndpointGuard, RefusedEndpointError
from config.endpoint import ListedEndpoint
from config.settings import load_settings
from gateway import audit_events, startup
from gateway.audit_events import AgentAudit
from gateway.audit_log import AuditLog
from gateway.cli import main as hub
from sync.audit import Action, AuditEvent, Outcome, read_row
from sync.signing import SigningKey, Use
from tests.fake_clinic import FakeClinic
from tests.gateway.testbed import START_US
from tests.postgresql import Server

LISTED = '[[endpoint]]\nuse = "error-reports"\nhost = "reports.example"\nport = 443\nregion = "{}"\n'
HUB = """
hub = "hub-1"
subject = "subject-1"
data = "data"
radio = "bluetooth"
[clinic]
host = "127.0.0.1"
port = 1883
registration = "registration.toml"
[[sensor]]
name = "strap"
address = "a0:9e:1a:00:00:01"
"""


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> EndpointGuard:
    """A guard in place of the one of this process."""
    guard = EndpointGuard()
    monkeypatch.setattr(egress, "_GUARD", guard)
    return guard


def refuse(guard: EndpointGuard, host: str) -> None:
    with pytest.raises(RefusedEndpointError):
        guard.check_address((host, 443))


def read_refusals(log: AuditLog) -> list[tuple[tuple[str, ...], int]]:
    return describe([read_row(*row).event for row in log.rows()])


def describe(events: list[AuditEvent]) -> list[tuple[tuple[str, ...], int]]:
    found = [event for event in events if event.action == Action.REFUSE_ENDPOINT]
    assert all(event.outcome == Outcome.REFUSED for event in found)
    return [(event.objects, event.count) for event in found]


class TestHub:
    def test_the_list_is_read_and_its_servers_may_be_used(self, tmp_path: Path, guard: EndpointGuard) -> None:
        (tmp_path / "hub.toml").write_text(HUB + LISTED.format("FR"))
        settings = startup.load_agent_settings(tmp_path / "hub.toml", {})
        assert settings.endpoints == (ListedEndpoint("error-reports", "reports.example", 443, "FR"),)
        guard.check_name("reports.example")
        assert load_settings(tmp_path / "hub.toml", {}) == settings

    @pytest.mark.parametrize("text", [HUB + LISTED.format("US"), HUB.replace("1883", '8883\nidentity = "id"\nregion = "US"')])
    def test_a_region_elsewhere_stops_the_start_and_is_logged(
        self, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "hub.toml").write_text(text)
        assert hub(["run", "--config", str(tmp_path / "hub.toml")]) == 1
        assert not (tmp_path / "data").exists()
        (tmp_path / "data").mkdir(mode=0o700)
        assert hub(["run", "--config", str(tmp_path / "hub.toml")]) == 1
        assert "region = 'US' is not allowed" in capsys.readouterr().err
        endpoint = "reports.example:443" if "reports" in text else "127.0.0.1:8883"
        log = AuditLog(tmp_path / "data", "hub-1", "main", lambda: START_US)
        assert read_refusals(log) == [((f"endpoint:{endpoint}",), 1)]

    def test_what_is_refused_while_the_agent_runs_is_logged(
        self, tmp_path: Path, guard: EndpointGuard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audit_events, "ENDPOINT_INTERVAL_S", 0.0)
        log = AuditLog(tmp_path, "hub-1", "main", lambda: START_US)
        audit = AgentAudit(log, FakeClinic("hub-1", SigningKey.generate(Use.DEVICE).public).registration)
        for host in ("192.0.2.1", "192.0.2.1", "2001:db8::1"):
            refuse(guard, host)

        async def run() -> None:
            async with asyncio.timeout(20):
                watching = asyncio.create_task(audit.watch_endpoints(asyncio.to_thread))
                while not read_refusals(log):
                    await asyncio.sleep(0.001)
                watching.cancel()

        asyncio.run(run())
        assert read_refusals(log) == [(("endpoint:192.0.2.1:443",), 2), (("endpoint:2001:db8::1:443",), 1)]


class TestSite:
    @pytest.mark.parametrize(
        "text",
        [SAMPLE.replace('8884\nregion = "DE"', '8884\nregion = "US"'), SAMPLE + LISTED.format("US")],
        ids=["broker", "list"],
    )
    @pytest.mark.parametrize("service", ["ingest", "serve"])
    def test_a_region_elsewhere_stops_the_start_and_is_logged(
        self,
        tmp_path: Path,
        postgresql: Server,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        text: str,
        service: str,
    ) -> None:
        postgresql.create("endpoints")
        monkeypatch.setenv("PGPASSFILE", str(postgresql.password_file))
        url = postgresql.url("endpoints")
        (tmp_path / "site.toml").write_text(text.replace("postgresql://pulsegate@/blocks?host=/run/postgresql", str(url)))
        assert clinic([service, "--config", str(tmp_path / "site.toml")]) == 1
        assert "region = 'US' is not allowed" in capsys.readouterr().err
        with closing(Store.open(url)) as store:
            ((objects, count),) = read_site(store)
        assert objects == (
            "endpoint:reports.example:443" if "reports.example" in text else "endpoint:broker.clinic.example:8884",
        )
        assert count == 1

    def test_the_list_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "site.toml").write_text(SAMPLE + LISTED.format("IS"))
        settings = load_site_settings(tmp_path / "site.toml")
        assert settings.endpoints == (ListedEndpoint("error-reports", "reports.example", 443, "IS"),)

    def test_a_store_that_cannot_be_reached_does_not_hide_the_mistake(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        text = (SAMPLE + LISTED.format("US")).replace("/run/postgresql", str(tmp_path))
        (tmp_path / "site.toml").write_text(text)
        assert clinic(["ingest", "--config", str(tmp_path / "site.toml")]) == 1
        assert "region = 'US' is not allowed" in capsys.readouterr().err
        assert "cannot write to the audit log that reports.example:443 was refused" in caplog.text

    def test_what_is_refused_while_a_service_runs_is_logged(self, tmp_path: Path, guard: EndpointGuard) -> None:
        """At the latest when it stops."""
        with closing(Store.open(tmp_path / "blocks.db")) as store:

            async def run() -> None:
                async with logging_start_and_stop(store, "opener"):
                    refuse(guard, "192.0.2.1")
                    refuse(guard, "192.0.2.1")

            asyncio.run(run())
            assert read_site(store) == [(("endpoint:192.0.2.1:443",), 2)]

    def test_it_is_logged_soon(self, tmp_path: Path, guard: EndpointGuard, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cloud_audit, "ENDPOINT_INTERVAL_S", 0.001)
        with closing(Store.open(tmp_path / "blocks.db")) as store:

            async def run() -> None:
                async with asyncio.timeout(20), logging_start_and_stop(store, "opener"):
                    refuse(guard, "192.0.2.1")
                    while not read_site(store):
                        await asyncio.sleep(0.001)

            asyncio.run(run())
            assert read_site(store) == [(("endpoint:192.0.2.1:443",), 1)]


def read_site(store: Store) -> list[tuple[tuple[str, ...], int]]:
    with store.snapshot() as connection:
        return describe([read_row(*row).event for row in read_rows(connection)])

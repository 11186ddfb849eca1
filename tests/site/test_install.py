"""What `site install` writes: every service listens on this machine only, and speaks TLS with its own certificate and role."""

from dataclasses import replace
from pathlib import Path

import pytest

from cloud.cli import main
from cloud.errors import ClinicError
from cloud.site import install, layout
from cloud.site.database import make_cluster_settings
from cloud.site.install import DEFAULT_PLAN, load_plan, make_environment, make_settings, save_plan
from cloud.site.layout import SERVICES, Service
from cloud.site.supervise import read_environment_file
from cloud.site_settings import SiteSettings, load_site_settings
from config.endpoint import is_loopback

PLAN = replace(
    DEFAULT_PLAN, host="clinic.example", country="AT", region="Tirol", ingests=3, ssh_from=("192.0.2.0/24", "2001:db8::/32")
)
WORKERS = [service for service in SERVICES if service.name in {"ingest", "opener", "page"}]


def settings_of(service: Service, folder: Path) -> SiteSettings:
    path = folder / "site.toml"
    path.write_text(make_settings(service, PLAN))
    return load_site_settings(path)


@pytest.mark.parametrize("service", WORKERS, ids=lambda one: one.name)
def test_a_service_reaches_broker_and_databases_by_tls_as_itself(service: Service, tmp_path: Path) -> None:
    settings = settings_of(service, tmp_path)
    for url in (settings.store, settings.projections):
        assert (url.user, url.identity, url.region) == (service.name, Path("/etc/pulsegate", service.name), "AT")
        assert not url.is_socket
        assert is_loopback(url.host)
    for worker in (settings.ingest, settings.opener):
        assert worker.broker.identity is not None
        assert is_loopback(worker.broker.host)
    assert settings.page.hosts == ("clinic.example",)


@pytest.mark.parametrize("service", WORKERS, ids=lambda one: one.name)
def test_a_service_finds_its_keys_in_its_own_folder(service: Service, tmp_path: Path) -> None:
    settings = settings_of(service, tmp_path)
    own = {"ingest": settings.ingest, "opener": settings.opener}.get(service.name)
    if own is not None:
        assert {own.key.parent, own.audit_key.parent, own.broker.identity} == {service.folder}


def test_only_the_proxy_listens_beyond_this_machine(tmp_path: Path) -> None:
    assert is_loopback(settings_of(WORKERS[2], tmp_path).page.listen)
    assert f"listen_addresses = '{layout.LOOPBACK}'\n" in make_cluster_settings()
    units = Path(__file__).parents[2] / "deploy" / "systemd"
    assert "--listen" not in (units / "pulsegate-enrolment.service").read_text()  # the default is loopback
    assert is_loopback(layout.LOOPBACK)


def test_each_service_has_an_account_of_its_own_where_keys_differ() -> None:
    """Enrolment, opener and the operator's commands share the patients' keys, and so an account."""
    users = {service.name: service.user for service in SERVICES}
    assert users["opener"] == users["clinic"]
    assert len(set(users.values())) == len(users) - 1


def test_the_operators_commands_need_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic = next(service for service in SERVICES if service.name == layout.CLINIC)
    path = tmp_path / "clinic.env"
    path.write_text(make_environment(clinic, PLAN))
    variables = read_environment_file(path)
    assert variables["PULSEGATE_HOST"] == "clinic.example"
    for name in ("PULSEGATE_STORE", "PULSEGATE_PROJECTIONS"):
        monkeypatch.setenv(name, variables[name])
    monkeypatch.setenv("PULSEGATE_CLINIC", str(tmp_path / "clinic"))
    assert main(["site", "init", "--site", "Klinik", "--country", "DE", "--region", "Bayern"]) == 0
    assert (tmp_path / "clinic" / "site" / "site.toml").exists()


class TestPlan:
    @pytest.fixture(autouse=True)
    @staticmethod
    def plan_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "install.toml"
        monkeypatch.setattr(install, "PLAN_FILE", path)
        return path

    def test_the_next_run_knows_what_was_chosen(self) -> None:
        assert load_plan() is None
        save_plan(PLAN)
        assert load_plan() == PLAN

    def test_a_damaged_plan_is_refused(self, plan_file: Path) -> None:
        plan_file.write_text('host = "clinic.example"\n')
        with pytest.raises(ClinicError, match="cannot read"):
            load_plan()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--host", "no host", "is not a host name"),
        ("--ingests", "0", "is not a number from 1 to 16"),
        ("--ingests", "17", "is not a number from 1 to 16"),
    ],
)
def test_wrong_options_are_refused(option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "install", "--units", ".", "--revision", "1", option, value]) == 2
    assert message in capsys.readouterr().err


def test_who_is_connected_by_ssh_is_not_locked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "PLAN_FILE", tmp_path / "install.toml")
    monkeypatch.setattr(install, "install", lambda *_: pytest.fail("it was installed"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22")
    assert main(["site", "install", "--units", ".", "--revision", "1"]) == 1
    assert "give SSH_FROM=" in capsys.readouterr().err


def test_only_root_installs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for command in (["install", "--units", ".", "--revision", "1"], ["start"], ["stop"], ["state"]):
        assert main(["site", *command]) == 1
    assert capsys.readouterr().err.count("only root installs and runs a site") == 4

"""The settings file of a site's services: the sample is right, and each mistake is one line that says what to do."""

from pathlib import Path

import pytest

from cloud.cli import main
from cloud.database_url import PostgresUrl
from cloud.errors import ClinicError
from cloud.site_settings import SAMPLE, load_site_settings
from config.endpoint import Endpoint


def load(folder: Path, text: str) -> object:
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return load_site_settings(folder / "site.toml")


def test_the_sample_names_every_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-config"]) == 0
    (tmp_path / "site.toml").write_text(capsys.readouterr().out)
    settings = load_site_settings(tmp_path / "site.toml")
    assert settings.store == PostgresUrl("pulsegate", "/run/postgresql", 5432, "blocks")
    assert settings.ingest.broker == Endpoint("broker.clinic.example", 8884, Path("/etc/pulsegate/ingest"), "DE")
    assert settings.opener.command_key == Path("/etc/pulsegate/opener/command.key")
    assert settings.opener.audit_key == Path("/etc/pulsegate/opener/audit.key")
    assert (settings.page.hosts, settings.page.port) == (("clinic.example",), 8600)


def test_relative_paths_belong_to_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SAMPLE.replace("/var/lib/pulsegate-clinic/site/public", "public"))
    assert load_site_settings(tmp_path / "site.toml").public == tmp_path / "public"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[broker]", "[broker", "not valid TOML"),
        ("port = 8884", 'port = "8884"', r"broker.port = '8884' is not allowed: set it to a number from 1 to 65535"),
        ("port = 8884", "port = true", "broker.port = True is not allowed"),
        ("port = 8884", "port = 0", "broker.port = 0 is not allowed"),
        ('region = "DE"', 'region = "US"', "broker.region = 'US' is not allowed"),
        ('host = "broker.clinic.example"', 'host = "a b"', "broker.host = 'a b' is not allowed"),
        ("port = 8600", "port = 65536", "page.port = 65536 is not allowed"),
        ('hosts = ["clinic.example"]', "hosts = []", r"page.hosts = \[\] is not allowed"),
        ('hosts = ["clinic.example"]', 'hosts = ["*.example"]', "page.hosts = .* is not allowed"),
        ('audit_key = "/etc/pulsegate/opener/audit.key"', "", "opener.audit_key is missing: set it to a path"),
        ('command_key = "/etc/pulsegate/opener/command.key"', "", "opener.command_key is missing: set it to a path"),
        (
            'key = "/etc/pulsegate/ingest',
            'kee = "/etc/pulsegate/ingest',
            "unknown setting ingest.kee: use one of audit_key, identity, key",
        ),
        ("data =", "dada =", "unknown setting dada"),
        ("@/blocks", ":secret@/blocks", "databases.store: the URL of a database must hold no password"),
        ("[page]", "[pages]", r"page is missing: set it to a \[page\] table"),
    ],
)
def test_a_mistake_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert SAMPLE.count(old) >= 1
    with pytest.raises(ClinicError, match=message) as refused:
        load(tmp_path, SAMPLE.replace(old, new, 1))
    assert "\n" not in str(refused.value)


def test_a_service_without_its_files_does_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "site.toml"
    assert main(["ingest", "--config", str(config)]) == 1
    assert "cannot read the settings" in capsys.readouterr().err
    config.write_text(SAMPLE)
    for service, missing in (("ingest", "acknowledgement.key"), ("opener", "receipt.key"), ("serve", "identity.pem")):
        assert main([service, "--config", str(config)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert missing in error

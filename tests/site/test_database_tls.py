"""PostgreSQL on another computer: TLS 1.3 both ways, of this site only, with a password as well."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.cli import main
from cloud.database_url import PostgresUrl
from cloud.errors import ClinicError
from cloud.site import Authority, Kind
from cloud.site.certificates import LIFE_S
from cloud.store import Store
from sync.errors import SyncError, TransientError
from tests.mosquitto import HOST, make_identity, now_s
from tests.postgresql import USER
from tests.site.conftest import SiteDatabase
from tests.tls_probe import check_tls_policy


@pytest.fixture
def url(site_database: SiteDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PostgresUrl:
    server = site_database.server
    monkeypatch.setenv("PGPASSFILE", str(server.password_file))
    identity = make_identity(site_database.authority, tmp_path / "ingest", Kind.SERVICES, "ingest")
    return PostgresUrl(USER, HOST, server.port, "blocks", identity, "DE")


def refusal(url: PostgresUrl) -> str:
    with pytest.raises((ClinicError, SyncError)) as refused:
        Store.open(url)
    return str(refused.value)


def test_a_service_of_the_site_uses_the_database(url: PostgresUrl) -> None:
    with closing(Store.open(url)) as store:
        assert store.count_blocks() == 0
        with store.transaction() as connection:
            row = connection.exec_driver_sql(
                "SELECT version, cipher, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).one()
    assert row[:2] == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    assert "CN=ingest" in row[2]


def test_tls_1_2_and_other_suites_are_refused(url: PostgresUrl) -> None:
    check_tls_policy(url.port, "-starttls", "postgres", identity=url.identity)


def test_a_connection_without_tls_is_refused(url: PostgresUrl) -> None:
    assert "no pg_hba.conf entry" in refusal(replace(url, identity=None, region=None))


def test_a_certificate_does_not_replace_the_password(url: PostgresUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "password authentication failed" in refusal(url)


@pytest.mark.parametrize("kind", [Kind.HUBS, Kind.STAFF])
def test_the_password_does_not_replace_a_certificate_of_a_service(
    url: PostgresUrl, site_database: SiteDatabase, tmp_path: Path, kind: Kind
) -> None:
    other = make_identity(site_database.authority, tmp_path / "other", kind, "ingest")
    assert "refuses our certificate, which is of another site or purpose" in refusal(replace(url, identity=other))


def test_an_expired_certificate_is_refused_and_a_renewed_one_used(url: PostgresUrl, site_database: SiteDatabase) -> None:
    assert url.identity is not None
    with closing(Store.open(url)) as store:
        make_identity(site_database.authority, url.identity, Kind.SERVICES, "ingest", at_s=now_s() - LIFE_S[Kind.SERVICES] - 1)
        site_database.server.end_connections()
        with pytest.raises(TransientError, match="refuses our certificate, which has expired"):
            store.count_blocks()
        make_identity(site_database.authority, url.identity, Kind.SERVICES, "ingest")
        assert store.count_blocks() == 0


def test_a_server_of_another_site_name_or_country_is_refused(
    url: PostgresUrl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert url.identity is not None
    assert "is in DE, and region is AT" in refusal(replace(url, region="AT"))
    assert "for another name" in refusal(replace(url, host="localhost"))
    foreign = Authority.create(tmp_path / "foreign", "Testklinik", "DE", "Bayern", now_s())
    (url.identity / "roots.pem").write_bytes(foreign.roots)
    assert "of another site" in refusal(url)
    assert main(["open", "--data", str(tmp_path), "--store", str(url)]) == 1
    error = capsys.readouterr().err
    assert "of another site" in error
    assert error.count("\n") == 1

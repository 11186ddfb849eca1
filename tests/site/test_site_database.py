"""The roles of a site's services at its database: which of them reach what, on a real server by TLS."""

import base64
import hashlib
import hmac
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cloud.database_url import PostgresUrl
from cloud.errors import ClinicError
from cloud.projections_database import open_projections
from cloud.site import Authority, Kind
from cloud.site.database import (
    make_password,
    make_password_line,
    make_password_script,
    make_roles_script,
    make_verifier,
    read_password,
)
from cloud.site.layout import PROJECTIONS, SERVICES, STORE, Service
from cloud.site.postgresql import write_database_config
from cloud.store import Store
from sync.errors import SyncError
from tests.mosquitto import HOST, make_identity, now_s
from tests.postgresql import USER, Server, run_server

PASSWORDS = {service.name: f"password-of-{service.name}" for service in SERVICES if service.databases}


class SiteDatabase:
    """A server with the roles of a site."""

    def __init__(self, server: Server, authority: Authority, folder: Path) -> None:
        self._server, self._authority, self._folder = server, authority, folder
        scripts = [make_roles_script(SERVICES), make_roles_script(SERVICES)]  # the second run finds all there
        scripts += [make_password_script(one, PASSWORDS[one.name]) for one in SERVICES if one.databases]
        socket = str(server.password_file.parent)
        command = ["psql", "-X", "-q", "-h", socket, "-p", str(server.port), "-U", USER, "-d", "postgres"]
        environment = {**os.environ, "PGPASSFILE": str(server.password_file)}
        done = subprocess.run(command, input="".join(scripts), capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def url(self, name: str, database: str) -> PostgresUrl:
        identity = self._folder / name
        if not identity.exists():
            make_identity(self._authority, identity, Kind.SERVICES, name)
        return PostgresUrl(name, HOST, self._server.port, database, identity, "DE")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteDatabase]:
    created: list[Authority] = []

    def configure(folder: Path) -> Path:
        created.append(Authority.create(folder / "site", "Testklinik", "DE", "Bayern", now_s()))
        identity = make_identity(created[0], folder / "identity", Kind.SERVICES, "database", hosts=[HOST])
        return write_database_config(folder / "config", created[0], identity)

    with run_server(configure) as server:
        yield SiteDatabase(server, created[0], tmp_path_factory.mktemp("identities"))


def open_database(url: PostgresUrl) -> None:
    if url.database == STORE:
        with closing(Store.open(url)) as store:
            store.count_blocks()
    else:
        open_projections(url).dispose()


@pytest.mark.parametrize("service", [one for one in SERVICES if one.databases], ids=lambda one: one.name)
def test_a_service_uses_its_databases_and_no_other(
    database: SiteDatabase, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORDS[service.name])
    for name in service.databases:
        open_database(database.url(service.name, name))
    for name in {STORE, PROJECTIONS} - set(service.databases):
        with pytest.raises(SyncError, match="permission denied for database"):
            open_database(database.url(service.name, name))


def test_ingest_reads_no_decrypted_data() -> None:
    assert {one.name for one in SERVICES if PROJECTIONS in one.databases} == {"opener", "page", "clinic"}


def test_a_service_has_its_own_password_only(database: SiteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORDS["page"])
    with pytest.raises(SyncError, match="password authentication failed"):
        Store.open(database.url("ingest", STORE))


def test_a_verifier_is_that_of_the_standard() -> None:
    """The example of RFC 7677, 3: its server key signs the messages to the signature that stands there."""
    kind, parameters, keys = make_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")).split("$")
    assert (kind, parameters) == ("SCRAM-SHA-256", "4096:W22ZaJ0SNY7soEsUEjb6gQ==")
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    assert base64.b64encode(hmac.digest(server, message, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, message, "sha256"), strict=True))
    assert hashlib.sha256(client_key).digest() == stored


def test_a_password_file_names_one_role(tmp_path: Path) -> None:
    ingest, path, password = next(one for one in SERVICES if one.name == "ingest"), tmp_path / "pgpass", make_password()
    path.write_text(make_password_line(ingest, "secret"))
    assert path.read_text() == "127.0.0.1:8604:*:ingest:secret\n"
    path.write_text(make_password_line(ingest, password))
    assert read_password(path) == password
    path.write_text("damaged\n")
    with pytest.raises(ClinicError, match="cannot read"):
        read_password(path)

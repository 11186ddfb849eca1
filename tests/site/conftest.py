"""A PostgreSQL server of a site, reached by TLS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloud.site import Authority, Kind
from cloud.site.postgresql import write_database_config
from tests.mosquitto import HOST, make_identity, now_s
from tests.postgresql import Server, run_server


@dataclass(frozen=True)
class SiteDatabase:
    """The server, and the site whose services it lets in."""

    server: Server
    authority: Authority


def configure_database(created: list[Authority]) -> Callable[[Path], Path]:
    """Return what makes a site and its configuration of a server; the site is added to the list.

    The server's account reads the site's public files, so the site is in the server's folder.
    """

    def configure(folder: Path) -> Path:
        created.append(Authority.create(folder / "site", "Testklinik", "DE", "Bayern", now_s()))
        identity = make_identity(created[0], folder / "identity", Kind.SERVICES, "database", hosts=[HOST])
        return write_database_config(folder / "config", created[0], identity)

    return configure


@pytest.fixture(scope="session")
def site_database() -> Iterator[SiteDatabase]:
    created: list[Authority] = []
    with run_server(configure_database(created)) as server:
        server.create("blocks")
        yield SiteDatabase(server, created[0])

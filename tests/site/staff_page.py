"""A site whose page is served by HTTPS on loopback, and persons with certificates of all kinds."""

import asyncio
import atexit
import http.client
import shutil
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp
from websockets.sync.client import ClientConnection, connect

from cloud.api.app import create_app
from cloud.api.feed import Feed
from cloud.page_server import make_page_server
from cloud.projections_database import open_projections
from cloud.site import Authority, Kind
from cloud.sockets import listen_on_loopback
from cloud.staff_access import StaffAccess, keep_access
from cloud.store import Store
from config.tls import make_client_context, make_server_context
from tests.mosquitto import make_identity, now_s

PAGE: Final = "localhost"
"""The name of the page."""


_FOLDERS = tempfile.TemporaryDirectory()
atexit.register(_FOLDERS.cleanup)


@cache
def make_site() -> Path:
    """Return the folder of a new site, for copies: its keys take a while."""
    return Authority.create(Path(_FOLDERS.name) / "site", "Testklinik", "DE", "Bayern", now_s()).folder


class StaffPage:
    """The page of a site. `port` is set while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(make_site(), folder / "site")
        self.authority = Authority.load(folder / "site")
        self.port = 0
        self.page_identity = make_identity(self.authority, folder / "page", Kind.SERVICES, "page", hosts=(PAGE,))
        crl = self.authority.crl_file(Kind.STAFF)
        self.context = make_server_context(self.page_identity, anchors=self.authority.anchors_file(Kind.STAFF), crl=crl)
        self.access = StaffAccess([PAGE], crl, self.context)

    def identity(self, name: str, kind: Kind = Kind.STAFF, *, at_s: int | None = None) -> Path:
        """Issue a certificate; returns the folder of it and its key."""
        return make_identity(self.authority, self.folder / f"{kind}-{name}", kind, name, at_s=at_s)

    def foreign_identity(self, name: str) -> Path:
        """Issue a staff certificate of another site of the same name, whose CAs have other keys."""
        folder = self.folder / "foreign"
        foreign = Authority.create(folder / "site", "Testklinik", "DE", "Bayern", now_s())
        identity = make_identity(foreign, folder / name, Kind.STAFF, name)
        (identity / "roots.pem").write_bytes(self.authority.roots)
        return identity

    def client_context(self, identity: Path | None) -> ssl.SSLContext:
        return make_client_context(self.authority.roots.decode(), "DE", identity=identity)

    def connect(self, identity: Path | None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(PAGE, self.port, timeout=10, context=self.client_context(identity))

    def get(self, identity: Path | None, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send a request; returns status, headers and body."""
        with closing(self.connect(identity)) as connection:
            return ask(connection, path, method, **headers)

    def websocket(self, identity: Path | None, origin: str | None = None) -> ClientConnection:
        address = f"{PAGE}:{self.port}"
        options = {"origin": origin or f"https://{address}", "ssl": self.client_context(identity), "proxy": None}
        return connect(f"wss://{address}/ws", **options)

    @contextmanager
    def serving(self, app: ASGIApp | None = None) -> Iterator["StaffPage"]:
        """Serve the clinic's page, or another application, on a free port."""
        with closing(Store.open(self.folder / "blocks.db")) as store, listen_on_loopback(0, "--port") as listener:
            engine = open_projections(self.folder / "projections.db")
            self.port = listener.getsockname()[1]
            self.app = create_app(store, engine, Feed(engine), self.access)
            self.server = server = make_page_server(app or self.app, self.context)

            async def serve() -> None:
                keeping = asyncio.create_task(keep_access(server, self.access, self.context, self.page_identity))
                await server.serve(sockets=[listener])
                keeping.cancel()

            thread = threading.Thread(target=lambda: asyncio.run(serve()))
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = server.force_exit = True
                thread.join()
                engine.dispose()


def ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request on an open connection."""
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

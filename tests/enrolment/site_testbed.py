"""A site with its real enrolment service by TLS on loopback, and hubs; the clocks of all of them are the test's."""

import asyncio
import atexit
import contextlib
import shutil
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cloud.audit_log import AuditLog
from cloud.enrolment.app import make_app
from cloud.enrolment.identities import keep_tls_identity, load_time_signer
from cloud.enrolment.invitations import Invitations
from cloud.enrolment.server import make_server
from cloud.enrolment.service import EnrolmentService, Moment, invitations_of
from cloud.folder import ClinicFolder
from cloud.site import Authority
from cloud.sockets import listen
from cloud.store import Store
from config.tls import make_server_context
from gateway.enrolment.identity import FOLDER, SiteRecord
from gateway.enrolment.requests import enrol, renew
from gateway.enrolment.site_clock import Clocks, SiteClock
from sync.enrolment import Broker, RenewRequest, decode_nonce, encode_nonce_request
from sync.invitation import Invitation
from sync.recipients import RecipientKeyPair
from sync.signing import SigningKey, Use

_FOLDERS = tempfile.TemporaryDirectory()
atexit.register(_FOLDERS.cleanup)
STARTED_S = int(time.time())
"""For the tests of commands, which use the machine's clock."""
NOW_S = 1_790_000_000
DAY_S = 86_400
HOST = "127.0.0.1"


class Site:
    """A clinic's folder with a site, whose enrolment service `serving` runs. `now_s` is its clock."""

    def __init__(self, folder: Path, name: str = "Herzzentrum", now_s: int = NOW_S) -> None:
        shutil.copytree(make_clinic(name, now_s), folder)
        self.folder = ClinicFolder(folder)
        self.now_s, self.mono_s = now_s, 1000.0
        self.authority = Authority.load(self.folder.site)
        self.store = Store.open(self.folder.blocks)
        self.port = 0
        self.paths: list[str] = []
        """The paths of the requests that came."""
        self.service = self.make_service()

    def make_service(self) -> EnrolmentService:
        signer = load_time_signer(self.authority, self.folder.path / "enrolment", self.now_s)
        log = AuditLog(self.store, lambda: self.now_s * 1_000_000)
        return EnrolmentService(self.folder, self.authority, [Broker("mqtt.example", 8883, "DE")], signer, log)

    @property
    def invitations(self) -> Invitations:
        return invitations_of(self.folder)

    def moment(self) -> Moment:
        return Moment(self.now_s, self.mono_s)

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the service renews its own certificates meanwhile."""
        self.now_s += int(seconds)
        self.mono_s += seconds
        self.service.signer = load_time_signer(self.authority, self.folder.path / "enrolment", self.now_s)
        if self.port:
            self.context.load_cert_chain(self._tls_identity() / "identity.pem")

    def invite(self, hub: str = "hub-1", subject: str = "subject-1", *, root: bytes | None = None) -> Invitation:
        code = Invitation.generate(HOST, self.port or 1, root or self.authority.fingerprints()[0])
        self.invitations.add(code, hub, subject, self.now_s)
        return code

    @contextlib.contextmanager
    def serving(self, context: ssl.SSLContext | None = None) -> Iterator["Site"]:
        """Serve on a free port; with another context for a server that is not the true one."""
        self.context = context or make_server_context(self._tls_identity())
        inner = make_app(self.service, self.moment)

        async def app(scope, receive, send) -> None:
            self.paths.append(scope["path"])
            await inner(scope, receive, send)

        listener = listen(HOST, 0, "--port")
        self.port = listener.getsockname()[1]
        server = make_server(app, self.context)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield self
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
            listener.close()

    def _tls_identity(self) -> Path:
        return keep_tls_identity(self.authority, self.folder.path / "enrolment", [HOST], self.now_s)


@cache
def make_clinic(name: str, now_s: int) -> Path:
    """Return a clinic's folder with a new site, which is deleted when the tests end."""
    folder = Path(_FOLDERS.name) / f"{name}-{now_s}"
    authority = Authority.create(folder / "site", name, "DE", "Bayern", now_s)
    keep_tls_identity(authority, folder / "enrolment", [HOST], now_s)
    load_time_signer(authority, folder / "enrolment", now_s)
    return folder


@dataclass
class HubMachine:
    """A hub's data folder, with clocks of its own."""

    data: Path
    wall_s: float = NOW_S
    since_boot_s: float = 10.0
    boot_id: str = "boot-1"
    device: SigningKey = field(default_factory=lambda: SigningKey.generate(Use.DEVICE))
    command: RecipientKeyPair = field(default_factory=RecipientKeyPair.generate)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        return self.data / FOLDER

    @property
    def clock(self) -> SiteClock:
        return SiteClock(self.folder, Clocks(lambda: self.wall_s, lambda: self.since_boot_s, lambda: self.boot_id))

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        self.since_boot_s += seconds

    def reboot(self, wall_s: float) -> None:
        """Boot again, with a clock that shows this time."""
        self.wall_s, self.since_boot_s, self.boot_id = wall_s, 5.0, self.boot_id + "+"

    def enrol(self, code: Invitation) -> SiteRecord:
        return enrol(code, self.device, self.command.public, self.folder, self.clock)

    def renew(self) -> SiteRecord:
        return renew(self.device, self.folder, self.clock)


def renewal(site: Site, device: SigningKey, hub: str = "hub-1", *, nonce_for: str | None = None) -> bytes:
    nonce = decode_nonce(site.service.make_nonce(encode_nonce_request(nonce_for or hub), site.moment()))
    return RenewRequest.make(hub, nonce, device, SigningKey.generate(Use.TLS)).encode()

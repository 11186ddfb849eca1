"""A site with a mosquitto of the tests' own: on free ports of this computer, with TLS, for hubs and for services."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.site import Authority, Kind
from cloud.site.mosquitto import Listener, reload_broker, write_broker_config
from config.endpoint import Endpoint
from config.identity import write_identity

HOST: Final = "127.0.0.1"
START_LIMIT_S: Final = 30
PROGRAM: Final = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
"""Debian keeps it outside the path of an ordinary user."""


def now_s() -> int:
    return int(time.time())


def free_port() -> int:
    with contextlib.closing(socket.create_server((HOST, 0))) as probe:
        port: int = probe.getsockname()[1]
        return port


def make_identity(
    authority: Authority,
    folder: Path,
    kind: Kind,
    name: str,
    *,
    at_s: int | None = None,
    hosts: Sequence[str] = (HOST, "localhost"),
) -> Path:
    """Issue a certificate, and write it to a new folder with its key."""
    key, issued_s = ec.generate_private_key(ec.SECP256R1()), now_s() if at_s is None else at_s
    chain = {
        Kind.HUBS: lambda: authority.issue_hub(name, key.public_key(), issued_s),
        Kind.STAFF: lambda: authority.issue_staff(name, key.public_key(), issued_s),
        Kind.SERVICES: lambda: authority.issue_service(name, hosts, key.public_key(), issued_s),
    }[kind]()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_identity(folder, pem, chain, authority.roots)
    return folder


class Broker:
    """A mosquitto with the configuration of a site."""

    def __init__(self, authority: Authority, folder: Path, *, hosts: Sequence[str] = (HOST,)) -> None:
        """Write the configuration; `start` starts the broker. Its certificate has the names or addresses `hosts`."""
        self.authority, self.folder = authority, folder
        self.hubs_port, self.services_port = free_port(), free_port()
        self.log: list[str] = []
        hubs, services = (Listener(HOST, port) for port in (self.hubs_port, self.services_port))
        identity = make_identity(authority, folder / "identities" / "broker", Kind.SERVICES, "broker", hosts=hosts)
        config = write_broker_config(
            folder / "broker", authority, identity, hubs=hubs, services=services, user=getpass.getuser()
        )
        assert PROGRAM is not None, "mosquitto is missing: run make mosquitto"
        self.command = [PROGRAM, "-c", str(config)]
        self.environment = {**os.environ, "OPENSSL_CONF": "/dev/null"}  # what it allows is in its own configuration
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True, env=self.environment)
        is_running = threading.Event()
        self._reader = threading.Thread(target=self._read_log, args=(self._process, is_running))
        self._reader.start()
        assert is_running.wait(START_LIMIT_S), self.log
        assert self._process.poll() is None, self.log

    def reload(self) -> None:
        """Reload the configuration, and wait until that is done."""
        n = len(self.log)
        reload_broker(self.folder / "broker")
        deadline_s = time.monotonic() + START_LIMIT_S
        while not any("Reloading config" in line for line in self.log[n:]):
            assert time.monotonic() < deadline_s, self.log
            time.sleep(0.005)

    def kill(self) -> None:
        """End the broker as a crash does."""
        if self._process is None or self._reader is None:
            return
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._process = None

    def identity(self, kind: Kind, name: str, *, at_s: int | None = None) -> Path:
        path = self.folder / "identities" / f"{kind}-{name}"
        return path if path.exists() and at_s is None else make_identity(self.authority, path, kind, name, at_s=at_s)

    def hub(self, name: str) -> Endpoint:
        """The broker as a hub of this name reaches it."""
        return Endpoint(HOST, self.hubs_port, self.identity(Kind.HUBS, name), "DE")

    def service(self, name: str) -> Endpoint:
        return Endpoint(HOST, self.services_port, self.identity(Kind.SERVICES, name), "DE")

    def _read_log(self, process: "subprocess.Popen[str]", is_running: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line.rstrip())
            if line.rstrip().endswith("running"):
                is_running.set()
        is_running.set()


@contextmanager
def run_broker(folder: Path) -> Iterator[Broker]:
    """Run the broker of a new site."""
    broker = Broker(Authority.create(folder / "site", "Testklinik", "DE", "Bayern", now_s()), folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()

"""A site with a mosquitto of the tests' own: on free ports of this computer, with TLS, for hubs and for services."""

import contextlib
import getpass
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.site import Authority, Kind
from cloud.site.mosquitto import Listener, write_broker_config
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


@dataclass
class Broker:
    """A running mosquitto, and the site that it belongs to."""

    authority: Authority
    folder: Path
    hubs_port: int
    services_port: int
    log: list[str] = field(default_factory=list)

    def identity(self, kind: Kind, name: str, *, at_s: int | None = None) -> Path:
        path = self.folder / "identities" / f"{kind}-{name}"
        return path if path.exists() and at_s is None else make_identity(self.authority, path, kind, name, at_s=at_s)

    def hub(self, name: str) -> Endpoint:
        """The broker as a hub of this name reaches it."""
        return Endpoint(HOST, self.hubs_port, self.identity(Kind.HUBS, name), "DE")

    def service(self, name: str) -> Endpoint:
        return Endpoint(HOST, self.services_port, self.identity(Kind.SERVICES, name), "DE")


@contextmanager
def run_broker(folder: Path, authority: Authority) -> Iterator[Broker]:
    """Run mosquitto with the configuration of a site."""
    assert PROGRAM is not None, "mosquitto is missing: run make mosquitto"
    broker = Broker(authority, folder, free_port(), free_port())
    listeners = [Listener(HOST, port) for port in (broker.hubs_port, broker.services_port)]
    config = write_broker_config(
        folder / "broker",
        authority,
        make_identity(authority, folder / "identities" / "broker", Kind.SERVICES, "broker", hosts=(HOST,)),
        hubs=listeners[0],
        services=listeners[1],
        user=getpass.getuser(),
    )
    process = subprocess.Popen([PROGRAM, "-c", config], stderr=subprocess.PIPE, text=True)
    is_running = threading.Event()

    def read_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            broker.log.append(line.rstrip())
            if line.rstrip().endswith("running"):
                is_running.set()
        is_running.set()

    reader = threading.Thread(target=read_log)
    reader.start()
    try:
        assert is_running.wait(START_LIMIT_S)
        assert process.poll() is None, broker.log
        yield broker
    finally:
        process.terminate()
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()

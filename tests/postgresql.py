"""A PostgreSQL server of the tests' own: in a temporary folder, reached by a Unix socket, with a password."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pg8000.dbapi
import pytest
from sqlalchemy import URL, Engine, create_engine

from cloud.database_url import PostgresUrl
from tests.mosquitto import free_port

USER: Final = "pulsegate"
PORT: Final = 5432
"""Names the socket. Nothing listens on a network, unless the server is configured for TLS."""
START_LIMIT_S: Final = 60
MEMORY: Final = Path("/dev/shm")  # noqa: S108  a folder with a random name is made in it
MEMORY_NEEDED_BYTES: Final = 1 << 30
"""The databases and their logs stay far below. In memory a new database takes 30 ms, on some disks 250."""
# Without fsync, because a power cut is not tested here.
OPTIONS: Final = (
    *("listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off"),
    *("jit=off", "shared_buffers=8MB", "max_connections=40"),  # a connection starts a quarter sooner
)
DURABLE_OPTIONS: Final = ("listen_addresses=", "jit=off", "shared_buffers=256MB", "max_wal_size=4GB")
"""Of benchmarks: every commit is on the disk, as in operation."""


class Server:
    """A running server, and its databases."""

    def __init__(self, folder: Path, password: str, port: int) -> None:
        self._password, self.port = password, port
        self._socket = f"{folder}/.s.PGSQL.{port}"
        self._engines: dict[str, Engine] = {}
        self.folder, self.password_file, self.log_file = folder, folder / "pgpass", folder / "log"

    def url(self, database: str) -> PostgresUrl:
        return PostgresUrl(USER, str(self.folder), self.port, database)

    def create_if_missing(self, name: str) -> None:
        if name not in self._engines:
            self.create(name)

    def create(self, name: str, template: str = "template0") -> None:
        """Create a database, in place of the one of this name."""
        for used in {name, template} & self._engines.keys():
            self._engines.pop(used).dispose()
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        self.engine(name)

    def engine(self, name: str) -> Engine:
        """Return an engine of the test's own, beside those of the clinic."""
        if name not in self._engines:
            arguments = {"unix_sock": self._socket, "password": self._password, "ssl_context": False}
            url = URL.create("postgresql+pg8000", USER, database=name)
            self._engines[name] = create_engine(url, connect_args=arguments, pool_pre_ping=True)
        return self._engines[name]

    def end_connections(self) -> None:
        """End every connection, as a restart of the server does."""
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
        )

    def reload(self) -> None:
        """Let the server read its configuration and revocation lists again; new connections follow them at once."""
        self._execute("SELECT pg_reload_conf()")

    def checkpoint(self) -> None:
        """Write everything to the files."""
        self._execute("CHECKPOINT")

    def close(self) -> None:
        for engine in self._engines.values():
            engine.dispose()

    def _execute(self, statement: str) -> None:
        connection = self._connect()
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()

    def _connect(self) -> Any:
        return pg8000.dbapi.connect(
            USER, database="postgres", unix_sock=self._socket, password=self._password, ssl_context=False
        )

    def is_ready(self) -> bool:
        """Whether the server accepts connections."""
        try:
            self._connect().close()
        except pg8000.dbapi.Error:
            return False
        return True

    def wait_started(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not self.is_ready():
            assert process.poll() is None, "the PostgreSQL server ended at its start"
            assert time.monotonic() < deadline, "the PostgreSQL server does not start"
            time.sleep(0.05)


@contextmanager
def run_server(configure: Callable[[Path], Path] | None = None, *, is_durable: bool = False) -> Iterator[Server]:
    """Start a server and stop it at the end. Skips the test where PostgreSQL is not installed, and fails it under `CI=true`.

    `configure` writes files for TLS to a folder, and returns the path of a configuration file. The server then listens on a
    free port, too. With `is_durable` its files are on a disk, and it syncs each commit.
    """
    folder = Path(tempfile.mkdtemp(prefix="pulsegate-postgresql-", dir=None if is_durable else find_memory()))
    try:
        server, command = prepare_server(folder, DURABLE_OPTIONS if is_durable else OPTIONS, configure)
        with server.log_file.open("wb") as log:
            process = subprocess.Popen([*as_other_user(), *command], cwd=folder, stderr=log)
        try:
            server.wait_started(process)
            yield server
        finally:
            server.close()
            process.send_signal(signal.SIGINT)  # ends its connections and stops
            process.wait(START_LIMIT_S)
    finally:
        shutil.rmtree(folder)


def prepare_server(
    folder: Path, options: Sequence[str], configure: Callable[[Path], Path] | None = None
) -> tuple[Server, list[str]]:
    """Make the files of a server in an empty folder; returns it and the command that starts it, as `as_other_user`."""
    binaries, as_user = _find_binaries(), as_other_user()
    password = secrets.token_hex(16)
    server = Server(folder, password, free_port() if configure else PORT)
    server.password_file.write_text(f"*:{server.port}:*:{USER}:{password}\n")
    server.password_file.chmod(0o600)
    data, secret = folder / "data", folder / "password"
    secret.write_text(password)
    if as_user:
        for path in (folder, secret):
            shutil.chown(path, "postgres")
    initdb = [binaries / "initdb", "--no-sync", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}"]
    done = subprocess.run([*as_user, *initdb, "--encoding=UTF8", data], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    settings = [*options, f"unix_socket_directories={folder}", *([] if configure else ["log_min_messages=fatal"])]
    if configure:
        (folder / "site").mkdir()
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"include '{configure(folder / 'site')}'\n")
        for path in [folder / "site", *(folder / "site").rglob("*")] if as_user else []:
            shutil.chown(path, "postgres")
        settings += ["listen_addresses=127.0.0.1", f"port={server.port}"]
    return server, [str(binaries / "postgres"), "-D", str(data), *(part for setting in settings for part in ("-c", setting))]


def _find_binaries() -> Path:
    """Return the folder of the server's programs; Debian puts them outside the path."""
    found = [Path(name).parent for name in [shutil.which("initdb")] if name]
    found += sorted((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)
    if found:
        return found[0]
    _skip("no PostgreSQL server is installed: run `make postgresql`")
    raise AssertionError


def find_memory() -> Path | None:
    """Return the folder in memory if it has room, else None: the default folder for temporary files."""
    has_room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED_BYTES
    return MEMORY if has_room else None


def as_other_user() -> list[str]:
    """The words before a command that run it as another user: the server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        _skip("PostgreSQL does not run as root, and there is no user postgres")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


def _skip(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)

"""Creates the database server of a site: its files, and the role, password and databases of each service.

Commands reach it by its socket as PostgreSQL's own account, services by TLS with certificate and password. Only the roles of
services that show or open blocks may connect to the projections.
"""

import base64
import hashlib
import hmac
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from cloud.site.layout import (
    DATABASE,
    DATABASE_PORT,
    DATABASE_USER,
    ETC,
    LOOPBACK,
    PROGRAMS,
    PROJECTIONS,
    STORE,
    Service,
)
from cloud.site.postgresql import CONFIG_FILE

CONFIG_FOLDER: Final = ETC / "database"
BINARIES: Final = PROGRAMS / "postgresql"
"""A link to the programs of one major version: files of one cannot be used by another."""
_PASSWORD_BYTES: Final = 24
"""192 bits: no dictionary holds it."""
_SALT_BYTES: Final = 16
_ITERATIONS: Final = 4096
"""PostgreSQL's own number. A random password needs no more."""
_OWNERS: Final = {STORE: "blocks_owner", PROJECTIONS: "projections_owner"}
"""Each database belongs to a role that nobody logs in as; the services act as it, so that any of them may migrate tables."""


def create_cluster(as_user: Sequence[str]) -> bool:
    """Create the server's files if there are none; returns whether it did. `as_user`: words before a command.

    Raises:
        ClinicError: it failed.
    """
    if (DATABASE / "PG_VERSION").exists():
        return False
    options = ("--auth=peer", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", f"--username={DATABASE_USER}")
    run([*as_user, str(BINARIES / "initdb"), *options, "-D", str(DATABASE)], "create the database's files")
    with (DATABASE / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(make_cluster_settings())
    return True


def make_cluster_settings() -> str:
    """Return what is added to postgresql.conf. Others cannot enter the folder of the socket."""
    return (
        f"include '{CONFIG_FOLDER / CONFIG_FILE}'\nlisten_addresses = '{LOOPBACK}'\nport = {DATABASE_PORT}\n"
        f"unix_socket_directories = '{DATABASE}'\ncluster_name = 'pulsegate'\n"
    )


def make_password_line(service: Service, password: str) -> str:
    """Return the line of a password file for a service's role."""
    return f"{LOOPBACK}:{DATABASE_PORT}:*:{service.name}:{password}\n"


def make_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def read_password(path: Path) -> str:
    """Return the password in a file of `make_password_line`.

    Raises:
        ClinicError: it cannot be read, or holds none.
    """
    try:
        return path.read_text(encoding="ascii").rstrip("\n").split(":", 4)[4]
    except (OSError, ValueError, IndexError) as error:
        raise ClinicError(f"cannot read {path} ({error}): delete it, and run make site") from error


def make_roles_script(services: Iterable[Service]) -> str:
    """Return SQL that creates what is missing of owners, databases, roles and rights; passwords are set apart."""
    lines = [r"\set ON_ERROR_STOP on", "SET client_min_messages = warning;"]
    for database, owner in _OWNERS.items():
        lines += [
            _unless("pg_roles", "rolname", owner, f"CREATE ROLE {owner} NOLOGIN"),
            _unless("pg_database", "datname", database, f"CREATE DATABASE {database} OWNER {owner}"),
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;",
        ]
    for service in services:
        lines.append(_unless("pg_roles", "rolname", service.name, f"CREATE ROLE {service.name} LOGIN"))
        for database in service.databases:
            owner = _OWNERS[database]
            lines.append(f"GRANT {owner} TO {service.name};")
            lines.append(f"ALTER ROLE {service.name} IN DATABASE {database} SET role = '{owner}';")
    return "\n".join(lines) + "\n"


def make_password_script(service: Service, password: str) -> str:
    """Return SQL that sets a password. It holds the verifier only, so that no log of statements shows the password."""
    return f"ALTER ROLE {service.name} PASSWORD '{make_verifier(password, secrets.token_bytes(_SALT_BYTES))}';\n"


def make_verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores of an ASCII password (RFC 5802, 3; PostgreSQL 15, 53.8 pg_authid)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


@contextmanager
def running(as_user: Sequence[str]) -> Iterator[Callable[[str], str]]:
    """Yield a function that runs SQL as PostgreSQL's own account. A server that does not run is started for that time.

    Raises:
        ClinicError: the server does not start, or a statement fails.
    """
    psql = [*as_user, "psql", "-X", "-q", "-h", str(DATABASE), "-p", str(DATABASE_PORT), "-d", "postgres"]
    control = [*as_user, str(BINARIES / "pg_ctl"), "-D", str(DATABASE), "-w", "-s", "-l", "/dev/null"]
    is_running = subprocess.run([*psql, "-c", "SELECT 1"], capture_output=True, check=False, cwd="/").returncode == 0  # noqa: S603
    if not is_running:
        run([*control, "start"], "start the database")
    try:
        yield partial(run, psql, "set up the database")
    finally:
        if not is_running:
            run([*control, "stop"], "stop the database")


def run(command: Sequence[str], purpose: str, text: str | None = None) -> str:
    """Run a command of the system; returns its output.

    Raises:
        ClinicError: it failed, or is not there.
    """
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd="/").stdout  # noqa: S603
    except OSError as error:
        raise ClinicError(f"cannot {purpose}: {command[0]} is missing ({error.strerror}); run make site") from error
    except subprocess.CalledProcessError as error:
        raise ClinicError(f"cannot {purpose}: {error.stderr.strip() or f'exit status {error.returncode}'}") from error


def _unless(catalog: str, column: str, name: str, statement: str) -> str:
    return f"SELECT '{statement}' WHERE NOT EXISTS (SELECT FROM {catalog} WHERE {column} = '{name}')\\gexec"  # noqa: S608  our own names

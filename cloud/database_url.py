"""The address of a PostgreSQL database as libpq writes it, without a password: that comes from the environment or a file."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from cloud.errors import ClinicError
from config.endpoint import ALLOWED_PORT, Endpoint, is_loopback, parse_port

DEFAULT_PORT: Final = 5432
_FORM: Final = "postgresql://USER@HOST:PORT/DATABASE, or postgresql://USER@/DATABASE?host=/folder/of/the/socket"


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A database of a PostgreSQL server on this computer. `host` is a loopback address or the folder of the server's socket."""

    user: str
    host: str
    port: int
    database: str

    @classmethod
    def parse(cls, text: str) -> "PostgresUrl":
        """Parse a URL as libpq takes it.

        Raises:
            ClinicError: another form, a password, or a server on another computer.
        """
        try:
            parts = urlsplit(text)
            port, options = parts.port, parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise ClinicError(f"not the URL of a database: write {_FORM}") from error
        if parts.password is not None or "password" in options:
            raise ClinicError("the URL of a database must hold no password: set PGPASSFILE or PGPASSWORD instead")
        host = _parse_host(parts, options)
        database = unquote(parts.path.removeprefix("/"))
        if parts.scheme not in {"postgresql", "postgres"} or not parts.username or not database or parts.fragment:
            raise ClinicError(f"not the URL of a database: write {_FORM}")
        return cls(unquote(parts.username), host, _parse_port(port, options), database)

    def connect_args(self, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """Return the driver's arguments, with the password if there is one.

        No TLS: the connection never leaves this computer. Left to itself, the driver would load all certificates for each
        connection, ask for TLS and check nothing.

        Raises:
            ClinicError: other users may read the password file.
        """
        password = find_password(self, environment)
        if self.is_socket:
            return {"unix_sock": f"{self.host}/.s.PGSQL.{self.port}", "password": password, "ssl_context": False}
        return {"host": self.host, "port": self.port, "password": password, "ssl_context": False}

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_socket:
            return f"postgresql://{self.user}@/{self.database}?host={self.host}&port={self.port}"
        return f"postgresql://{self.user}@{Endpoint(self.host, self.port)}/{self.database}"


def _parse_host(parts: SplitResult, options: dict[str, list[str]]) -> str:
    if unknown := options.keys() - {"host", "port"}:
        raise ClinicError(f"unknown option {min(unknown)!r} in the URL of a database: write {_FORM}")
    host = options.get("host", [parts.hostname or ""])[-1]
    if host.startswith("/") or is_loopback(host):
        return host
    raise ClinicError(
        f"the database host {host!r} is no loopback address (127.0.0.1 or ::1) and no folder of a socket: give one of them; "
        "a server on another computer needs TLS, which this version lacks"
    )


def _parse_port(port: int | None, options: dict[str, list[str]]) -> int:
    given = options.get("port", [str(DEFAULT_PORT if port is None else port)])[-1]
    number = parse_port(given)
    if number is None:
        raise ClinicError(f"{given!r} is not a port of a database: give {ALLOWED_PORT}")
    return number


def find_password(url: PostgresUrl, environment: Mapping[str, str]) -> str | None:
    """Return the password as libpq finds it: from PGPASSWORD, else from the file PGPASSFILE or ~/.pgpass; None if none fits.

    Raises:
        ClinicError: other users may read the file.
    """
    if "PGPASSWORD" in environment:
        return environment["PGPASSWORD"]
    path = Path(environment.get("PGPASSFILE") or Path.home() / ".pgpass")
    try:
        mode, lines = path.stat().st_mode, path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    if stat.S_IMODE(mode) & 0o077:
        raise ClinicError(f"other users may read the password file {path}: set its mode to 600")
    place = ("localhost" if url.is_socket else url.host, str(url.port), url.database, url.user)
    for line in lines:
        *patterns, password = _split_line(line)
        if len(patterns) == len(place) and all(pattern in {"*", value} for pattern, value in zip(patterns, place, strict=True)):
            return password
    return None


def _split_line(line: str) -> list[str]:
    """Split at colons; a backslash makes the next character plain text."""
    if line.startswith("#"):
        return [""]
    fields = re.findall(r"((?:\\.|[^:\\])*)(?::|$)", line)[:5]
    return [re.sub(r"\\(.)", r"\1", part) for part in fields]

"""The address of a PostgreSQL database as libpq writes it, without a password: that comes from the environment or a file."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from cloud.errors import ClinicError
from config.endpoint import ALLOWED_PORT, Endpoint, EndpointError, parse_port
from config.tls import ClientContext, TlsSetupError, make_endpoint_context

DEFAULT_PORT: Final = 5432
_FORM: Final = (
    "postgresql://USER@HOST:PORT/DATABASE, or postgresql://USER@/DATABASE?host=/folder/of/the/socket; for a server on another"
    " computer add ?identity=/folder/of/the/certificate&region=DE"
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A database of a PostgreSQL server. `host` is the folder of the server's socket, or where it is reached.

    A server on another computer needs TLS: `identity` is the folder with the certificate (`config.tls`), `region` the country.
    """

    user: str
    host: str
    port: int
    database: str
    identity: Path | None = None
    region: str | None = None

    @classmethod
    def parse(cls, text: str) -> "PostgresUrl":
        """Parse a URL as libpq takes it.

        Raises:
            ClinicError: another form, a password, or a server on another computer without an identity and a region.
        """
        try:
            parts = urlsplit(text)
            port, options = parts.port, parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise ClinicError(f"not the URL of a database: write {_FORM}") from error
        if parts.password is not None or "password" in options:
            raise ClinicError("the URL of a database must hold no password: set PGPASSFILE or PGPASSWORD instead")
        if unknown := options.keys() - {"host", "port", "identity", "region"}:
            raise ClinicError(f"unknown option {min(unknown)!r} in the URL of a database: write {_FORM}")
        host = options.get("host", [parts.hostname or ""])[-1]
        identity, region = (options.get(name, [None])[-1] for name in ("identity", "region"))
        database = unquote(parts.path.removeprefix("/"))
        if parts.scheme not in {"postgresql", "postgres"} or not parts.username or not database or parts.fragment:
            raise ClinicError(f"not the URL of a database: write {_FORM}")
        url = cls(
            unquote(parts.username), host, _parse_port(port, options), database, Path(identity) if identity else None, region
        )
        url._check_place()
        return url

    def connect_args(self, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """Return the driver's arguments, with the password if there is one.

        Without an identity there is no TLS: the connection never leaves this computer. Left to itself, the driver would load
        all certificates for each connection, ask for TLS and check nothing.

        Raises:
            ClinicError: other users may read the password file, or TLS cannot be used.
        """
        password = find_password(self, environment)
        if self.is_socket:
            return {"unix_sock": f"{self.host}/.s.PGSQL.{self.port}", "password": password, "ssl_context": False}
        return {"host": self.host, "port": self.port, "password": password, "ssl_context": self.make_tls_context() or False}

    def make_tls_context(self) -> ClientContext | None:
        """Return a context with the present certificate; None for a connection without TLS.

        Raises:
            ClinicError: the files of the identity cannot be used.
        """
        if self.is_socket or self.identity is None:
            return None
        try:
            return make_endpoint_context(self._endpoint())
        except TlsSetupError as error:
            raise ClinicError(f"cannot connect to the database {self}: {error}") from error

    def _check_place(self) -> None:
        if self.is_socket:
            if self.identity is not None or self.region is not None:
                raise ClinicError("identity and region are not for the socket of a database: omit them")
            return
        try:
            self._endpoint()
        except EndpointError as error:
            raise ClinicError(f"in the URL of a database, {error}; or give the folder of a socket") from error

    def _endpoint(self) -> Endpoint:
        return Endpoint(self.host, self.port, self.identity, self.region)

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        if self.is_socket:
            return f"postgresql://{self.user}@/{self.database}?host={self.host}&port={self.port}"
        tls = f"?{urlencode({'identity': self.identity, 'region': self.region}, safe='/')}" if self.identity else ""
        return f"postgresql://{self.user}@{self._endpoint()}/{self.database}{tls}"


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

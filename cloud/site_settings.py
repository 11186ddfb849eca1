"""The settings of a site's services: one TOML file, checked completely before anything starts.

Each service reads only its own files, so each may run as a user of its own. `SAMPLE` shows every setting.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from cloud.database_url import PostgresUrl
from cloud.errors import ClinicError
from cloud.retention import DEFAULT_RETENTION_DAYS, MIN_RETENTION_DAYS
from config.endpoint import (
    ALLOWED_PORT,
    ALLOWED_TLS_HOST,
    Endpoint,
    EndpointError,
    ListedEndpoint,
    RegionError,
    is_host,
    parse_listed,
    parse_port,
)
from config.regions import ALLOWED_REGION

SAMPLE: Final = """\
# A site's services. Each of them reads this file: it holds no secret.
data = "/var/lib/pulsegate-clinic"   # folder of the clinic: registered hubs and patients' keys
public = "/var/lib/pulsegate-clinic/site/public"   # what the certification authority publishes

[databases]   # passwords: PGPASSFILE
store = "postgresql://pulsegate@/blocks?host=/run/postgresql"
projections = "postgresql://pulsegate@/projections?host=/run/postgresql"

[broker]      # the listener of the services
host = "broker.clinic.example"
port = 8884
region = "DE"

[ingest]
identity = "/etc/pulsegate/ingest"   # what site issue-service wrote
key = "/etc/pulsegate/ingest/acknowledgement.key"
audit_key = "/etc/pulsegate/ingest/audit.pub"      # public: what hubs say of the audit log is compared by it

[opener]
identity = "/etc/pulsegate/opener"
key = "/etc/pulsegate/opener/receipt.key"
audit_key = "/etc/pulsegate/opener/audit.key"
command_key = "/etc/pulsegate/opener/command.key"  # signs what is asked for from the page
retention_days = 3653                # ten years, section 630f(3) BGB; may be left out

[page]
identity = "/etc/pulsegate/page"
hosts = ["clinic.example"]           # names by which browsers reach the page
listen = "127.0.0.1"
port = 8600

# Servers beside these that the services may connect to, for mail, object-storage or error-reports. Everything else is refused.
# [[endpoint]]
# use = "mail"
# host = "mail.clinic.example"
# port = 465
# region = "DE"
"""
T = TypeVar("T")


class RegionRefusedError(ClinicError):
    """The region of an endpoint is not allowed, which the audit log in `store` must say."""

    def __init__(self, message: str, endpoint: str, store: PostgresUrl) -> None:
        super().__init__(message)
        self.endpoint, self.store = endpoint, store


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Ingest or opener: how it reaches the broker, and the file of its signing key.

    `audit_key` is the key that signs the audit log: the public one for ingest, the private one for the opener.
    """

    broker: Endpoint
    key: Path
    audit_key: Path


@dataclass(frozen=True, slots=True)
class OpenerSettings(WorkerSettings):
    """The opener: it also has the key that signs commands."""

    command_key: Path


@dataclass(frozen=True, slots=True)
class PageSettings:
    """The page: its certificate, the names by which it is reached, and where it listens."""

    identity: Path
    hosts: tuple[str, ...]
    listen: str
    port: int


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """All settings of a site's services."""

    data: Path
    public: Path
    store: PostgresUrl
    projections: PostgresUrl
    ingest: WorkerSettings
    opener: OpenerSettings
    page: PageSettings
    retention_days: int = DEFAULT_RETENTION_DAYS
    """How long blocks and what was opened are kept (`cloud.retention`)."""
    endpoints: tuple[ListedEndpoint, ...] = ()
    """Servers beside those of the site that its services may connect to."""


def load_site_settings(path: Path) -> SiteSettings:
    """Read the settings file. Relative paths are relative to its folder.

    Raises:
        ClinicError: it cannot be read, or a setting is missing, unknown or not allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClinicError(f"cannot read the settings {path} ({error.strerror}): give the path of an existing file") from error
    except ValueError as error:
        raise ClinicError(f"cannot read the settings {path}: not valid TOML ({error}); correct the file") from error
    return _Parser(path).parse(table)


class _Parser:
    """Checks the tables of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def parse(self, root: Mapping[str, Any]) -> SiteSettings:
        tables = {name: self._take(root, "", name, dict, f"a [{name}] table") for name in _KEYS if name}
        for name, table in {"": root, **tables}.items():
            if unknown := table.keys() - _KEYS[name]:
                known = ", ".join(sorted(_KEYS[name]))
                raise ClinicError(f"{self._path}: unknown setting {_dotted(name, min(unknown))}: use one of {known}")
        return SiteSettings(
            data=self._path_of(root, "", "data"),
            public=self._path_of(root, "", "public"),
            store=self._url(tables["databases"], "store"),
            projections=self._url(tables["databases"], "projections"),
            ingest=WorkerSettings(self._broker(tables, "ingest"), *self._keys_of(tables["ingest"], "ingest", *_WORKER_KEYS)),
            opener=OpenerSettings(
                self._broker(tables, "opener"), *self._keys_of(tables["opener"], "opener", *_WORKER_KEYS, "command_key")
            ),
            page=self._page(tables["page"]),
            retention_days=self._retention_days(tables["opener"]),
            endpoints=self._check_endpoint(tables, "", lambda: parse_listed(root.get("endpoint", []))),
        )

    def _broker(self, tables: Mapping[str, Mapping[str, Any]], name: str) -> Endpoint:
        broker, identity = tables["broker"], self._path_of(tables[name], name, "identity")
        host = self._take(broker, "broker", "host", str, ALLOWED_TLS_HOST)
        port = self._take(broker, "broker", "port", int, ALLOWED_PORT)
        region = self._take(broker, "broker", "region", str, ALLOWED_REGION)
        return self._check_endpoint(tables, "broker.", lambda: Endpoint(host, port, identity, region))

    def _keys_of(self, table: Mapping[str, Any], name: str, *keys: str) -> Iterator[Path]:
        return (self._path_of(table, name, key) for key in keys)

    def _check_endpoint(self, tables: Mapping[str, Mapping[str, Any]], prefix: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except RegionError as error:
            store = self._url(tables["databases"], "store")
            raise RegionRefusedError(f"{self._path}: {prefix}{error}", error.endpoint, store) from error
        except EndpointError as error:
            raise ClinicError(f"{self._path}: {prefix}{error}") from error

    def _page(self, table: Mapping[str, Any]) -> PageSettings:
        allowed = "a list of the names by which browsers reach the page"
        hosts = self._take(table, "page", "hosts", list, allowed)
        if not hosts or not all(isinstance(host, str) and is_host(host) for host in hosts):
            raise self._error("page", "hosts", hosts, allowed)
        listen = self._take(table, "page", "listen", str, "an IP address of this machine")
        port = self._take(table, "page", "port", int, ALLOWED_PORT)
        if parse_port(str(port)) is None:
            raise self._error("page", "port", port, ALLOWED_PORT)
        return PageSettings(self._path_of(table, "page", "identity"), tuple(hosts), listen, port)

    def _retention_days(self, table: Mapping[str, Any]) -> int:
        days = table.get("retention_days", DEFAULT_RETENTION_DAYS)
        if type(days) is not int or days < MIN_RETENTION_DAYS:
            raise self._error("opener", "retention_days", days, f"a number of days, {MIN_RETENTION_DAYS} or more")
        return days

    def _path_of(self, table: Mapping[str, Any], name: str, key: str) -> Path:
        return self._path.parent / str(self._take(table, name, key, str, "a path"))

    def _url(self, table: Mapping[str, Any], key: str) -> PostgresUrl:
        try:
            return PostgresUrl.parse(self._take(table, "databases", key, str, "the URL of a PostgreSQL database"))
        except ClinicError as error:
            raise ClinicError(f"{self._path}: databases.{key}: {error}") from error

    def _take(self, table: Mapping[str, Any], name: str, key: str, type_: type, allowed: str) -> Any:
        value = table.get(key)
        if type(value) is not type_:
            raise self._error(name, key, value, allowed)
        return value

    def _error(self, name: str, key: str, value: object, allowed: str) -> ClinicError:
        problem = "is missing" if value is None else f"= {value!r} is not allowed"
        return ClinicError(f"{self._path}: {_dotted(name, key)} {problem}: set it to {allowed}")


_WORKER_KEYS: Final = ("key", "audit_key")
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"data", "public", "databases", "broker", "ingest", "opener", "page", "endpoint"}),
    "databases": frozenset({"store", "projections"}),
    "broker": frozenset({"host", "port", "region"}),
    "ingest": frozenset({"identity", "key", "audit_key"}),
    "opener": frozenset({"identity", "key", "audit_key", "command_key", "retention_days"}),
    "page": frozenset({"identity", "hosts", "listen", "port"}),
}
"""The settings of each table; "" is the file itself."""


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key

"""Where things are on the machine of a site, who owns them, and on which ports they are reached.

    public 443 ─▶ proxy ─▶ 8600 page          public 8443 ─▶ proxy ─▶ 8601 enrolment
    public 8883 ─▶ proxy ─▶ 8602 broker, for hubs           8603 broker, for services    8604 database

Everything but the proxy listens on 127.0.0.1. The proxy passes TLS through. The files in `deploy/systemd` name the same paths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.site.mosquitto import INGEST, OPENER, PAGE
from cloud.site.mosquitto import PID_FILE as BROKER_PID_FILE

ETC: Final = Path("/etc/pulsegate")
PROGRAMS: Final = Path("/opt/pulsegate")
"""The virtual environment of the services. Only root may change it."""
DATA: Final = Path("/var/lib/pulsegate")
BROKER: Final = Path("/var/lib/pulsegate-broker")
DATABASE: Final = Path("/var/lib/pulsegate-database")
LOGS: Final = Path("/var/log/pulsegate")
"""Used by the process supervisor only: systemd has its journal."""
CLINIC_ENV: Final = ETC / "clinic.env"
SITE_FILE: Final = "site.toml"
PASSWORD_FILE: Final = "pgpass"  # noqa: S105  the name of the file
BROKER_PID: Final = BROKER / BROKER_PID_FILE
DATABASE_PID: Final = DATABASE / "postmaster.pid"

LOOPBACK: Final = "127.0.0.1"
PAGE_PORT: Final = 8600
ENROLMENT_PORT: Final = 8601
HUBS_PORT: Final = 8602
SERVICES_PORT: Final = 8603
DATABASE_PORT: Final = 8604
"""Not PostgreSQL's 5432: the distribution's own server may use that."""
PUBLIC_PAGE_PORT: Final = 443
PUBLIC_ENROLMENT_PORT: Final = 8443
PUBLIC_HUBS_PORT: Final = 8883
"""The registered port of MQTT by TLS."""
PUBLIC_PORTS: Final[Mapping[int, int]] = {
    PUBLIC_PAGE_PORT: PAGE_PORT,
    PUBLIC_ENROLMENT_PORT: ENROLMENT_PORT,
    PUBLIC_HUBS_PORT: HUBS_PORT,
}
"""The proxy's ports, and where it passes their connections to."""

CLINIC_USER: Final = "pulsegate"
"""Enrolment, opener and the operator's commands: they share the patients' keys."""
INGEST_USER: Final = "pulsegate-ingest"
PAGE_USER: Final = "pulsegate-page"
BROKER_USER: Final = "mosquitto"
DATABASE_USER: Final = "postgres"
PROXY_USER: Final = "haproxy"
OWN_USERS: Final = (CLINIC_USER, INGEST_USER, PAGE_USER)
"""The others come with the distribution's packages."""
ALL_USERS: Final = (*OWN_USERS, BROKER_USER, DATABASE_USER, PROXY_USER)

CLINIC: Final = "clinic"
DATABASE_NAME: Final = "database"
BROKER_NAME: Final = "broker"


@dataclass(frozen=True, slots=True)
class Service:
    """A certificate of the site: the account that has its key, and whether hubs reach the service by the site's host name.

    The folder `/etc/pulsegate/NAME` holds it. `databases`: those that the service may use, by its name as role.
    """

    name: str
    user: str
    databases: tuple[str, ...] = ()
    is_public: bool = False

    @property
    def folder(self) -> Path:
        return ETC / self.name


STORE: Final = "blocks"
PROJECTIONS: Final = "projections"
SERVICES: Final = (
    Service(INGEST, INGEST_USER, (STORE,)),
    Service(OPENER, CLINIC_USER, (STORE, PROJECTIONS)),
    Service(PAGE, PAGE_USER, (STORE, PROJECTIONS), is_public=True),
    Service(CLINIC, CLINIC_USER, (STORE, PROJECTIONS)),
    Service(BROKER_NAME, BROKER_USER, is_public=True),
    Service(DATABASE_NAME, DATABASE_USER),
)
"""Only what opens blocks or shows them reads the projections. The enrolment service keeps certificates of its own."""

"""A site's audit log and a hub's, at clocks of the tests' own."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from cloud.audit_actors import ORIGIN, service
from cloud.audit_log import AuditLog
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from cloud.store.audit import read_log, read_rows, read_state
from sync.audit import (
    Action,
    AuditEvent,
    AuditRow,
    Category,
    End,
    Origin,
    Position,
    append_events,
    hash_row,
    log_start,
    object_id,
    read_row,
)
from sync.audit_check import LogReport, check_log
from sync.audit_heads import HubAudit, SignedHead, certify_audit_key, sign_head
from sync.signing import SigningKey
from tests.databases import Databases

DAY_US = 86_400_000_000
START_US = 1_790_000_000_000_000
HUB = Origin(End.HUB, "hub-1")


@dataclass
class Site:
    """A site's store and log at a clock of the test's own."""

    databases: Databases
    store: Store
    signing: SigningKeys
    at_us: int = START_US

    @property
    def log(self) -> AuditLog:
        return AuditLog(self.store, lambda: self.at_us)

    def append(self, *numbers: int, subject: str | None = None) -> None:
        for number in numbers:
            self.log.append(event(number, subject))

    def sign(self) -> None:
        self.log.sign(self.signing.audit)

    def rows(self) -> list[AuditRow]:
        with self.store.snapshot() as connection:
            return [read_row(*row) for row in read_rows(connection)]

    def check(self) -> LogReport:
        with self.store.snapshot() as connection:
            return check_log(read_log(connection, ORIGIN), self.signing.audit.public)

    def signed(self) -> SignedHead:
        with self.store.snapshot() as connection:
            signed = read_state(connection, ORIGIN).signed
        assert signed is not None
        return signed

    def execute(self, statement: str, **values: Any) -> None:
        with self.store.transaction() as connection:
            connection.execute(text(statement), values)


def event(number: int = 0, subject: str | None = None) -> AuditEvent:
    return AuditEvent(service("test"), Action.READ, Category.VITALS, subject, (object_id("number", number),))


@dataclass
class Hub:
    """A hub's own log, and what its status messages say of it."""

    device: SigningKey
    key: SigningKey
    rows: list[bytes]
    seen: SignedHead | None = None
    is_forked: bool = False

    def append(self, n: int = 1) -> None:
        place = Position(len(self.rows), hash_row(self.rows[-1])) if self.rows else log_start(HUB)
        self.rows += [
            encoded for _, encoded in append_events(HUB, place, [event(len(self.rows) + i) for i in range(n)], START_US)
        ]

    def audit(self) -> HubAudit:
        head = sign_head(self.key, HUB, Position(len(self.rows), hash_row(self.rows[-1])))
        certificate = certify_audit_key(self.device, HUB.name, self.key.public)
        return HubAudit(head, self.key.public.to_bytes(), certificate, self.seen, self.is_forked)

    def show(self, site: Site) -> None:
        """Let the site receive a status message of this hub."""
        site.log.note_hub(site.signing.audit.public, HUB.name, self.device.public, self.audit())

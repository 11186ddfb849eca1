"""Appends to the audit log of a store and prints the number of each event when it is durable. Run by test_audit_log.py.

Arguments: the store (a file, or a URL of PostgreSQL), a name of this process, the number of events (0: until killed).
"""

import sys
from itertools import count
from pathlib import Path

from cloud.audit_log import AuditLog
from cloud.clock import now_us
from cloud.database_url import PostgresUrl
from cloud.store import Store
from sync.audit import Actor, AuditEvent, object_id

place, name, n_events = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = Store.open(PostgresUrl.parse(place) if place.startswith("postgresql:") else Path(place))
log = AuditLog(store, now_us)
for number in count(1):
    log.append(AuditEvent(Actor(name, "service", "main"), "start", "service", None, (object_id("number", number),)))
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
    if number == n_events:
        break

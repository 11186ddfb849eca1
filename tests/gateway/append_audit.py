"""Appends to a hub's audit log. Run by test_hub_audit_log.py, with a folder, a name and what to do.

`forever`: prints the number of each event when it is durable. `fill`: takes the whole disk, then appends 20 events; prints how
many were taken, dies by kill -9. `reopen`: appends one more and prints the result of the check.
"""

import contextlib
import os
import signal
import sys
from itertools import count
from pathlib import Path

from gateway.audit_log import AuditLog
from sync.audit import Actor, AuditEvent, object_id
from sync.errors import TransientError

folder, name, work = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
log = AuditLog(folder, "hub-1", "main", lambda: 1_790_000_000_000_000)


def append(number: int) -> None:
    log.append(AuditEvent(Actor(name, "service", "main"), "start", "service", None, (object_id("number", number),)))


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def fill_disk() -> None:
    for size in (4096, 512, 1):
        with contextlib.suppress(OSError), (folder / "other").open("ab", buffering=0) as other:
            while other.write(b"x" * size):
                pass


if work == "forever":
    for number in count(1):
        append(number)
        say(number)
elif work == "fill":
    append(0)
    fill_disk()
    taken = 0
    for number in range(1, 21):
        with contextlib.suppress(TransientError):
            append(number)
            taken += 1
        fill_disk()
    say(taken)
    os.kill(os.getpid(), signal.SIGKILL)
else:
    append(99)
    report = log.check()
    say(report.last, len(report.findings))

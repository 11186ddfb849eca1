"""Fills a small disk with an outbox and another file, works on it, and dies by kill -9; then opens the outbox again.

Run by test_full_disk.py, with a folder on the small disk. Prints what it saw as JSON.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from sync.errors import DiskFullError, SyncError
from sync.outbox import Outbox
from sync.wire import Lane
from tests.sync.outboxes import ack, all_pending, held, open_at, outcome


def open_outbox(folder: Path) -> Outbox:
    return open_at(folder / "buffer.db")


def fill(folder: Path) -> None:
    """Take the whole disk: smaller and smaller blocks, then a log."""
    outbox = open_outbox(folder)
    size = 20_000
    while size >= 100:
        try:
            outbox.put("wave", os.urandom(size))
        except DiskFullError:
            size //= 2
    write_log(folder)
    alerts = put_until_full(outbox, "alert", 400)
    write_log(folder)
    before = put_until_full(outbox, "wave", 1)
    released = outbox.apply_ack(ack(held=held(*all_pending(outbox, ["wave"])[:20]))).released
    write_log(folder)
    after = put_until_full(outbox, "wave", 5)
    pending = sum(outbox.statistics().pending.values())
    report(alerts=alerts, waves=[before, after], released=released, pending=pending)
    os.kill(os.getpid(), signal.SIGKILL)


def report(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def write_log(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "log").open("ab", buffering=0) as log:
        while log.write(b"x" * 512):
            pass
    with contextlib.suppress(OSError), (folder / "log").open("ab", buffering=0) as log:
        while log.write(b"x"):
            pass


def put_until_full(outbox: Outbox, lane: Lane, limit: int) -> int:
    for count in range(limit):
        try:
            outbox.put(lane, os.urandom(4000))
        except SyncError:
            return count
    return limit


def reopen(folder: Path) -> None:
    outbox = open_outbox(folder)
    pending = sum(outbox.statistics().pending.values())
    for block in all_pending(outbox):  # one by one, as an uplink on a slow link
        outbox.apply_ack(ack(refused=(outcome(block, "no consent"),)))
    report(pending=pending, left=sum(outbox.statistics().pending.values()))
    outbox.close()
    write_log(folder)  # takes the room of the files that a clean stop removed
    open_outbox(folder).close()


if __name__ == "__main__":
    {"fill": fill, "reopen": reopen}[sys.argv[1]](Path(sys.argv[2]))

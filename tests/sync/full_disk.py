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
from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair
from sync.wire import Lane, Mark

CLINIC = ClinicKeyPair.generate().public


def open_outbox(folder: Path) -> Outbox:
    clock = lambda: 1_790_000_000  # noqa: E731
    return Outbox.open(folder / "buffer.db", hub="hub-1", subject="s", hub_key=HubKey(bytes(32)), clinic=CLINIC, clock=clock)


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
    before = put_until_full(outbox, "wave", 1)
    deleted = outbox.acknowledge([Mark("wave", outbox.epoch, 20)], [])
    write_log(folder)
    after = put_until_full(outbox, "wave", 5)
    pending = sum(outbox.statistics().pending.values())
    report(alerts=alerts, waves=[before, after], deleted=deleted, pending=pending)
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
    for lane in ("alert", "wave"):
        for block in outbox.pending(lane, (0, 0), 2**40):  # one by one, as an uplink on a slow link
            outbox.acknowledge([Mark(lane, block.id.epoch, block.id.seq)], [])
    report(pending=pending, left=sum(outbox.statistics().pending.values()))
    outbox.close()
    write_log(folder)  # takes the room of the files that a clean stop removed
    open_outbox(folder).close()


if __name__ == "__main__":
    {"fill": fill, "reopen": reopen}[sys.argv[1]](Path(sys.argv[2]))

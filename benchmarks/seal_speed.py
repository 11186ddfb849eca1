"""How fast the buffer seals and stores blocks, beside plain SQLite with rows of the same size, in one run.

Run `python -m benchmarks.seal_speed`. Both sides use the same settings of SQLite and commit after every 100 rows. Rounds of the
two alternate; the ratio is the median over the pairs. CPU time is beside wall time, because other work on the machine and its
disk changes the latter.
"""

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.outbox.database import PAGE_BYTES, OutboxDatabase
from sync.outbox.reserve import Reserve
from sync.outbox.schema import set_pragmas
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SigningKey, Use
from sync.wire import Lane

ROWS: Final = 100
"""Rows of one transaction."""
TRANSACTIONS: Final = 10
ROUNDS: Final = 15
CLOCKS: Final = {"wall time": time.perf_counter, "CPU time": time.process_time}
PLAINTEXT_BYTES: Final = (300, 1000, 4000)


def main() -> None:
    for size in PLAINTEXT_BYTES:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), size)


def compare(folder: Path, size: int) -> None:
    outbox = open_outbox(folder / "outbox.db")
    outbox.put("wave", bytes(size))
    sealed_bytes = len(outbox.pending("wave", (0, 0), 1)[0].sealed)
    plain = open_plain(folder / "plain.db")
    blocks: list[tuple[Lane, bytes]] = [("wave", os.urandom(size)) for _ in range(ROWS)]
    rows = [os.urandom(sealed_bytes) for _ in range(ROWS)]
    seq = iter(range(10**9))

    def insert() -> None:
        plain.execute("BEGIN")
        insert_row = "INSERT INTO t (lane, epoch, seq, data) VALUES (?, ?, ?, ?)"
        plain.executemany(insert_row, [("wave", outbox.epoch, next(seq), data) for data in rows])
        plain.execute("COMMIT")

    rounds = [(measure(insert), measure(lambda: outbox.put_many(blocks))) for _ in range(ROUNDS)]
    for clock in CLOCKS:
        plain_us, outbox_us = ([side[clock] for side in sides] for sides in zip(*rounds, strict=True))
        ratio = statistics.median(one / other for one, other in zip(plain_us, outbox_us, strict=True))
        print(
            f"plaintext of {size} bytes, {clock}: plain SQLite {statistics.median(plain_us):.1f} µs a row,"
            f" outbox {statistics.median(outbox_us):.1f} µs a row, ratio of rates {ratio:.2f}"
        )
    outbox.close()
    plain.close()


def measure(transaction: Callable[[], object]) -> dict[str, float]:
    """µs a row, by each clock."""
    begin = {name: clock() for name, clock in CLOCKS.items()}
    for _ in range(TRANSACTIONS):
        transaction()
    return {name: (clock() - begin[name]) / (TRANSACTIONS * ROWS) * 1e6 for name, clock in CLOCKS.items()}


def open_outbox(path: Path) -> Outbox:
    recipients = {"subject-1": RecipientKeyPair.generate().public}
    registration = Registration(
        "hub-1",
        "site-1",
        SigningKey.generate(Use.ACKNOWLEDGEMENT).public,
        SigningKey.generate(Use.RECEIPT).public,
        24,
        0,
        recipients,
    )
    keys = HubKeys(HubKey(bytes(32)), SigningKey.generate(Use.DEVICE))
    return Outbox.open(
        path, hub="hub-1", subject="subject-1", keys=keys, registration=registration, clock=lambda: int(time.time())
    )


def open_plain(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    set_pragmas(OutboxDatabase(connection, path, Reserve(path)))
    connection.execute("CREATE TABLE t (lane TEXT, epoch INTEGER, seq INTEGER, data BLOB)")
    return connection


if __name__ == "__main__":
    main()

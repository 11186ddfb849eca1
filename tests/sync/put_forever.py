"""Opens an outbox, puts blocks or acknowledges them until killed, and prints what returned. Run by test_kill.py."""

import sys
import time
from pathlib import Path

from sync.outbox import Outbox
from sync.wire import Lane
from tests.sync.outboxes import ack, all_pending, held, open_at


def main() -> None:
    path = Path(sys.argv[1]) / "outbox.db"
    if sys.argv[2] == "open":
        write("begin")
    outbox = open_at(path, clock=lambda: int(time.time()))
    {"put": put_forever, "acknowledge": acknowledge_forever, "open": report_opening}[sys.argv[2]](outbox)


def put_forever(outbox: Outbox) -> None:
    number = int(outbox.load_state("number") or b"0")
    while True:
        number += 1
        blocks: list[tuple[Lane, bytes]] = [("vital", b"%d" % number), ("wave", b"%d" % number)]
        for lane, epoch, seq in outbox.put_many(blocks, {"number": b"%d" % number}):
            write(f"{lane} {epoch} {seq} {number}")


def acknowledge_forever(outbox: Outbox) -> None:
    while True:
        for _ in range(20):
            write("{} {} {} 0".format(*outbox.put("wave", b"a")))
        outbox.apply_ack(ack(held=held(*all_pending(outbox))))


def report_opening(outbox: Outbox) -> None:
    write(f"wave {outbox.epoch} 1 0")


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Puts blocks into an outbox until killed, and prints the id of each block after `put` returned. Run by test_kill.py."""

import sys
import time
from pathlib import Path

from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicPublicKey


def main() -> None:
    folder = Path(sys.argv[1])
    outbox = Outbox.open(
        folder / "outbox.db",
        hub="hub-1",
        subject="subject-1",
        hub_key=HubKey.load_or_create(folder / "hub.key"),
        clinic=ClinicPublicKey.load(folder / "clinic.pub"),
        clock=lambda: int(time.time()),
    )
    number = int(outbox.load_state("number") or b"0")
    while True:
        number += 1
        blocks = [("vital", b"%d" % number), ("wave", b"%d" % number)]
        ids = outbox.put_many(blocks, {"number": b"%d" % number})  # type: ignore[arg-type]
        for lane, epoch, seq in ids:
            sys.stdout.write(f"{lane} {epoch} {seq} {number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

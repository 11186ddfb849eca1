"""`pulsegate` with a wall clock that another process sets: `python -m benchmarks.stepped_agent OFFSET_FILE run …`.

The file holds the offset in microseconds (8 bytes, little-endian, signed). Only the wall clock follows it, as when a person
or NTP sets the clock of a hub; the monotonic clock does not.
"""

import mmap
import sys
from pathlib import Path

import gateway.cli
import gateway.clock


def main() -> int:
    with Path(sys.argv[1]).open("rb") as file:
        offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)

    class SteppedClock(gateway.clock.SystemClock):
        def wall_us(self) -> int:
            return super().wall_us() + int.from_bytes(offset[:8], "little", signed=True)

    vars(gateway.clock)["SystemClock"] = SteppedClock
    return gateway.cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

"""A second network on this machine, for some hubs, with a link to the site that the kernel itself slows, loses on or cuts.

It needs a network namespace of this process's own (`unshare --net`). The link is a veth pair; tbf slows it, and nftables drops
packets.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SITE_ADDRESS: Final = "10.91.0.1"
_FAR_ADDRESS: Final = "10.91.0.2"
_SITE_END: Final = "chaos0"
_FAR_END: Final = "chaos1"
_TABLE: Final = "inet chaos"
_QUEUE_BYTES: Final = 16_000
"""Few packets wait; a sender that is faster loses some, as on a real slow link."""
_START_LIMIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class FarNetwork:
    """The network of some hubs. `prefix` are the words before a command that run it there."""

    prefix: tuple[str, ...]

    def slow(self, kbit_per_s: int) -> None:
        """Let both directions carry no more than this."""
        tbf = f"root tbf rate {kbit_per_s}kbit burst 3000 limit {_QUEUE_BYTES}"
        _run(f"tc qdisc replace dev {_SITE_END} {tbf}")
        _run(f"tc qdisc replace dev {_FAR_END} {tbf}", self.prefix)

    def lose(self, percent: int) -> None:
        """Drop so many packets of each direction at random."""
        self._drop(f"numgen random mod 100 < {percent}")

    def swallow(self) -> None:
        """Drop everything; neither end is told."""
        self._drop("")

    def _drop(self, which: str) -> None:
        for end, prefix in ((_SITE_END, ()), (_FAR_END, self.prefix)):
            _run(f"nft add rule {_TABLE} input iifname {end} {which} drop", prefix)

    def repair(self) -> None:
        """Carry everything again."""
        for end, prefix in ((_SITE_END, ()), (_FAR_END, self.prefix)):
            _run(f"nft flush chain {_TABLE} input", prefix)
            _run(f"tc qdisc replace dev {end} root pfifo", prefix)


def _run(command: str, prefix: tuple[str, ...] = ()) -> None:
    subprocess.run([*prefix, *command.split()], check=True)


@contextmanager
def far_network() -> Iterator[FarNetwork]:
    """Make the second network; this process must be in a network namespace of its own."""
    _run("ip link set lo up")
    words = "setpriv --pdeathsig KILL -- unshare --net -- sleep infinity"
    holder = subprocess.Popen(words.split())
    try:
        _wait_separate(holder.pid)
        far = FarNetwork(("nsenter", "--net", "--target", str(holder.pid), "--"))
        _run(f"ip link add {_SITE_END} type veth peer name {_FAR_END} netns {holder.pid}")
        _run(f"ip address add {SITE_ADDRESS}/24 dev {_SITE_END}")
        _run(f"ip link set {_SITE_END} up")
        _run(f"ip address add {_FAR_ADDRESS}/24 dev {_FAR_END}", far.prefix)
        for end in (_FAR_END, "lo"):
            _run(f"ip link set {end} up", far.prefix)
        for prefix in ((), far.prefix):
            _run(f"nft add table {_TABLE}", prefix)
            _run(f"nft add chain {_TABLE} input {{ type filter hook input priority 0 ; }}", prefix)
        yield far
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()


def _wait_separate(pid: int) -> None:
    deadline_s = time.monotonic() + _START_LIMIT_S
    while Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
        assert time.monotonic() < deadline_s, "no second network namespace can be made"
        time.sleep(0.01)

"""A hub's outbox and uplink, a clinic in memory and a link between them, on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.virtual_time import run
from sync.audit_heads import SiteAudit
from sync.keys import HubKey, HubKeys
from sync.outbox import Outbox
from sync.signing import SigningKey, Use
from sync.uplink import Uplink, UplinkCallbacks
from tests.fake_clinic import SUBJECT, FakeClinic
from tests.link import Link

HUB = "hub-1"
START_S = 1_790_000_000
Scenario = Callable[[Link, Uplink], Awaitable[None]]


async def call_inline(function: Callable[..., Any], /, *values: Any) -> Any:
    return function(*values)


async def wait_until(condition: Callable[[], bool], limit_s: float = 600.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass
class UplinkTestbed:
    """`now_s` is the hub's wall clock; it stands still unless a test changes it. `live_s` and `audit_heads` are the
    calls of `on_live` and `on_audit`.
    """

    outbox: Outbox
    clinic: FakeClinic
    keys: HubKeys
    now_s: list[int]
    link: Link = field(default_factory=Link)
    live_s: list[float] = field(default_factory=list)
    audit_heads: list[SiteAudit] = field(default_factory=list)

    def is_drained(self) -> bool:
        return not any(self.outbox.statistics().pending.values())

    def run(self, scenario: Scenario, *, call: Any = call_inline, has_clinic: bool = True) -> Uplink:
        """Run hub and clinic while `scenario` runs. The link is not connected at its start."""
        self.link.is_up = False
        for end in (self.link.hub, self.link.clinic):
            end.events = asyncio.Queue()  # a queue belongs to one event loop

        async def main() -> Uplink:
            registration, on_live = self.clinic.registration, self.live_s.append
            uplink = Uplink(
                self.outbox,
                self.link.hub,
                hub=HUB,
                keys=self.keys,
                registration=registration,
                call=call,
                callbacks=UplinkCallbacks(on_live=on_live, on_audit=self.audit_heads.append),
            )
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(uplink.run())]
                if has_clinic:
                    running.append(tasks.create_task(self.clinic.run(self.link.clinic)))
                await scenario(self.link, uplink)
                for task in running:
                    task.cancel()
            return uplink

        return run(main())

    def drain(self) -> Uplink:
        """Run hub and clinic until everything is acknowledged."""

        async def scenario(link: Link, _uplink: Uplink) -> None:
            link.connect()
            await wait_until(self.is_drained)

        return self.run(scenario)


@contextmanager
def open_testbed(folder: Path) -> Iterator[UplinkTestbed]:
    keys = HubKeys(HubKey(bytes(32)), SigningKey.generate(Use.DEVICE))
    clinic, now_s = FakeClinic(HUB, keys.device.public), [START_S]
    outbox = Outbox.open(
        folder / "outbox.db",
        hub=HUB,
        subject=SUBJECT,
        keys=keys,
        registration=clinic.registration,
        clock=lambda: now_s[0],
    )
    with closing(outbox):
        yield UplinkTestbed(outbox, clinic, keys, now_s)

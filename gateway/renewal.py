"""Keeps the hub's certificate new while the agent runs: `pulsegate renew` as a short process of its own.

The HTTP client of a renewal would stay in the agent's memory for the sake of one minute a week.
"""

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NoReturn

from config.terminal import escape_controls
from gateway.enrolment.identity import IdentityError, SiteRecord
from gateway.enrolment.site_clock import SiteClock, SiteTimeError
from sync.keys import HubKey

log = logging.getLogger(__name__)

RENEW_AFTER: Final = 2 / 3
"""The part of a certificate's life after which it is renewed. Of seven days, two are left for a site that is down."""
JITTER: Final = 0.05
"""Up to this part of the life is added at random, so that the hubs that enrolled together do not renew together."""
CHECK_INTERVAL_S: Final = 600.0
"""How often the time is compared. The clock may be set meanwhile, and another process may renew."""
BACKOFF_S: Final = (60.0, 3600.0)
"""Shortest and longest pause after a failure. It doubles, and is shortened at random by up to a half."""
TIMEOUT_S: Final = 300.0
"""Time for one renewal: four connections over a slow 2G link, each within its own 30 s."""
Renew = Callable[[], Awaitable[bool]]
"""Renews, and returns whether that succeeded."""


async def keep_renewed(folder: Path, clock: SiteClock, renew: Renew) -> NoReturn:
    """Renew the identity in `folder` at two thirds of its life, and at once where it has expired or the time is not known."""
    jitter = random.uniform(0.0, JITTER)  # noqa: S311 - spreads load, not a secret
    pause_s = BACKOFF_S[0]
    while True:
        if not is_due(folder, clock, jitter):
            pause_s = BACKOFF_S[0]
            await asyncio.sleep(CHECK_INTERVAL_S)
        elif await renew():
            log.info("the certificate of this hub was renewed")
            pause_s = BACKOFF_S[0]
        else:
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - likewise
            pause_s = min(2 * pause_s, BACKOFF_S[1])


def is_due(folder: Path, clock: SiteClock, jitter: float) -> bool:
    """Whether a certificate has to be renewed now. An identity that cannot be read is not: enrolling replaces it."""
    try:
        site = SiteRecord.load(folder)
        now_s = clock.now_s()
    except (IdentityError, SiteTimeError) as error:
        log.error("cannot renew the certificate of this hub: %s", error)
        return False
    return now_s is None or now_s >= site.from_s + (RENEW_AFTER + jitter) * (site.until_s - site.from_s)


async def renew_by_process(config: Path, hub_key: HubKey | None = None) -> bool:
    """Run `pulsegate renew`; return whether it succeeded. A failure is logged.

    `hub_key` opens the key files, where they are sealed. The process gets it on its standard input.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "renew", "--config", str(config)),
        *(() if hub_key is None else ("--hub-key-stdin",)),
        stdin=asyncio.subprocess.DEVNULL if hub_key is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, said = await process.communicate(None if hub_key is None else hub_key.secret)
    except TimeoutError:
        said = b"it took too long"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode == 0:
        return True
    reason = said.decode(errors="replace").strip().rpartition("\n")[2]
    log.warning("cannot renew the certificate of this hub, will try again: %s", escape_controls(reason))
    return False

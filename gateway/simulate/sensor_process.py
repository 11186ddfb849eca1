"""An emulated sensor in a process of its own, on a virtual radio: `python -m gateway.simulate.sensor_process SENSOR …`.

It prints its events as JSON, one a line: what it sent and what was confirmed among them. The strap has a program of its own
(`gateway.simulate.strap`), because it plays a recording and keeps a journal.
"""

import argparse
import asyncio
import json
import logging
import math
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from bumble.device import Device

from config.process import leaf_errors, watching_stdin
from gateway.errors import RadioError
from gateway.radio.virtual_radio_server import open_device
from gateway.simulate.families import FAMILIES, World, run_family
from gateway.simulate.home import HOME
from gateway.simulate.peripherals.peripheral import BondedSubscriptions, OnEvent

log = logging.getLogger(__name__)

RADIO_TIMEOUT_S: Final = 10.0
"""How long a sensor waits for the virtual radio to start or restart before it gives up."""
RADIO_RETRY_S: Final = 0.2


async def run_sensor(
    sensor: str, socket: Path, folder: Path, every_s: float, on_event: OnEvent, *, at_home: bool = False
) -> NoReturn:
    """Run a sensor of `families` on the virtual radio at `socket`. It measures every `every_s` until cancelled.

    With `at_home` it lives as in `gateway.simulate.home` instead, which need not have every family.

    Its bonds, and the subscriptions of bonded hubs, are stored in files in the folder.

    Raises:
        RadioError: there was no virtual radio for ten seconds.
    """
    family, subscriptions = FAMILIES[sensor], BondedSubscriptions(folder / f"{sensor}.subscriptions.json")
    live = HOME[sensor].live if at_home else None
    rng = random.Random()  # noqa: S311  simulated readings

    async def run_once(device: Device) -> None:
        await run_family(family, device, World(datetime.now, time.time_ns(), every_s, rng, on_event, subscriptions), live)

    open_once = partial(open_device, socket, family.address, family.name, folder / f"{sensor}.bonds.json")
    await keep_running(open_once, run_once)


async def keep_running(
    open_once: Callable[[], AbstractAsyncContextManager[Device]], run_once: Callable[[Device], Awaitable[None]]
) -> NoReturn:
    """Open a device and run a sensor on it, again whenever the radio was lost, until cancelled.

    Raises:
        RadioError: there was no virtual radio for ten seconds.
    """
    deadline_s = time.monotonic() + RADIO_TIMEOUT_S
    while True:
        try:
            async with open_once() as device:
                deadline_s = math.inf
                await run_once(device)
        except* RadioError as group:
            deadline_s = min(deadline_s, time.monotonic() + RADIO_TIMEOUT_S)
            if time.monotonic() >= deadline_s:
                raise leaf_errors(group)[0] from None
        await asyncio.sleep(RADIO_RETRY_S)


async def run_until_stopped(coroutine: Coroutine[Any, Any, NoReturn], *, watch_stdin: bool) -> None:
    """Run until SIGINT or SIGTERM, or with `watch_stdin` until standard input ends because the parent process is gone."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(coroutine)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with watching_stdin(task.cancel) if watch_stdin else nullcontext():
        try:
            await task
        except asyncio.CancelledError:
            log.debug("stopped on request")


def print_event(event: Mapping[str, Any]) -> None:
    """Print one line of JSON. The sensor keeps running when the reader is gone."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


def main(arguments: Sequence[str]) -> int:
    """Run a sensor as a process. Return 0 after a stop request, or 1 after an error, which is printed to standard error."""
    parser = argparse.ArgumentParser(
        prog="gateway.simulate.sensor_process", description="an emulated sensor on a virtual radio"
    )
    parser.add_argument("sensor", choices=tuple(FAMILIES))
    parser.add_argument("--socket", type=Path, required=True, help="the virtual radio's socket")
    parser.add_argument("--folder", type=Path, required=True, help="folder for the sensor's bonds")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two measurements (default: %(default)s)")
    parser.add_argument("--at-home", action="store_true", help="measure as in the demo's home")
    parser.add_argument("--watch-stdin", action="store_true", help="stop when standard input (a pipe) ends")
    options = parser.parse_args(arguments)
    try:
        running = run_sensor(
            options.sensor, options.socket, options.folder, options.every, print_event, at_home=options.at_home
        )
        asyncio.run(run_until_stopped(running, watch_stdin=options.watch_stdin))
    except (RadioError, OSError) as error:
        sys.stderr.write(f"{options.sensor}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`pulsegate simulate`: emulated sensors with their own virtual radio, for `scan`, `record` and `run` on the same machine."""

import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from gateway.radio.virtual_radio_server import VirtualRadioServer, open_device
from gateway.simulate.families import FAMILIES, World, bonds_file, run_family
from gateway.simulate.peripherals.peripheral import BondedSubscriptions
from gateway.simulate.repeating_ecg import RepeatingEcg
from gateway.simulate.strap import NAME, run_strap

STRAP: Final = "strap"


def run_standalone(folder: Path, sensors: Sequence[str], ecg: RepeatingEcg, every_s: float) -> None:
    """Run emulated sensors until Ctrl-C: the strap, which plays `ecg`, and others, which measure every `every_s`.

    The folder receives the radio's socket, the sensors' bonds, and a journal of what the strap sends.

    Raises:
        RadioError: the folder cannot hold the socket.
        OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(folder.absolute(), sensors, ecg, every_s))  # settings elsewhere may name the socket


async def _serve(folder: Path, sensors: Sequence[str], ecg: RepeatingEcg, every_s: float) -> None:
    async with VirtualRadioServer(folder) as server, asyncio.TaskGroup() as tasks:
        sys.stderr.write(_describe_use(f"virtual:{server.path}", sensors))
        for sensor in sensors:
            if sensor == STRAP:
                tasks.create_task(run_strap(server.path, ecg, folder / "strap.jsonl", _print_event))
            else:
                tasks.create_task(_run_sensor(sensor, server.path, folder, every_s))


async def _run_sensor(sensor: str, socket: Path, folder: Path, every_s: float) -> None:
    family = FAMILIES[sensor]
    world = World(
        datetime.now,
        time.time_ns(),
        every_s,
        random.Random(),  # noqa: S311  simulated readings
        lambda event: _print_event({"sensor": sensor, **event}),
        BondedSubscriptions(folder / f"{sensor}.subscriptions.json"),
    )
    async with open_device(socket, family.address, family.name, bonds_file(folder, sensor)) as device:
        await run_family(family, device, world)


def _describe_use(radio: str, sensors: Sequence[str]) -> str:
    lines = [f'A virtual {STRAP} is advertising as "{NAME}".' for sensor in sensors if sensor == STRAP]
    for sensor in sensors:
        if sensor != STRAP:
            family = FAMILIES[sensor]
            hint = f" ({family.hint})" if family.hint else ""
            lines.append(f'A virtual {sensor} measures now and then, and then advertises as "{family.name}"{hint}.')
    lines[-1] += " Ctrl-C stops it." if len(lines) == 1 else " Ctrl-C stops them."
    return (
        "\n".join(lines) + "\n"
        f"for scan and record:     --radio {radio}\n"
        f'in the settings for run: radio = "{radio}", and advertised_name = the name of each sensor\n'
    )


def _print_event(event: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()

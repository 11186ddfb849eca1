"""`pulsegate simulate`: emulated sensors with their own virtual radio, for `scan`, `record` and `run` on the same machine."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.radio.virtual_radio_server import VirtualRadioServer
from gateway.simulate.families import FAMILIES
from gateway.simulate.heart import RepeatingEcg
from gateway.simulate.peripherals.peripheral import OnEvent
from gateway.simulate.sensor_process import print_event, run_sensor
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
                tasks.create_task(run_strap(server.path, ecg, folder / "strap.jsonl", print_event))
            else:
                tasks.create_task(run_sensor(sensor, server.path, folder, every_s, _label(sensor)))


def _label(sensor: str) -> OnEvent:
    """Return what prints an event with the sensor's name."""
    return lambda event: print_event({"sensor": sensor, **event})


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

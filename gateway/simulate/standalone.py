"""`pulsegate simulate`: a virtual strap with its own virtual radio, for `scan`, `record` and `run` on the same machine."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from gateway.radio.virtual_radio_server import VirtualRadioServer
from gateway.simulate.repeating_ecg import RepeatingEcg
from gateway.simulate.strap import NAME, run_strap


def run_standalone(folder: Path, ecg: RepeatingEcg) -> None:
    """Run a virtual strap until Ctrl-C. The folder receives the radio's socket and a journal of what the strap sends.

    Raises:
        RadioError: the folder cannot hold the socket.
        OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve_strap(folder.absolute(), ecg))  # settings elsewhere may name the socket


async def _serve_strap(folder: Path, ecg: RepeatingEcg) -> NoReturn:
    async with VirtualRadioServer(folder) as server:
        sys.stderr.write(_describe_use(f"virtual:{server.path}"))
        await run_strap(server.path, ecg, folder / "strap.jsonl", _print_event)
    raise AssertionError("the strap runs until it is cancelled")


def _describe_use(radio: str) -> str:
    return (
        f'A virtual strap is advertising as "{NAME}". Ctrl-C stops it.\n'
        f"for scan and record:     --radio {radio}\n"
        f'in the settings for run: radio = "{radio}", and advertised_name = "{NAME}" of the sensor\n'
    )


def _print_event(event: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()

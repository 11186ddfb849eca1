"""`pulsegate simulate`: a virtual strap and the air around it, for `scan`, `record` and `run` on the same machine."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from gateway.radio.air import Air
from gateway.simulate.heart import Heart
from gateway.simulate.strap import run_strap


async def simulate(folder: Path, heart: Heart) -> NoReturn:
    """Runs until cancelled; what the strap sends is journalled in the folder.

    Raises:
        RadioError: the folder takes no socket.
    """
    async with Air(folder) as air:
        sys.stderr.write(f"A virtual strap is on the air. Use it with: --radio virtual:{air.path}   (Ctrl-C ends it)\n")
        await run_strap(air.path, heart, folder / "strap.jsonl", _print)
    raise AssertionError("a strap runs until it is cancelled")


def start(folder: Path, heart: Heart) -> None:
    """`simulate` until Ctrl-C."""
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(simulate(folder, heart))


def _print(event: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()

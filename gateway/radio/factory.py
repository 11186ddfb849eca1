"""Opens a radio by its name in the settings."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.errors import RadioError
from gateway.radio.radio import Radio

SYSTEM_ADAPTERS: Final = Path("/sys/class/bluetooth")
"""Where the Linux kernel lists its adapters."""


@asynccontextmanager
async def open_radio(spec: str, keys: Path | None = None) -> AsyncIterator[Radio]:
    """Open the radio that the settings name.

    `bluetooth` is the first adapter of this machine, `bluetooth:hci1` the one with that name, and `virtual:PATH` the virtual
    radio at that socket. The operating system stores the adapter's bonds. Those of the virtual radio are stored in the file
    `keys`, or in memory.

    Raises:
        RadioError: the name is unknown, Bumble is not installed, or the adapter or the virtual radio cannot be used.
    """
    kind, _, rest = spec.partition(":")
    if kind == "bluetooth" and (rest or spec == kind):
        async with _open_bluetooth(spec, rest or None) as radio:
            yield radio
    elif kind == "virtual" and rest:
        async with _open_socket_radio(Path(rest), spec, keys) as radio:
            yield radio
    else:
        raise RadioError(f"unknown radio {spec!r}: use 'bluetooth', 'bluetooth:ADAPTER' or 'virtual:PATH'")


def is_radio_present(spec: str) -> bool:
    """Return whether this machine has the radio now. It does not disturb the radio that is open."""
    kind, _, rest = spec.partition(":")
    if kind == "virtual":
        return Path(rest).exists()
    return (SYSTEM_ADAPTERS / rest).exists() if rest else any(SYSTEM_ADAPTERS.glob("hci*"))


@asynccontextmanager
async def _open_bluetooth(spec: str, adapter_name: str | None) -> AsyncIterator[Radio]:
    if sys.platform != "linux":
        yield Radio(None, None, spec)  # type: ignore[unreachable]
        return
    from gateway.radio.bluez_adapter import make_scanner_backend, open_bluez_adapter  # noqa: PLC0415  only Linux has D-Bus

    lost = asyncio.Event()
    async with open_bluez_adapter(adapter_name, lost) as adapter:
        yield Radio(None, make_scanner_backend(adapter.path.split("/")[-1]), spec, lost, adapter, adapter.subscriptions)


def _open_socket_radio(socket: Path, name: str, keys: Path | None) -> AbstractAsyncContextManager[Radio]:
    try:
        from gateway.radio.virtual_radio_server import open_socket_radio  # noqa: PLC0415  a patient's hub has no Bumble
    except ModuleNotFoundError as error:
        raise RadioError(f"the virtual radio needs {error.name}: pip install 'pulsegate[sim]'") from error
    return open_socket_radio(socket, name, keys)

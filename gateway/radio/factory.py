"""Opens a radio by its name in the settings."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from gateway.errors import RadioError
from gateway.radio.radio import Radio


def bleak_radio() -> Radio:
    """The Bluetooth adapter of this machine."""
    return Radio(None, None, "bluetooth")


@asynccontextmanager
async def open_radio(spec: str, keys: Path | None = None) -> AsyncIterator[Radio]:
    """Open `bluetooth`, the adapter of this machine, or `virtual:PATH`, the virtual radio at that socket.

    The operating system stores the adapter's bonds. Those of the virtual radio are stored in the file `keys`, or in memory.

    Raises:
        RadioError: the name is unknown, Bumble is not installed, or the virtual radio cannot be reached.
    """
    kind, _, path = spec.partition(":")
    if spec == "bluetooth":
        yield bleak_radio()
    elif kind == "virtual" and path:
        async with _open_socket_radio(Path(path), spec, keys) as radio:
            yield radio
    else:
        raise RadioError(f"unknown radio {spec!r}: use 'bluetooth' or 'virtual:PATH'")


def _open_socket_radio(socket: Path, name: str, keys: Path | None) -> AbstractAsyncContextManager[Radio]:
    try:
        from gateway.radio.virtual_radio_server import open_socket_radio  # noqa: PLC0415  a patient's hub has no Bumble
    except ModuleNotFoundError as error:
        raise RadioError(f"the virtual radio needs {error.name}: pip install 'pulsegate[sim]'") from error
    return open_socket_radio(socket, name, keys)

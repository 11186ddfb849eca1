"""A virtual radio between processes: virtual controllers behind a Unix socket that speaks HCI.

Every connection to the socket is one end of an HCI UART (H4, Core 5.4, Vol 4, Part A) with a controller of its own at the other
end. A process that closes its connection or dies looks like a device whose battery was removed: its peers see a supervision
timeout.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from bumble.core import InvalidPacketError
from bumble.device import Device
from bumble.transport.common import PacketParser

from gateway.errors import RadioError
from gateway.radio.bumble_backend import make_bumble_radio
from gateway.radio.radio import Radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualController, VirtualLink, make_hci_device

SOCKET_NAME: Final = "air.sock"
"""The socket's name in the server's folder. Settings files refer to it (`radio = "virtual:…/air.sock"`)."""

POWER_ON_TIMEOUT_S: Final = 10.0
"""Powering on takes some twenty HCI commands of a few milliseconds each; the rest is a margin for a loaded machine."""

MAX_UNREAD_BYTES: Final = 1 << 20
"""A connection whose peer leaves this much unread, an hour of ECG, is cut: that process has stopped."""


class HciStream(asyncio.Protocol):
    """One end of an HCI connection over a stream socket. For Bumble it is both source and sink of packets."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self.closed = asyncio.Event()
        self._on_closed = on_closed
        self._parser = PacketParser()
        self._transport: asyncio.Transport | None = None

    def set_packet_sink(self, sink: Any) -> None:
        self._parser.set_packet_sink(sink)

    def on_packet(self, packet: bytes) -> None:
        """Send a packet. On a closed stream, report the end again: a command sent now would never be answered."""
        if self._transport is None or self._transport.is_closing():
            self._on_closed()
        elif self._transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.abort()
        else:
            self._transport.write(packet)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except InvalidPacketError:
            self.abort()  # not HCI; after a wrong length the following packets cannot be found either

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._on_closed()


class VirtualRadioServer:
    """Serves virtual controllers: each connection to the socket `path` gets one, and all share the virtual link `link`.

    Use it as an async context manager. Entering it raises RadioError if the folder cannot hold the socket.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / SOCKET_NAME
        self.link = VirtualLink()
        self._streams: set[HciStream] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "VirtualRadioServer":
        self.path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(self._accept, self.path)
        except OSError as error:
            raise RadioError(f"cannot open the virtual radio at {self.path}: {error}; choose another folder") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for stream in list(self._streams):
                stream.abort()
                await stream.closed.wait()
            await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> HciStream:
        def on_closed() -> None:
            self._streams.discard(stream)
            self.link.remove_controller(controller)

        controller = VirtualController("virtual", link=self.link)
        stream = HciStream(on_closed)
        stream.set_packet_sink(controller)
        controller.host = stream
        self._streams.add(stream)
        return stream


@asynccontextmanager
async def open_device(socket: Path, address: str, name: str, keys: Path | None = None) -> AsyncIterator[Device]:
    """A powered Bumble device on the virtual radio at `socket`; see `virtual.make_hci_device`.

    When the server ends, the device emits `EVENT_FLUSH`, its connections end, and pending HCI commands are cancelled.

    Raises:
        RadioError: no server listens at the socket, or it does not speak HCI.
    """

    def on_closed() -> None:
        if device.host.pending_response is not None:
            device.host.pending_response.cancel()
        device.host.emit("flush")

    stream = HciStream(on_closed)
    device = make_hci_device(stream, stream, address, name, keys)
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: stream, str(socket))
    except OSError as error:
        raise RadioError(f"no virtual radio at {socket} ({error.strerror or error}): start its simulator first") from error
    try:
        await _power_on(device, socket)
        yield device
    finally:
        stream.abort()
        await stream.closed.wait()


async def _power_on(device: Device, socket: Path) -> None:
    try:
        async with asyncio.timeout(POWER_ON_TIMEOUT_S):
            await device.power_on()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RadioError(f"the virtual radio at {socket} closed the connection: start its simulator again") from error
    except TimeoutError as error:
        raise RadioError(f"the virtual radio at {socket} does not answer: start its simulator again") from error


@asynccontextmanager
async def open_socket_radio(socket: Path, name: str, keys: Path | None = None) -> AsyncIterator[Radio]:
    """The hub's radio on the virtual radio server at `socket`; its bonds are stored in the file `keys`, or in memory.

    Raises:
        RadioError: no server listens at the socket, or it does not speak HCI.
    """
    async with open_device(socket, VIRTUAL_HUB_ADDRESS, "pulsegate", keys) as device:
        yield make_bumble_radio(device, name)

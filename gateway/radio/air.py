"""The ether between processes: virtual controllers behind a Unix socket that speaks HCI.

Whoever connects to the socket holds one end of an HCI UART (H4, Core 5.4, Vol 4, Part A) with a controller of its own on
the other. Closing the connection, or dying, is taking the battery out: the peers of that controller see their links time out.
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

from gateway.radio.radio import RadioError
from gateway.radio.virtual import VirtualController, VirtualLink, host_device

POWER_ON_TIMEOUT_S: Final = 10.0
"""For some twenty HCI commands, a few milliseconds each, with room for a loaded machine."""

MAX_UNREAD_BYTES: Final = 1 << 20
"""An end that leaves this much unread, an hour of ECG, has stopped; its connection is cut."""


class HciStream(asyncio.Protocol):
    """One end of an HCI connection over a stream socket, for Bumble both source and sink of packets."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self.closed = asyncio.Event()
        self._on_closed = on_closed
        self._parser = PacketParser()
        self._transport: asyncio.Transport | None = None

    def set_packet_sink(self, sink: Any) -> None:
        self._parser.set_packet_sink(sink)

    def on_packet(self, packet: bytes) -> None:
        """Send; or once the stream has closed say so again, since a command sent now would never be answered."""
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
            self.abort()  # not HCI, and after a wrong length nothing that follows could be

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._on_closed()


class Air:
    """`async with Air(folder) as air`: every connection to the socket `air.path` is a controller on `air.link`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "air.sock"
        self.link = VirtualLink()
        self._streams: set[HciStream] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Air":
        self.path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(self._accept, self.path)
        except OSError as error:
            raise RadioError(f"can't open the virtual radio at {self.path}: {error}; choose another folder") from error
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
        def closed() -> None:
            self._streams.discard(stream)
            self.link.remove_controller(controller)

        controller = VirtualController("air", link=self.link)
        stream = HciStream(closed)
        stream.set_packet_sink(controller)
        controller.host = stream
        self._streams.add(stream)
        return stream


@asynccontextmanager
async def open_device(socket: Path, address: str, name: str, keys: Path | None = None) -> AsyncIterator[Device]:
    """A powered Bumble device on the virtual radio at `socket`; see `virtual.host_device`.

    When the radio goes, the device emits `EVENT_FLUSH`, its connections end, and what waits for the controller is cancelled.
    Raises RadioError.
    """

    def closed() -> None:
        if device.host.pending_response is not None:
            device.host.pending_response.cancel()
        device.host.emit("flush")

    stream = HciStream(closed)
    device = host_device(stream, stream, address, name, keys)
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
        raise RadioError(f"the virtual radio at {socket} hung up: start its simulator again") from error
    except TimeoutError as error:
        raise RadioError(f"the virtual radio at {socket} does not answer: start its simulator again") from error

"""A virtual radio in this process: Bumble's link and controllers, with simulated faults."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bumble import hci, ll
from bumble.controller import Connection, Controller
from bumble.core import PhysicalTransport
from bumble.device import Device, DeviceConfiguration
from bumble.host import Host
from bumble.keys import JsonKeyStore, MemoryKeyStore
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport.common import AsyncPipeSink

from gateway.radio.bumble_address import format_address
from gateway.radio.bumble_backend import make_bumble_radio
from gateway.radio.radio import Radio

VIRTUAL_HUB_ADDRESS: Final = "C2:00:00:00:00:01"
"""The hub's static random address on a virtual radio. It never changes, because bonds must survive a restart."""

SUPERVISION_TIMEOUT_S: Final = 0.5
"""A link counts as lost after this silence. BlueZ asks for 0.42 s (its LE default, 42 × 10 ms); Core 5.4 allows 0.1–32 s."""

ADVERTISING_INTERVAL_MS: Final = 100
"""The interval of a chest strap; Core 5.4, Vol 6, Part B, 4.4.2.2 allows 20 ms to 10,485 s."""

CANCELLED_COMMAND_TIMEOUT_S: Final = 1.0
"""Time limit of the controller's response to a command whose caller was cancelled; a response takes milliseconds."""


class VirtualLink(LocalLink):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """The radio link between virtual controllers, with fault injection. Addresses are written "C2:00:00:00:00:01".

    A real link loses no data: it delays data or breaks. Therefore data is dropped in two cases only. A device in
    `out_of_range` neither sends nor receives anything, and its links are about to break. A device in `zombies` keeps its link,
    but its stack has stopped. `latency_s` delays all data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.latency_s = 0.0
        self.out_of_range: set[str] = set()
        self.zombies: set[str] = set()
        self._last_delivery_s = 0.0

    def simulate_link_loss(self, address: str) -> int:
        """Raise a supervision timeout on both ends of every connection of this address. Return the number of ends."""
        ends = [
            (controller, connection)
            for controller in self._sorted_controllers()
            for connection in controller.le_connections.values()
            if address in (format_address(connection.self_address), format_address(connection.peer_address))
        ]
        for controller, connection in ends:
            _time_out(controller, connection)
        return len(ends)

    def remove_device(self, address: str) -> None:
        """Take the device with this address off the link, as if its battery were removed."""
        for controller in self._sorted_controllers():
            if format_address(controller.random_address) == address:
                self.remove_controller(controller)

    def remove_controller(self, controller: Controller) -> None:
        """Silence the controller at once; its peers notice after the supervision timeout."""
        self.controllers.discard(controller)
        for advertiser in _advertisers(controller):
            advertiser.stop()
        for lost in controller.le_connections.values():
            for peer in self._sorted_controllers():
                other_end = peer.le_connections.get(lost.self_address)
                if other_end is not None and other_end.self_address == lost.peer_address:
                    asyncio.get_running_loop().call_later(SUPERVISION_TIMEOUT_S, _time_out, peer, other_end)

    def is_connectable(self, address: hci.Address) -> bool:
        """Whether a device in range advertises under this address."""
        advertisers = [advertiser for controller in self.controllers for advertiser in _advertisers(controller)]
        return not self._is_out_of_range(address) and any(each.enabled and each.address == address for each in advertisers)

    def send_acl_data(
        self, sender_controller: Controller, destination_address: hci.Address, transport: PhysicalTransport, data: bytes
    ) -> None:
        source_address = sender_controller.random_address
        if {format_address(source_address), format_address(destination_address)} & (self.out_of_range | self.zombies):
            return
        receiver = self.find_le_controller(destination_address)
        connection = receiver.le_connections.get(source_address) if receiver else None
        if receiver is None or connection is None:
            return

        def deliver() -> None:
            if receiver.le_connections.get(source_address) is connection:  # not a later connection of the same two devices
                receiver.on_link_acl_data(source_address, transport, data)

        loop = asyncio.get_running_loop()
        if self.latency_s == 0 and self._last_delivery_s <= loop.time():
            loop.call_soon(deliver)
        else:
            # asyncio fires timers with equal deadlines in any order, so each delivery gets a deadline of its own.
            self._last_delivery_s = max(loop.time() + self.latency_s, self._last_delivery_s + 1e-6)
            loop.call_at(self._last_delivery_s, deliver)

    def send_advertising_pdu(self, sender_controller: Controller, packet: ll.AdvertisingPdu) -> None:
        if self._is_out_of_range(sender_controller.random_address):
            return
        for controller in self._sorted_controllers():
            if controller is sender_controller or self._is_out_of_range(controller.random_address):
                continue
            if isinstance(packet, ll.ConnectInd):
                # Synchronously: with a delay, two centrals could both believe that they are connected to one peripheral.
                controller.on_ll_advertising_pdu(packet)
            elif controller.le_scan_enable or controller.pending_le_connection is not None:  # others do not listen
                asyncio.get_running_loop().call_soon(controller.on_ll_advertising_pdu, packet)

    def send_ll_control_pdu(self, sender_address: hci.Address, receiver_address: hci.Address, packet: ll.ControlPdu) -> None:
        receiver = self.find_le_controller(receiver_address)
        if receiver is None or self._is_out_of_range(sender_address) or self._is_out_of_range(receiver_address):
            return
        asyncio.get_running_loop().call_soon(receiver.on_ll_control_pdu, sender_address, packet)

    def _sorted_controllers(self) -> list[Controller]:
        """The controllers by address. The iteration order of a set would differ from run to run."""
        return sorted(self.controllers, key=lambda controller: bytes(controller.random_address)[::-1])

    def _is_out_of_range(self, address: hci.Address) -> bool:
        return bool(self.out_of_range) and format_address(address) in self.out_of_range


def _advertisers(controller: Controller) -> list[Any]:
    return [controller.le_legacy_advertiser, *controller.advertising_sets.values()]


def _time_out(controller: Controller, connection: Connection) -> None:
    controller.on_le_disconnected(connection, hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)


class VirtualController(Controller):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """Bumble's controller, with fixes for three bugs of version 0.0.236 that make a host unusable."""

    le_acl_data_packet_length = 251  # that of controllers with data length extension; Bumble's 27 costs ten packets a frame
    pending_le_connection: Any

    def __init__(self, name: str, link: VirtualLink) -> None:
        super().__init__(name, link=link)
        self._virtual_link = link

    def on_le_disconnected(self, connection: Connection, reason: int) -> None:
        """Handle a disconnection once: Bumble raises KeyError when both ends disconnect at the same time."""
        if self.le_connections.get(connection.peer_address) is connection:
            super().on_le_disconnected(connection, reason)

    def create_le_connection(self, peer_address: hci.Address) -> None:
        """Connect only if the peer still advertises: Bumble connects to any device it ever received, even one that is gone."""
        if self._virtual_link.is_connectable(peer_address):
            super().create_le_connection(peer_address)

    def on_hci_le_create_connection_cancel_command(self, _command: hci.HCI_Command) -> hci.HCI_StatusReturnParameters:
        """LE Create Connection Cancel (Core 5.4, Vol 4, Part E, 7.8.13). Bumble's does nothing, and the next connect fails."""
        pending = self.pending_le_connection
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        self.pending_le_connection = None
        cancelled = hci.HCI_LE_Connection_Complete_Event(
            status=hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR,
            connection_handle=0,
            role=hci.Role.CENTRAL,
            peer_address_type=pending.peer_address.address_type,
            peer_address=pending.peer_address,
            connection_interval=0,
            peripheral_latency=0,
            supervision_timeout=0,
            central_clock_accuracy=0,
        )
        asyncio.get_running_loop().call_soon(self.send_hci_packet, cancelled)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)


class CancelSafeHost(Host):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """Bumble's host, which waits for the response to a command even when the task that sent it is cancelled.

    HCI allows one command at a time, and commands carry no number. Bumble would send the next command at once and take the late
    response for the answer to it.
    """

    async def _send_command(self, command: Any, response_timeout: float | None = None) -> Any:
        exchange = asyncio.ensure_future(super()._send_command(command, response_timeout))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            await asyncio.wait({exchange}, timeout=CANCELLED_COMMAND_TIMEOUT_S)
            raise


def make_hci_device(source: Any, sink: Any, address: str, name: str, keys: Path | None = None) -> Device:
    """Return a Bumble device on an HCI packet source and sink, not yet powered on.

    `address` is its static random address. It pairs by LE Secure Connections "Just Works". Its bonds are stored in the
    JSON file `keys`, or in memory.
    """
    interval_ms = ADVERTISING_INTERVAL_MS
    configuration = DeviceConfiguration(
        name=name, address=hci.Address(address), advertising_interval_min=interval_ms, advertising_interval_max=interval_ms
    )
    device = Device(config=configuration, host=CancelSafeHost(source, sink))
    device.keystore = MemoryKeyStore() if keys is None else JsonKeyStore(address, str(keys))
    device.pairing_config_factory = _make_pairing_config
    return device


def _make_pairing_config(_connection: object) -> PairingConfig:
    # No identity keys are distributed: if Bumble has a peer's, it scans for the peer before it connects, without a timeout.
    ltk = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY
    delegate = PairingDelegate(PairingDelegate.IoCapability.NO_OUTPUT_NO_INPUT, ltk, ltk)
    return PairingConfig(sc=True, mitm=False, bonding=True, delegate=delegate)


def make_device(link: VirtualLink, address: str, name: str, keys: Path | None = None) -> Device:
    """Return a device with its own controller on the link, not yet powered on; see `make_hci_device`."""
    controller = VirtualController(name, link=link)
    return make_hci_device(controller, AsyncPipeSink(controller), address, name, keys)


@asynccontextmanager
async def open_in_process_radio(link: VirtualLink, address: str, keys: Path | None = None) -> AsyncIterator[Radio]:
    """The hub's radio in the same process as its sensors, for tests on virtual time."""
    device = make_device(link, address, "pulsegate", keys)
    await device.power_on()
    try:
        yield make_bumble_radio(device, "virtual")
    finally:
        link.remove_device(address)
        await device.power_off()

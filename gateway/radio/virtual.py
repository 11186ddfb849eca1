"""A virtual radio in this process: Bumble's link and controllers, with the faults of a real one."""

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

from gateway.radio.bumble_backend import radio_on
from gateway.radio.radio import Radio

SUPERVISION_TIMEOUT_S: Final = 0.5
"""Silence after which a link counts as lost. BlueZ asks for 0.42 s (its LE default, 42 × 10 ms); Core 5.4 allows 0.1–32 s."""

ADVERTISING_INTERVAL_MS: Final = 100
"""A chest strap's; Core 5.4, Vol 6, Part B, 4.4.2.2 allows 20 ms to 10,485 s."""

ANSWER_TIMEOUT_S: Final = 1.0
"""For a controller's answer to a command, which takes milliseconds, where nobody wants it any more."""


def _text(address: hci.Address) -> str:
    text: str = address.to_string(with_type_qualifier=False)
    return text


class VirtualLink(LocalLink):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """The air between virtual controllers. Addresses are written "C2:00:00:00:00:01".

    A real link loses no data: it delays it or breaks. So data is dropped only for devices out of range, whose links are
    about to break, and for zombies, whose stack has stopped while the link stays up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.latency_s = 0.0
        self.out_of_range: set[str] = set()
        self.zombies: set[str] = set()
        self._last_delivery_s = 0.0

    def link_loss(self, address: str) -> int:
        """A supervision timeout on both ends of every connection of this address. Returns how many ends there were."""
        ends = [
            (controller, connection)
            for controller in self._in_order()
            for connection in controller.le_connections.values()
            if address in (_text(connection.self_address), _text(connection.peer_address))
        ]
        for controller, connection in ends:
            _lose(controller, connection)
        return len(ends)

    def remove(self, address: str) -> None:
        """Take the battery out of the device with this address."""
        for controller in self._in_order():
            if _text(controller.random_address) == address:
                self.remove_controller(controller)

    def remove_controller(self, controller: Controller) -> None:
        """The controller falls silent at once; its peers notice after the supervision timeout."""
        self.controllers.discard(controller)
        for advertiser in _advertisers(controller):
            advertiser.stop()
        for lost in controller.le_connections.values():
            for peer in self._in_order():
                other_end = peer.le_connections.get(lost.self_address)
                if other_end is not None and other_end.self_address == lost.peer_address:
                    asyncio.get_running_loop().call_later(SUPERVISION_TIMEOUT_S, _lose, peer, other_end)

    def is_connectable(self, address: hci.Address) -> bool:
        """Whether a device in range advertises under this address."""
        advertisers = [advertiser for controller in self.controllers for advertiser in _advertisers(controller)]
        return not self._silent(address) and any(each.enabled and each.address == address for each in advertisers)

    def send_acl_data(
        self, sender_controller: Controller, destination_address: hci.Address, transport: PhysicalTransport, data: bytes
    ) -> None:
        source_address = sender_controller.random_address
        if {_text(source_address), _text(destination_address)} & (self.out_of_range | self.zombies):
            return
        receiver = self.find_le_controller(destination_address)
        connection = receiver.le_connections.get(source_address) if receiver else None
        if receiver is None or connection is None:
            return

        def deliver() -> None:
            if receiver.le_connections.get(source_address) is connection:  # and not a later one of the same two
                receiver.on_link_acl_data(source_address, transport, data)

        loop = asyncio.get_running_loop()
        if self.latency_s == 0 and self._last_delivery_s <= loop.time():
            loop.call_soon(deliver)
        else:
            # Timers of one instant fire in any order, so each delivery gets an instant of its own.
            self._last_delivery_s = max(loop.time() + self.latency_s, self._last_delivery_s + 1e-6)
            loop.call_at(self._last_delivery_s, deliver)

    def send_advertising_pdu(self, sender_controller: Controller, packet: ll.AdvertisingPdu) -> None:
        if self._silent(sender_controller.random_address):
            return
        for controller in self._in_order():
            if controller is sender_controller or self._silent(controller.random_address):
                continue
            if isinstance(packet, ll.ConnectInd):
                # At once: otherwise two centrals could both believe that they have got the same peripheral.
                controller.on_ll_advertising_pdu(packet)
            else:
                asyncio.get_running_loop().call_soon(controller.on_ll_advertising_pdu, packet)

    def send_ll_control_pdu(self, sender_address: hci.Address, receiver_address: hci.Address, packet: ll.ControlPdu) -> None:
        receiver = self.find_le_controller(receiver_address)
        if receiver is None or self._silent(sender_address) or self._silent(receiver_address):
            return
        asyncio.get_running_loop().call_soon(receiver.on_ll_control_pdu, sender_address, packet)

    def _in_order(self) -> list[Controller]:
        """The controllers by address: those of a set come in an order that differs from run to run."""
        return sorted(self.controllers, key=lambda controller: _text(controller.random_address))

    def _silent(self, address: hci.Address) -> bool:
        return _text(address) in self.out_of_range


def _advertisers(controller: Controller) -> list[Any]:
    return [controller.le_legacy_advertiser, *controller.advertising_sets.values()]


def _lose(controller: Controller, connection: Connection) -> None:
    controller.on_le_disconnected(connection, hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)


class VirtualController(Controller):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """Bumble's controller without the faults of version 0.0.236 that wedge a host."""

    le_acl_data_packet_length = 251  # as controllers with data length extension have; Bumble's 27 costs ten packets a frame
    pending_le_connection: Any

    def __init__(self, name: str, link: VirtualLink) -> None:
        super().__init__(name, link=link)
        self._air = link

    def on_le_disconnected(self, connection: Connection, reason: int) -> None:
        """Only if the connection still stands: Bumble raises KeyError when both ends hang up at once."""
        if self.le_connections.get(connection.peer_address) is connection:
            super().on_le_disconnected(connection, reason)

    def create_le_connection(self, peer_address: hci.Address) -> None:
        """Only if the advertiser still advertises: Bumble connects to whatever it has heard, although it may have gone."""
        if self._air.is_connectable(peer_address):
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


class PatientHost(Host):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """Bumble's host, which hears the answer to a command out when the task that sent it is cancelled.

    HCI allows one command at a time and numbers none. Bumble would send the next at once, and take the late answer for its.
    """

    async def _send_command(self, command: Any, response_timeout: float | None = None) -> Any:
        exchange = asyncio.ensure_future(super()._send_command(command, response_timeout))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            await asyncio.wait({exchange}, timeout=ANSWER_TIMEOUT_S)
            raise


def host_device(source: Any, sink: Any, address: str, name: str, keys: Path | None = None) -> Device:
    """A Bumble device on an HCI packet source and sink, still powered off.

    `address` is its static random address. It pairs by LE Secure Connections "Just Works"; its bonds lie in the JSON file
    `keys`, or in memory.
    """
    interval = ADVERTISING_INTERVAL_MS
    configuration = DeviceConfiguration(
        name=name, address=hci.Address(address), advertising_interval_min=interval, advertising_interval_max=interval
    )
    device = Device(config=configuration, host=PatientHost(source, sink))
    device.keystore = MemoryKeyStore() if keys is None else JsonKeyStore(address, str(keys))
    device.pairing_config_factory = _pairing
    return device


def _pairing(_connection: object) -> PairingConfig:
    # Identity keys stay home: with a peer's, Bumble scans for it before connecting, without any timeout.
    ltk = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY
    delegate = PairingDelegate(PairingDelegate.IoCapability.NO_OUTPUT_NO_INPUT, ltk, ltk)
    return PairingConfig(sc=True, mitm=False, bonding=True, delegate=delegate)


def make_device(link: VirtualLink, address: str, name: str, keys: Path | None = None) -> Device:
    """A device of its own on the link, still powered off; see `host_device`."""
    controller = VirtualController(name, link=link)
    return host_device(controller, AsyncPipeSink(controller), address, name, keys)


@asynccontextmanager
async def virtual_radio(link: VirtualLink, address: str, keys: Path | None = None) -> AsyncIterator[Radio]:
    """The agent's radio in the same process as its sensors, for tests on virtual time."""
    device = make_device(link, address, "pulsegate", keys)
    await device.power_on()
    try:
        yield radio_on(device, "virtual")
    finally:
        link.remove(address)
        await device.power_off()

"""A fake BlueZ: `org.bluez` on a private D-Bus, backed by a Bumble device. bleak's Linux backend runs on it unmodified.

It answers the D-Bus calls of bleak 3.1 as bluetoothd 5.55 and later do (`doc/org.bluez.*.rst` and `src/gatt-client.c` of
BlueZ). It contains neither bluetoothd nor the kernel. It leaves out:

- more than one adapter or D-Bus client: its adapter is always powered, and discovery sessions are not counted by client;
- pairing agents, `Pair` and `RemoveDevice`: it pairs "Just Works" when an attribute requires an encrypted link;
- `AcquireNotify`, `AcquireWrite` and access to descriptors, which are only listed;
- the cache of services: their objects are removed at a disconnection;
- `InProgress` errors for simultaneous operations, and the removal of devices that no longer advertise.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from bleak.assigned_numbers import gatt_char_props_to_strs
from bleak.exc import BleakError
from bumble import hci
from bumble.att import ATT_Error
from bumble.core import BaseBumbleError
from bumble.device import Advertisement, Connection, Device
from dbus_fast import Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

from gateway.radio.bumble_scanner import format_uuid, parse_advertisement
from gateway.radio.central import Central
from tests.bluez.bluez_values import DBUS_ERRORS, NEEDS_SECURITY, device_properties, uuid_variant
from tests.bluez.dbus_objects import (
    ADAPTER,
    BLUEZ,
    CHARACTERISTIC,
    DESCRIPTOR,
    DEVICE,
    OBJECT_MANAGER,
    SERVICE,
    BlueZError,
    ObjectTree,
)

T = TypeVar("T")
Reply = tuple[str, list[Any]]
"""Signature and body of a method's return message."""
Method = Callable[[str, list[Any]], Coroutine[Any, Any, Reply]]
"""Receives the object's path and the message's body."""

ADAPTER_PATH: Final = "/org/bluez/hci0"
FAILED: Final = "org.bluez.Error.Failed"
EMPTY_REPLY: Final[Reply] = ("", [])

CONNECT_TIMEOUT_S: Final = 20.0
"""The kernel's timeout for one connect attempt (`conn_timeout` in `include/net/bluetooth/hci_core.h`)."""
MTU: Final = 517
"""The MTU that BlueZ requests (`ExchangeMTU` in `main.conf`)."""
GENERIC_ACCESS: Final = "00001800-0000-1000-8000-00805f9b34fb"
"""The service that bluetoothd does not publish."""


@dataclass
class RemoteDevice:
    """A device that was seen in a scan."""

    address: hci.Address
    connection: Connection | None = None
    connecting: asyncio.Task[Any] | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Tasks that use the connection; they are cancelled when it ends."""
    notifying: set[str] = field(default_factory=set)
    """The paths of the characteristics that notify."""


class FakeBlueZ:
    """The fake BlueZ service; create it with `serve_bluez`."""

    def __init__(self, central: Central, bus: MessageBus, tasks: asyncio.TaskGroup) -> None:
        self._remotes: dict[str, RemoteDevice] = {}
        self._central = central
        self._bus = bus
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._tree = ObjectTree(self._send)
        self._characteristics: dict[str, Any] = {}
        self._discovery: AsyncExitStack | None = None
        self._methods: Mapping[tuple[str | None, str | None], Method] = {
            (OBJECT_MANAGER, "GetManagedObjects"): self._managed_objects,
            (ADAPTER, "SetDiscoveryFilter"): self._set_discovery_filter,
            (ADAPTER, "StartDiscovery"): self._start_discovery,
            (ADAPTER, "StopDiscovery"): self._stop_discovery,
            (DEVICE, "Connect"): self._connect,
            (DEVICE, "Disconnect"): self._disconnect,
            (CHARACTERISTIC, "ReadValue"): self._read_value,
            (CHARACTERISTIC, "WriteValue"): self._write_value,
            (CHARACTERISTIC, "StartNotify"): self._start_notify,
            (CHARACTERISTIC, "StopNotify"): self._stop_notify,
        }

    async def start(self) -> None:
        self._bus.add_message_handler(self._on_message)
        if await self._bus.request_name(BLUEZ) is not RequestNameReply.PRIMARY_OWNER:
            raise RuntimeError(f"{BLUEZ} is already owned on this bus: give each fake its own bus")
        address = str(self._central.device.random_address)[:17]
        self._tree.add(
            ADAPTER_PATH,
            ADAPTER,
            {
                "Address": Variant("s", address),
                "Powered": Variant("b", True),
                "Discovering": Variant("b", False),
                "Roles": Variant("as", ["central"]),
            },
        )

    async def stop(self) -> None:
        """Stop as if bluetoothd had been killed: no signal is sent, and the kernel ends the links."""
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it untyped
        for task in self._running:
            task.cancel()
        await self._stop_listening()
        for remote in self._remotes.values():
            if remote.connection is not None:
                await remote.connection.disconnect()

    # D-Bus messages

    def _on_message(self, message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        self._spawn(self._answer(message))
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, message: Message) -> None:
        try:
            reply = Message.new_method_return(message, *await self._call(message))
        except BlueZError as error:
            reply = Message.new_error(message, error.name, error.text)
        except ATT_Error as error:
            default = (FAILED, f"Operation failed with ATT error: 0x{error.error_code:02x}")
            reply = Message.new_error(message, *DBUS_ERRORS.get(error.error_code, default))
        except (BaseBumbleError, BleakError, hci.HCI_Error) as error:
            reply = Message.new_error(message, FAILED, str(error))
        except asyncio.CancelledError:  # the connection was lost or its connect was cancelled; this task ends here in any case
            reply = Message.new_error(message, FAILED, "Not connected")
        self._send(reply)

    def _send(self, message: Message) -> None:
        if self._bus.connected:
            self._bus.send(message)

    async def _call(self, message: Message) -> Reply:
        path, method = message.path or "/", self._methods.get((message.interface, message.member))
        if path != "/" and path not in self._tree.objects:
            raise BlueZError("org.freedesktop.DBus.Error.UnknownObject", f"Unknown object '{path}'")
        if method is None:
            raise BlueZError("org.freedesktop.DBus.Error.UnknownMethod", f"{message.interface} has no {message.member}")
        return await method(path, message.body)

    async def _managed_objects(self, _path: str, _body: list[Any]) -> Reply:
        return "a{oa{sa{sv}}}", [self._tree.objects]

    # Discovery

    async def _set_discovery_filter(self, _path: str, _body: list[Any]) -> Reply:
        return EMPTY_REPLY

    async def _start_discovery(self, _path: str, _body: list[Any]) -> Reply:
        if self._discovery is not None:
            raise BlueZError("org.bluez.Error.InProgress", "Operation already in progress")
        self._discovery = AsyncExitStack()
        await self._discovery.enter_async_context(self._central.scanning(self._on_advertisement))
        self._tree.change(ADAPTER_PATH, ADAPTER, {"Discovering": Variant("b", True)})
        return EMPTY_REPLY

    async def _stop_discovery(self, _path: str, _body: list[Any]) -> Reply:
        if self._discovery is None:
            raise BlueZError(FAILED, "No discovery started")
        await self._stop_listening()
        self._tree.change(ADAPTER_PATH, ADAPTER, {"Discovering": Variant("b", False)})
        for path in self._remotes:
            self._tree.change(path, DEVICE, {}, ("RSSI", "TxPower"))
        return EMPTY_REPLY

    async def _stop_listening(self) -> None:
        discovery, self._discovery = self._discovery, None
        if discovery is not None:
            await discovery.aclose()

    def _on_advertisement(self, advertisement: Advertisement) -> None:
        """Add a device at its first advertisement; later signal only the properties that change."""
        address: str = advertisement.address.to_string(with_type_qualifier=False)
        path = f"{ADAPTER_PATH}/dev_{address.replace(':', '_')}"
        advertised = device_properties(parse_advertisement(advertisement))
        if path in self._remotes:
            known = self._tree.objects[path][DEVICE]
            changed = {name: value for name, value in advertised.items() if known.get(name) != value}
            if changed:
                self._tree.change(path, DEVICE, changed)
            return
        self._remotes[path] = RemoteDevice(advertisement.address)
        unconnected = dict.fromkeys(("Connected", "ServicesResolved", "Paired", "Bonded"), Variant("b", False))
        self._tree.add(
            path,
            DEVICE,
            {
                "Adapter": Variant("o", ADAPTER_PATH),
                "Address": Variant("s", address),
                "AddressType": Variant("s", "random"),
                "Alias": Variant("s", address.replace(":", "-")),
                **unconnected,
                **advertised,
            },
        )

    # Connections

    async def _connect(self, path: str, _body: list[Any]) -> Reply:
        remote = self._remotes[path]
        if remote.connection is not None or remote.connecting is not None:
            raise BlueZError("org.bluez.Error.AlreadyConnected", "Already Connected")
        remote.connecting = asyncio.current_task()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._central.connect(remote.address)
        except TimeoutError:
            raise BlueZError(FAILED, "le-connection-abort-by-local") from None
        finally:
            remote.connecting = None
        remote.connection = connection
        connection.once(connection.EVENT_DISCONNECTION, lambda _reason: self._on_disconnection(path))
        self._tree.change(path, DEVICE, {"Connected": Variant("b", True)})
        self._spawn(self._resolve(path, connection))
        return EMPTY_REPLY

    async def _disconnect(self, path: str, _body: list[Any]) -> Reply:
        remote = self._remotes[path]
        if remote.connecting is not None:
            remote.connecting.cancel()
            await asyncio.wait({remote.connecting})
        elif remote.connection is None:
            raise BlueZError("org.bluez.Error.NotConnected", "Not Connected")
        else:
            await remote.connection.disconnect()
        return EMPTY_REPLY

    def _on_disconnection(self, path: str) -> None:
        remote = self._remotes[path]
        remote.connection = None
        remote.notifying.clear()
        for task in remote.tasks:
            task.cancel()
        self._tree.change(path, DEVICE, dict.fromkeys(("ServicesResolved", "Connected"), Variant("b", False)))
        self._tree.remove_below(path)
        self._characteristics = {
            other: proxy for other, proxy in self._characteristics.items() if not other.startswith(f"{path}/")
        }

    async def _resolve(self, path: str, connection: Connection) -> None:
        """Encrypt if there is a bond, and discover the services; disconnect if that fails."""
        try:
            with _cancel_on_disconnection(self._remotes[path]):
                await self._discover(path, connection)
        except (ATT_Error, BaseBumbleError, hci.HCI_Error):
            await connection.disconnect()
        except asyncio.CancelledError:
            return  # the connection was lost
        self._tree.change(path, DEVICE, {"ServicesResolved": Variant("b", True)})

    async def _discover(self, path: str, connection: Connection) -> None:
        gatt = connection.gatt_client
        await gatt.request_mtu(MTU)
        if await self._central.keys.get(str(connection.peer_address)) is not None:
            await connection.encrypt()
            self._tree.change(path, DEVICE, dict.fromkeys(("Paired", "Bonded"), Variant("b", True)))
        for service in await gatt.discover_services():
            if format_uuid(service.uuid) != GENERIC_ACCESS:
                service_path = f"{path}/service{service.handle:04x}"
                self._tree.add(
                    service_path,
                    SERVICE,
                    {"UUID": uuid_variant(service.uuid), "Device": Variant("o", path), "Primary": Variant("b", True)},
                )
                for characteristic in await gatt.discover_characteristics((), service):
                    await self._add_characteristic(service_path, characteristic, connection)

    async def _add_characteristic(self, service_path: str, characteristic: Any, connection: Connection) -> None:
        # BlueZ uses the handle of the declaration, Bumble that of the value.
        path = f"{service_path}/char{characteristic.handle - 1:04x}"
        self._characteristics[path] = characteristic
        self._tree.add(
            path,
            CHARACTERISTIC,
            {
                "UUID": uuid_variant(characteristic.uuid),
                "Service": Variant("o", service_path),
                "Flags": Variant("as", sorted(gatt_char_props_to_strs(characteristic.properties))),
                "Notifying": Variant("b", False),
                "MTU": Variant("q", connection.att_mtu),
            },
        )
        for descriptor in await connection.gatt_client.discover_descriptors(characteristic):
            descriptor_path = f"{path}/desc{descriptor.handle:04x}"
            owner = Variant("o", path)
            self._tree.add(descriptor_path, DESCRIPTOR, {"UUID": uuid_variant(descriptor.type), "Characteristic": owner})

    # Attributes

    async def _read_value(self, path: str, _body: list[Any]) -> Reply:
        characteristic = self._characteristics[path]
        value = bytes(await self._request(path, lambda gatt: gatt.read_value(characteristic)))
        self._tree.change(path, CHARACTERISTIC, {"Value": Variant("ay", value)})
        return "ay", [value]

    async def _write_value(self, path: str, body: list[Any]) -> Reply:
        value, options = body
        characteristic, request = self._characteristics[path], options["type"].value == "request"
        await self._request(path, lambda gatt: gatt.write_value(characteristic, bytes(value), with_response=request))
        return EMPTY_REPLY

    async def _start_notify(self, path: str, _body: list[Any]) -> Reply:
        remote, characteristic = self._remotes[_device_path(path)], self._characteristics[path]
        if path in remote.notifying:
            raise BlueZError("org.bluez.Error.InProgress", "Operation already in progress")
        if not {"notify", "indicate"} & set(self._tree.objects[path][CHARACTERISTIC]["Flags"].value):
            raise BlueZError("org.bluez.Error.NotSupported", "Operation is not supported")

        def deliver(value: bytes) -> None:
            self._tree.change(path, CHARACTERISTIC, {"Value": Variant("ay", bytes(value))})

        await self._request(path, lambda gatt: gatt.subscribe(characteristic, deliver))
        remote.notifying.add(path)
        self._tree.change(path, CHARACTERISTIC, {"Notifying": Variant("b", True)})
        return EMPTY_REPLY

    async def _stop_notify(self, path: str, _body: list[Any]) -> Reply:
        remote, characteristic = self._remotes[_device_path(path)], self._characteristics[path]
        if path not in remote.notifying:
            raise BlueZError(FAILED, "No notify session started")
        remote.notifying.remove(path)
        await self._request(path, lambda gatt: gatt.unsubscribe(characteristic, force=True))
        self._tree.change(path, CHARACTERISTIC, {"Notifying": Variant("b", False)})
        return EMPTY_REPLY

    async def _request(self, path: str, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Run a GATT operation; if the remote device requires encryption, pair and run it again, as the kernel does."""
        remote = self._remotes[_device_path(path)]
        connection = remote.connection
        if connection is None:
            raise BlueZError(FAILED, "Not connected")

        with _cancel_on_disconnection(remote):
            try:
                return await operation(connection.gatt_client)
            except ATT_Error as error:
                if error.error_code not in NEEDS_SECURITY or connection.is_encrypted:
                    raise
            await connection.pair()
            bonded = dict.fromkeys(("Paired", "Bonded"), Variant("b", True))
            self._tree.change(_device_path(path), DEVICE, bonded)
            return await operation(connection.gatt_client)


@contextmanager
def _cancel_on_disconnection(remote: RemoteDevice) -> Iterator[None]:
    """Cancel the task when the connection ends: Bumble would wait forever for the answer to its next request."""
    task = asyncio.current_task()
    assert task is not None
    remote.tasks.add(task)
    try:
        yield
    finally:
        remote.tasks.discard(task)


def _device_path(path: str) -> str:
    """Return the path of the device to which a service or characteristic belongs."""
    return "/".join(path.split("/")[: ADAPTER_PATH.count("/") + 2])


@asynccontextmanager
async def serve_bluez(device: Device, bus_address: str) -> AsyncIterator[FakeBlueZ]:
    """Serve `org.bluez` on the bus at this address, with a powered Bumble device as its adapter."""
    bus = await MessageBus(bus_address=bus_address).connect()
    async with asyncio.TaskGroup() as tasks:
        bluez = FakeBlueZ(Central(device), bus, tasks)
        try:
            await bluez.start()
            yield bluez
        finally:
            await bluez.stop()

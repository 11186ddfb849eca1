"""A fake BlueZ: `org.bluez` on a private D-Bus, backed by a Bumble device. bleak's Linux backend runs on it unmodified.

It answers the D-Bus calls of bleak 3.1 as bluetoothd 5.55 and later do (`doc/org.bluez.*.rst` and `src/gatt-client.c` of
BlueZ). It contains neither bluetoothd nor the kernel. It leaves out:

- more than one adapter; discovery sessions are not counted by client;
- the classic radio, and pairings that a remote device begins;
- `AcquireNotify`, `AcquireWrite` and access to descriptors, which are only listed;
- the cache of services of a device without a bond: their objects are removed at a disconnection;
- `InProgress` errors for simultaneous operations, and the removal of devices that no longer advertise.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from bleak.exc import BleakError
from bumble import hci
from bumble.att import ATT_Error
from bumble.core import BaseBumbleError, ProtocolError
from bumble.device import Advertisement, Connection, Device
from dbus_fast import Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

from gateway.radio.bumble_scanner import parse_advertisement
from gateway.radio.central import Central
from tests.bluez.bluez_values import DBUS_ERRORS, device_properties
from tests.bluez.dbus_objects import (
    ADAPTER,
    AGENT_MANAGER,
    BLUEZ,
    CHARACTERISTIC,
    DEVICE,
    EMPTY_REPLY,
    FAILED,
    OBJECT_MANAGER,
    PROPERTIES,
    SENDER,
    BlueZError,
    ObjectTree,
    Properties,
    Reply,
)
from tests.bluez.fake_agents import FakeAgents
from tests.bluez.fake_gatt import FakeGatt
from tests.bluez.remote_device import RemoteDevice

Method = Callable[[str, list[Any]], Coroutine[Any, Any, Reply]]
"""Receives the object's path and the message's body."""

ADAPTER_PATH: Final = "/org/bluez/hci0"
BONDED: Final = dict.fromkeys(("Paired", "Bonded"), Variant("b", True))

CONNECT_TIMEOUT_S: Final = 20.0
"""The kernel's timeout for one connect attempt (`conn_timeout` in `include/net/bluetooth/hci_core.h`)."""


class FakeBlueZ:
    """The fake BlueZ service; create it with `serve_bluez`."""

    def __init__(self, central: Central, bus: MessageBus, tasks: asyncio.TaskGroup) -> None:
        self._remotes: dict[str, RemoteDevice] = {}
        self._central = central
        self._bus = bus
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._tree = ObjectTree(self._send)
        self._agents = FakeAgents(bus)
        self._gatt = FakeGatt(self._tree, self._remotes, self._authenticate)
        self._discovery: AsyncExitStack | None = None
        self._methods: Mapping[tuple[str | None, str | None], Method] = {
            (OBJECT_MANAGER, "GetManagedObjects"): self._managed_objects,
            (ADAPTER, "SetDiscoveryFilter"): self._set_discovery_filter,
            (ADAPTER, "StartDiscovery"): self._start_discovery,
            (ADAPTER, "StopDiscovery"): self._stop_discovery,
            (ADAPTER, "RemoveDevice"): self._remove_device,
            (PROPERTIES, "Get"): self._get_property,
            (PROPERTIES, "Set"): self._set_property,
            (AGENT_MANAGER, "RegisterAgent"): self._register_agent,
            (AGENT_MANAGER, "RequestDefaultAgent"): self._request_default_agent,
            (DEVICE, "Connect"): self._connect,
            (DEVICE, "Disconnect"): self._disconnect,
            (DEVICE, "Pair"): self._pair,
            (DEVICE, "CancelPairing"): self._cancel_pairing,
            (CHARACTERISTIC, "ReadValue"): self._gatt.read_value,
            (CHARACTERISTIC, "WriteValue"): self._gatt.write_value,
            (CHARACTERISTIC, "StartNotify"): self._gatt.start_notify,
            (CHARACTERISTIC, "StopNotify"): self._gatt.stop_notify,
        }

    async def start(self) -> None:
        self._bus.add_message_handler(self._on_message)
        rule = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'"
        dbus = "org.freedesktop.DBus"
        await self._bus.call(Message(dbus, "/org/freedesktop/DBus", dbus, "AddMatch", signature="s", body=[rule]))
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
        self._tree.add("/org/bluez", AGENT_MANAGER, {})
        for key, _ in await self._central.keys.get_all():
            self._add_device(hci.Address(key), dict(BONDED))

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

    def remove_adapter(self) -> None:
        """Unplug the adapter. Its links end with it, and bluetoothd removes its objects."""
        for path in [*self._remotes, ADAPTER_PATH]:
            self._tree.remove(path)
        self._remotes.clear()

    # D-Bus messages

    def _on_message(self, message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            if message.member == "NameOwnerChanged" and not message.body[2]:
                self._spawn(self._gatt.forget_program(message.body[0]))
            return False
        self._spawn(self._answer(message))
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, message: Message) -> None:
        SENDER.set(message.sender or "")
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
        self._add_device(advertisement.address, advertised)

    def _add_device(self, address: hci.Address, properties: Properties) -> None:
        text: str = address.to_string(with_type_qualifier=False)
        path = f"{ADAPTER_PATH}/dev_{text.replace(':', '_')}"
        self._remotes[path] = RemoteDevice(address)
        known = {
            "Adapter": Variant("o", ADAPTER_PATH),
            "Address": Variant("s", text),
            "AddressType": Variant("s", "random"),
            "Alias": Variant("s", text.replace(":", "-")),
            **dict.fromkeys(("Connected", "ServicesResolved", "Paired", "Bonded"), Variant("b", False)),
        }
        self._tree.add(path, DEVICE, known | properties)

    async def _remove_device(self, _path: str, body: list[Any]) -> Reply:
        (path,) = body
        remote = self._remotes.get(path)
        if remote is None:
            raise BlueZError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        if await self._central.keys.get(str(remote.address)) is not None:
            await self._central.keys.delete(str(remote.address))
        if remote.connection is not None:
            await remote.connection.disconnect()
        self._gatt.forget(path)
        self._tree.remove(path)
        del self._remotes[path]
        return EMPTY_REPLY

    async def _get_property(self, path: str, body: list[Any]) -> Reply:
        interface, name = body
        return "v", [self._tree.objects[path][interface][name]]

    async def _set_property(self, path: str, body: list[Any]) -> Reply:
        interface, name, value = body
        if (interface, name) == (ADAPTER, "Powered") and not value.value:
            await self._stop_listening()
            for remote in self._remotes.values():
                if remote.connection is not None:
                    await remote.connection.disconnect()
        self._tree.change(path, interface, {name: value})
        return EMPTY_REPLY

    # Pairing

    async def _register_agent(self, _path: str, body: list[Any]) -> Reply:
        self._agents.register(SENDER.get(), *body)
        return EMPTY_REPLY

    async def _request_default_agent(self, _path: str, body: list[Any]) -> Reply:
        self._agents.make_default(SENDER.get(), *body)
        return EMPTY_REPLY

    async def _pair(self, path: str, _body: list[Any]) -> Reply:
        remote = self._remotes[path]
        if self._is_bonded(path):
            raise BlueZError("org.bluez.Error.AlreadyExists", "Already Exists")
        remote.pairing = asyncio.current_task()
        is_connected = remote.connection is not None
        try:
            connection = remote.connection or await self._establish(path)
            with remote.using_connection():
                await self._authenticate(path, connection, SENDER.get())
        except ProtocolError:
            if remote.connection is not None:
                await remote.connection.disconnect()
            raise BlueZError("org.bluez.Error.AuthenticationFailed", "Authentication Failed") from None
        finally:
            remote.pairing = None
        if not is_connected:
            self._spawn(self._resolve(path, connection))
        return EMPTY_REPLY

    async def _cancel_pairing(self, path: str, _body: list[Any]) -> Reply:
        remote = self._remotes[path]
        if remote.pairing is None:
            raise BlueZError("org.bluez.Error.DoesNotExist", "Does Not Exist")
        remote.pairing.cancel()
        return EMPTY_REPLY

    async def _authenticate(self, path: str, connection: Connection, sender: str = "") -> None:
        """Pair; the agent of `sender` is asked, or the default one."""
        device = self._central.device
        device.pairing_config_factory = lambda _connection: self._agents.pairing_config(sender, path)
        await connection.pair()
        self._tree.change(path, DEVICE, dict(BONDED))

    def _is_bonded(self, path: str) -> bool:
        return bool(self._tree.objects[path][DEVICE]["Bonded"].value)

    # Connections

    async def _connect(self, path: str, _body: list[Any]) -> Reply:
        connection = await self._establish(path)
        if self._is_bonded(path):
            try:
                with self._remotes[path].using_connection():
                    await connection.encrypt()
            except (
                hci.HCI_Error
            ):  # the link comes up, the encryption fails, the link ends, and this is all that a program hears
                await connection.disconnect()
                raise BlueZError(FAILED, "le-connection-abort-by-local") from None
        self._spawn(self._resolve(path, connection))
        return EMPTY_REPLY

    async def _establish(self, path: str) -> Connection:
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
        self._gatt.reconnect(path, connection)
        connection.once(connection.EVENT_DISCONNECTION, lambda _reason: self._on_disconnection(path))
        self._tree.change(path, DEVICE, {"Connected": Variant("b", True)})
        return connection

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
        if not self._is_bonded(path):
            self._gatt.forget(path)

    async def _resolve(self, path: str, connection: Connection) -> None:
        """Discover the services; disconnect if that fails."""
        try:
            with self._remotes[path].using_connection():
                await self._gatt.discover(path, connection)
        except (ATT_Error, BaseBumbleError, hci.HCI_Error):
            await connection.disconnect()
        except asyncio.CancelledError:
            return  # the connection was lost
        self._tree.change(path, DEVICE, {"ServicesResolved": Variant("b", True)})


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

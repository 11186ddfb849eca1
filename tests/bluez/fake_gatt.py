"""The GATT objects of the fake BlueZ: services, characteristics and descriptors of connected devices."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from bleak.assigned_numbers import gatt_char_props_to_strs
from bumble.att import ATT_Error
from bumble.core import BaseBumbleError
from bumble.device import Connection
from bumble.gatt import Characteristic
from dbus_fast import Variant

from gateway.radio.bumble_scanner import format_uuid
from tests.bluez.bluez_values import NEEDS_SECURITY, uuid_variant
from tests.bluez.dbus_objects import (
    CHARACTERISTIC,
    DESCRIPTOR,
    EMPTY_REPLY,
    FAILED,
    SENDER,
    SERVICE,
    BlueZError,
    ObjectTree,
    Properties,
    Reply,
)
from tests.bluez.remote_device import RemoteDevice

T = TypeVar("T")
Encrypt = Callable[[str, Connection], Coroutine[Any, Any, None]]

MTU: Final = 517
"""The MTU that BlueZ requests (`ExchangeMTU` in `main.conf`)."""
GENERIC_ACCESS: Final = "00001800-0000-1000-8000-00805f9b34fb"
"""The service that bluetoothd does not publish."""


class FakeGatt:
    """Discovers services and performs the requests of programs. `encrypt` pairs where a device requires it."""

    def __init__(self, tree: ObjectTree, remotes: dict[str, RemoteDevice], encrypt: Encrypt) -> None:
        self._tree, self.remotes, self._encrypt = tree, remotes, encrypt
        self._characteristics: dict[str, Any] = {}
        self._notify_clients: dict[str, dict[str, Callable[[bytes], None]]] = {}
        """For each characteristic the programs that subscribed to it, and what signals a value to each of them. They outlive a
        disconnection, as the objects of a bonded device do (`all_notify_clients` in `src/gatt-client.c` of BlueZ 5.87)."""

    def forget(self, device_path: str) -> None:
        """Remove the objects of a device: it has no bond, and its connection ended."""
        self._tree.remove_below(device_path)
        for path in [path for path in self._characteristics if path.startswith(f"{device_path}/")]:
            del self._characteristics[path]
            self._notify_clients.pop(path, None)

    def reconnect(self, device_path: str, connection: Connection) -> None:
        """Register all subscriptions to a device again, before anything else (`btd_gatt_client_connected`).

        Values are signalled although the descriptor has not been written yet (`notify_handler` in `src/shared/gatt-client.c`).
        """
        for path in self._subscribed_paths(device_path):
            for program in self._notify_clients[path]:
                self._register(path, program, connection)

    async def _write_configurations(self, device_path: str, connection: Connection) -> None:
        """Write the descriptors of the subscriptions that were registered again (`notify_data_write_ccc`)."""
        for path in self._subscribed_paths(device_path):
            characteristic, gatt = self._characteristics[path], connection.gatt_client
            try:
                await gatt.subscribe(characteristic)
            except ATT_Error:  # `register_notify_cb` drops the subscriptions, and the last one clears the descriptor
                for program in self._notify_clients.pop(path):
                    self.remotes[device_path].notifying.discard((path, program))
                await gatt.unsubscribe(characteristic, force=True)

    def _subscribed_paths(self, device_path: str) -> list[str]:
        return [path for path, programs in self._notify_clients.items() if programs and path.startswith(f"{device_path}/")]

    def _register(self, path: str, program: str, connection: Connection) -> None:
        """Signal a characteristic's values once for each program that subscribed (`notify_cb`)."""
        characteristic, gatt = self._characteristics[path], connection.gatt_client
        is_notified = bool(characteristic.properties & Characteristic.Properties.NOTIFY)
        subscribers = gatt.notification_subscribers if is_notified else gatt.indication_subscribers
        subscribers.setdefault(characteristic.handle, set()).add(self._notify_clients[path][program])
        self.remotes[_device_path(path)].notifying.add((path, program))

    async def forget_program(self, program: str) -> None:
        """Drop the subscriptions of a program that left the bus (`notify_client_disconnect`)."""
        for path in [path for path, programs in self._notify_clients.items() if program in programs]:
            with suppress(BlueZError, ATT_Error, BaseBumbleError, asyncio.CancelledError):  # the device went away as well
                await self._unregister(path, program)

    async def _unregister(self, path: str, program: str) -> None:
        deliver, remote = self._notify_clients[path].pop(program), self.remotes[_device_path(path)]
        remote.notifying.discard((path, program))
        if remote.connection is None:
            return
        if not self._notify_clients[path]:
            characteristic = self._characteristics[path]
            await self._request(path, lambda gatt: gatt.unsubscribe(characteristic, force=True))
        else:
            gatt, handle = remote.connection.gatt_client, self._characteristics[path].handle
            for subscribers in (gatt.notification_subscribers, gatt.indication_subscribers):
                subscribers.get(handle, set()).discard(deliver)

    async def discover(self, path: str, connection: Connection) -> None:
        gatt = connection.gatt_client
        await gatt.request_mtu(MTU)
        await self._write_configurations(path, connection)
        for service in await gatt.discover_services():
            if format_uuid(service.uuid) != GENERIC_ACCESS:
                service_path = f"{path}/service{service.handle:04x}"
                self._add(
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
        self._add(
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
            self._add(descriptor_path, DESCRIPTOR, {"UUID": uuid_variant(descriptor.type), "Characteristic": owner})

    def _add(self, path: str, interface: str, properties: Properties) -> None:
        """Add an object, unless it is known from an earlier connection."""
        if path not in self._tree.objects:
            self._tree.add(path, interface, properties)

    async def read_value(self, path: str, _body: list[Any]) -> Reply:
        characteristic = self._characteristics[path]
        value = bytes(await self._request(path, lambda gatt: gatt.read_value(characteristic)))
        self._tree.change(path, CHARACTERISTIC, {"Value": Variant("ay", value)})
        return "ay", [value]

    async def write_value(self, path: str, body: list[Any]) -> Reply:
        value, options = body
        characteristic, request = self._characteristics[path], options["type"].value == "request"
        await self._request(path, lambda gatt: gatt.write_value(characteristic, bytes(value), with_response=request))
        return EMPTY_REPLY

    async def start_notify(self, path: str, _body: list[Any]) -> Reply:
        """Subscribe the calling program, at once or at the next connection (`characteristic_start_notify`)."""
        remote, characteristic, program = self.remotes[_device_path(path)], self._characteristics[path], SENDER.get()
        programs = self._notify_clients.setdefault(path, {})
        if (path, program) in remote.notifying:
            return EMPTY_REPLY
        if program in programs:
            raise BlueZError("org.bluez.Error.InProgress", "Operation already in progress")
        if not {"notify", "indicate"} & set(self._tree.objects[path][CHARACTERISTIC]["Flags"].value):
            raise BlueZError("org.bluez.Error.NotSupported", "Operation is not supported")

        def deliver(value: bytes) -> None:
            self._tree.change(path, CHARACTERISTIC, {"Value": Variant("ay", bytes(value))})

        programs[program] = deliver
        if remote.connection is None:
            return EMPTY_REPLY
        self._register(path, program, remote.connection)
        if len(programs) == 1:
            try:
                await self._request(path, lambda gatt: gatt.subscribe(characteristic))
            except BaseException:
                programs.pop(program, None)
                remote.notifying.discard((path, program))
                raise
        self._tree.change(path, CHARACTERISTIC, {"Notifying": Variant("b", True)})
        return EMPTY_REPLY

    async def stop_notify(self, path: str, _body: list[Any]) -> Reply:
        if SENDER.get() not in self._notify_clients.get(path, {}):
            raise BlueZError(FAILED, "No notify session started")
        await self._unregister(path, SENDER.get())
        self._tree.change(path, CHARACTERISTIC, {"Notifying": Variant("b", False)})
        return EMPTY_REPLY

    async def _request(self, path: str, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Run a GATT operation; if the remote device requires encryption, pair and run it again, as the kernel does."""
        remote = self.remotes[_device_path(path)]
        connection = remote.connection
        if connection is None:
            raise BlueZError(FAILED, "Not connected")

        with remote.using_connection():
            try:
                return await operation(connection.gatt_client)
            except ATT_Error as error:
                if error.error_code not in NEEDS_SECURITY or connection.is_encrypted:
                    raise
            await self._encrypt(_device_path(path), connection)
            return await operation(connection.gatt_client)


def _device_path(path: str) -> str:
    """Return the path of the device to which a service or characteristic belongs."""
    return "/".join(path.split("/")[:5])

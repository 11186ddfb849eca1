"""The GATT objects of the fake BlueZ: services, characteristics and descriptors of connected devices."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from bleak.assigned_numbers import gatt_char_props_to_strs
from bumble.att import ATT_Error
from bumble.device import Connection
from dbus_fast import Variant

from gateway.radio.bumble_scanner import format_uuid
from tests.bluez.bluez_values import NEEDS_SECURITY, uuid_variant
from tests.bluez.dbus_objects import CHARACTERISTIC, DESCRIPTOR, EMPTY_REPLY, FAILED, SERVICE, BlueZError, ObjectTree, Reply
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

    def forget(self, device_path: str) -> None:
        """Remove the objects of a device whose connection ended."""
        self._tree.remove_below(device_path)
        self._characteristics = {
            path: proxy for path, proxy in self._characteristics.items() if not path.startswith(f"{device_path}/")
        }

    async def discover(self, path: str, connection: Connection) -> None:
        gatt = connection.gatt_client
        await gatt.request_mtu(MTU)
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
        remote, characteristic = self.remotes[_device_path(path)], self._characteristics[path]
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

    async def stop_notify(self, path: str, _body: list[Any]) -> Reply:
        remote, characteristic = self.remotes[_device_path(path)], self._characteristics[path]
        if path not in remote.notifying:
            raise BlueZError(FAILED, "No notify session started")
        remote.notifying.remove(path)
        await self._request(path, lambda gatt: gatt.unsubscribe(characteristic, force=True))
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

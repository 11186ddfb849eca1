"""Subscriptions on BlueZ that outlive a disconnection.

bluetoothd keeps what a program subscribed to while a bonded device is away (`src/gatt-client.c` of BlueZ 5.87:
`btd_gatt_client_disconnected` keeps `all_notify_clients`). At the next connection it passes values on before it has written a
descriptor or resolved a service (`btd_gatt_client_connected`; `notify_handler` in `src/shared/gatt-client.c`). It forgets the
subscriptions of a program that leaves the bus, and bleak opens a bus for each connection. So this uses the radio's own bus.

bluetoothd signals a value once for each program that subscribed to it (`notify_cb`), so bleak must not subscribe as well.
"""

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.exc import BleakDBusError, BleakError
from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from gateway.errors import RadioError
from gateway.radio.bluez_bus import BLUEZ, CHARACTERISTIC, DBUS, DEVICE, PROPERTIES, call, is_bonded, managed_objects
from gateway.radio.subscriptions import EarlyValues, OnValue, start_notify

_IN_PROGRESS: Final = "org.bluez.Error.InProgress"
"""The answer to `StartNotify` for a subscription that waits for its device."""


class BlueZSubscriptions:
    """See `subscriptions.Subscriptions`. Those to indications of bonded sensors are held on the bus of the radio."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._early = EarlyValues()
        self._held: dict[str, str] = {}
        """The device of each characteristic whose subscription is held, all by path."""
        bus.add_message_handler(self._on_message)

    def close(self) -> None:
        self._bus.remove_message_handler(self._on_message)

    async def prepare(self, device: BLEDevice, uuids: Collection[str]) -> None:
        path: str = device.details["path"]
        with suppress(BleakError, TimeoutError, RadioError):
            objects = await managed_objects(self._bus)
            if is_bonded(objects.get(path, {}).get(DEVICE, {})):
                for each, interfaces in objects.items():
                    found = interfaces.get(CHARACTERISTIC)
                    if found and each.startswith(f"{path}/") and found["UUID"] in uuids and "indicate" in found["Flags"]:
                        await self._hold(path, each)

    def listen(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        path = _path(characteristic)
        if path in self._held:
            self._early.listen(self._held[path], path, on_value)

    async def subscribe(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        path = _path(characteristic)
        if path in self._held:
            await self._start_notify(path)  # bluetoothd drops a subscription that the sensor refuses
        else:
            await start_notify(client, characteristic, on_value)

    async def end(self, device: BLEDevice) -> None:
        path: str = device.details["path"]
        if path in self._held.values():
            with suppress(BleakError, TimeoutError, RadioError):  # the reply comes after the last value
                await call(self._bus, path, PROPERTIES, "Get", "ss", [DEVICE, "Connected"])
        self._early.end(path)

    async def _hold(self, device: str, path: str) -> None:
        if path not in self._held:
            rule = f"type='signal',sender='{BLUEZ}',interface='{PROPERTIES}',path='{path}'"
            await call(self._bus, "/org/freedesktop/DBus", DBUS, "AddMatch", "s", [rule], destination=DBUS)
        self._held[path] = device
        try:
            await self._start_notify(path)
        except BaseException:
            del self._held[path]
            raise

    async def _start_notify(self, path: str) -> None:
        try:
            await call(self._bus, path, CHARACTERISTIC, "StartNotify")
        except BleakDBusError as error:
            if error.dbus_error != _IN_PROGRESS:
                raise

    def _on_message(self, message: Message) -> bool:
        """Take the values of the held subscriptions. No message is for this handler alone."""
        if message.message_type is MessageType.SIGNAL:
            match message.member, message.body:
                case "PropertiesChanged", [_, {"Value": value}, _] if device := self._held.get(message.path or ""):
                    self._early.put(device, message.path or "", bytes(value.value), is_indicated=True)
                case "InterfacesRemoved", [path, interfaces] if CHARACTERISTIC in interfaces:
                    self._held.pop(path, None)
        return False


def _path(characteristic: BleakGATTCharacteristic) -> str:
    path: str = characteristic.obj[0]
    return path

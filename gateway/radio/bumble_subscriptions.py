"""Subscriptions on a Bumble device."""

from collections.abc import Collection

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bumble import att
from bumble.device import Connection
from bumble.gatt_client import Client

from gateway.radio.bumble_address import format_address
from gateway.radio.subscriptions import EarlyValues, OnValue, start_notify


class KeepingClient(Client):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """Bumble's GATT client, which confirms a value without a subscriber and drops it. This one keeps it."""

    def __init__(self, connection: Connection, early: EarlyValues) -> None:
        super().__init__(connection)
        self._early = early
        self._device = format_address(connection.peer_address)
        early.begin(self._device)

    def on_att_handle_value_notification(self, notification: att.ATT_Handle_Value_Notification) -> None:
        self._keep(notification.attribute_handle, notification.attribute_value, is_indicated=False)
        super().on_att_handle_value_notification(notification)

    def on_att_handle_value_indication(self, indication: att.ATT_Handle_Value_Indication) -> None:
        self._keep(indication.attribute_handle, indication.attribute_value, is_indicated=True)
        super().on_att_handle_value_indication(indication)  # confirms it

    def _keep(self, handle: int, value: bytes, *, is_indicated: bool) -> None:
        if not (self.indication_subscribers if is_indicated else self.notification_subscribers).get(handle):
            self._early.put(self._device, str(handle), bytes(value), is_indicated=is_indicated)


class BumbleSubscriptions:
    """See `subscriptions.Subscriptions`. `early` is that of the Bumble device's `Central`."""

    def __init__(self, early: EarlyValues) -> None:
        self._early = early

    async def prepare(self, device: BLEDevice, uuids: Collection[str]) -> None:
        pass

    def listen(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        self._early.listen(client.address, str(characteristic.handle), on_value)

    async def subscribe(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        await start_notify(client, characteristic, on_value)

    async def end(self, device: BLEDevice) -> None:
        self._early.end(device.address)

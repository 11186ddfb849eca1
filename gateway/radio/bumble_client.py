"""bleak's client on a Bumble device."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Final, TypeVar

from bleak.args import SizedBuffer
from bleak.assigned_numbers import gatt_char_props_to_strs
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakError
from bumble import hci
from bumble.att import ATT_Error, ErrorCode
from bumble.device import Connection

from gateway.radio.bumble_scanner import format_uuid
from gateway.radio.central import Central

T = TypeVar("T")

MTU: Final = 517
"""The MTU that BlueZ requests: the longest attribute value, 512 octets, fits in one PDU."""

DEFAULT_MTU: Final = 23
"""The MTU before the exchange: Core 5.4, Vol 3, Part G, 5.2.1."""

CANCEL_TIMEOUT_S: Final = 0.2
"""A cancelled operation that has not ended after this time is cancelled again. An HCI command takes a few milliseconds."""

_NEEDS_SECURITY: Final = frozenset(
    {ErrorCode.INSUFFICIENT_AUTHENTICATION, ErrorCode.INSUFFICIENT_ENCRYPTION, ErrorCode.INSUFFICIENT_ENCRYPTION_KEY_SIZE}
)
"""ATT errors after which BlueZ pairs, or encrypts with an existing bond, and repeats the request."""


class BumbleClient(BaseBleakClient):
    """A bleak client backend that behaves like bleak's own for BlueZ.

    `bumble_backend.make_bumble_radio` creates it and sets `central`.
    """

    central: ClassVar[Central]

    def __init__(
        self,
        address_or_ble_device: BLEDevice | str,
        services: set[str] | None = None,
        *,
        disconnected_callback: Callable[[], None] | None,
        timeout: float,
        **_platform_arguments: Any,
    ) -> None:
        super().__init__(address_or_ble_device, disconnected_callback=disconnected_callback, timeout=timeout)
        device = address_or_ble_device if isinstance(address_or_ble_device, BLEDevice) else None
        self._name = device.name if device else None
        self._peer: hci.Address = device.details if device else hci.Address(self.address)
        self._service_filter = services
        self._connection: Connection | None = None
        self._disconnected: asyncio.Future[None]  # done when the current or last connection ended
        self._encryption_lock = asyncio.Lock()
        self._subscribers: dict[int, Callable[[bytes], None]] = {}

    @property
    def name(self) -> str:
        return self._name or self.address.replace(":", "-")

    @property
    def mtu_size(self) -> int:
        return self._connection.att_mtu if self._connection else DEFAULT_MTU

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def connect(self, pair: bool, **_kwargs: Any) -> None:
        if self._connection is not None:
            raise BleakError(f"connect {self.address}: already connected")
        with self.central.convert_errors(f"connect {self.address}", self.address):
            async with asyncio.timeout(self._timeout):
                connection = await self.central.connect(self._peer)
                self._connection = connection
                self._disconnected = asyncio.get_running_loop().create_future()
                connection.once(connection.EVENT_DISCONNECTION, self._on_disconnection)
                try:
                    await self._run_while_connected(self._prepare(connection, pair))
                except BaseException:
                    await self.disconnect()
                    raise

    async def _prepare(self, connection: Connection, pair: bool) -> None:
        if pair or await self._is_bonded():
            await self._encrypt()
        await connection.gatt_client.request_mtu(MTU)
        self.services = await self._discover(connection)

    def _on_disconnection(self, _reason: int) -> None:
        self._connection = None
        self.services = None
        self._subscribers.clear()
        self._disconnected.set_result(None)
        if self._disconnected_callback is not None:
            self._disconnected_callback()

    async def disconnect(self) -> None:
        if self._connection is not None:
            with self.central.convert_errors(f"disconnect {self.address}", self.address):
                await self._connection.disconnect()

    async def pair(self, *_args: Any, **_kwargs: Any) -> None:
        with self.central.convert_errors(f"pair {self.address}", self.address):
            await self._encrypt()

    async def unpair(self) -> None:
        if await self._is_bonded():
            await self.central.keys.delete(str(self._peer))
        await self.disconnect()

    async def _is_bonded(self) -> bool:
        return await self.central.keys.get(str(self._peer)) is not None

    async def _encrypt(self) -> None:
        """Encrypt the connection, with the existing bond or a new one."""
        async with self._encryption_lock:
            connection = self._require_connection()
            if connection.is_encrypted:
                return
            if await self._is_bonded():
                await connection.encrypt()
            else:
                await connection.pair()

    async def _run_while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and cancel it when the connection ends: Bumble would wait forever for the peer's answer."""
        task = asyncio.ensure_future(work)
        futures: set[asyncio.Future[Any]] = {task, self._disconnected}
        try:
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        finally:
            while not task.done():  # before Python 3.12, `wait_for` may swallow a cancellation that coincides with its result
                task.cancel()
                await asyncio.wait({task}, timeout=CANCEL_TIMEOUT_S)
        return task.result()

    def _require_connection(self) -> Connection:
        if self._connection is None:
            raise BleakError(f"{self.address} is not connected")
        return self._connection

    async def _discover(self, connection: Connection) -> BleakGATTServiceCollection:
        gatt = connection.gatt_client
        collection = BleakGATTServiceCollection()
        for bumble_service in await gatt.discover_services():
            if self._service_filter and format_uuid(bumble_service.uuid) not in self._service_filter:
                continue
            service = BleakGATTService(bumble_service, bumble_service.handle, format_uuid(bumble_service.uuid))
            collection.add_service(service)
            for found in await gatt.discover_characteristics((), bumble_service):
                properties = list(gatt_char_props_to_strs(found.properties))
                characteristic = BleakGATTCharacteristic(
                    found, found.handle, format_uuid(found.uuid), properties, lambda: self.mtu_size - 3, service
                )
                collection.add_characteristic(characteristic)
                for descriptor in await gatt.discover_descriptors(found):
                    uuid = format_uuid(descriptor.type)
                    collection.add_descriptor(BleakGATTDescriptor(descriptor, descriptor.handle, uuid, characteristic))
        return collection

    async def _request(self, action: str, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Run one GATT operation; convert Bumble's errors to bleak's."""
        with self.central.convert_errors(f"{action} of {self.address}", self.address):
            connection = self._require_connection()
            return await self._run_while_connected(self._retry_encrypted(connection, operation))

    async def _retry_encrypted(self, connection: Connection, operation: Callable[[Any], Awaitable[T]]) -> T:
        """Run an operation; if the peer requires encryption, encrypt the connection and run it again."""
        try:
            return await operation(connection.gatt_client)
        except ATT_Error as error:
            if error.error_code not in _NEEDS_SECURITY or connection.is_encrypted:
                raise
        await self._encrypt()
        return await operation(connection.gatt_client)

    async def read_gatt_char(
        self, characteristic: BleakGATTCharacteristic, *, use_cached: bool = False, **_kwargs: Any
    ) -> bytearray:
        return bytearray(await self._request(f"read {characteristic.uuid}", lambda gatt: gatt.read_value(characteristic.obj)))

    async def read_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, *, use_cached: bool = False, **_kwargs: Any
    ) -> bytearray:
        return bytearray(await self._request(f"read {descriptor.uuid}", lambda gatt: gatt.read_value(descriptor.obj)))

    async def write_gatt_char(self, characteristic: BleakGATTCharacteristic, data: SizedBuffer, response: bool) -> None:
        value = bytes(data)
        await self._request(
            f"write {characteristic.uuid}", lambda gatt: gatt.write_value(characteristic.obj, value, with_response=response)
        )

    async def write_gatt_descriptor(self, descriptor: BleakGATTDescriptor, data: SizedBuffer) -> None:
        value = bytes(data)
        await self._request(
            f"write {descriptor.uuid}", lambda gatt: gatt.write_value(descriptor.obj, value, with_response=True)
        )

    async def start_notify(self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **_kwargs: Any) -> None:
        if not {"notify", "indicate"} & set(characteristic.properties):
            raise BleakError(f"{characteristic.uuid} of {self.address} neither notifies nor indicates")
        if characteristic.handle in self._subscribers:
            raise BleakError(f"{characteristic.uuid} of {self.address} already notifies: stop_notify first")

        def deliver(value: bytes) -> None:
            callback(bytearray(value))

        # If encryption is required, `_request` subscribes twice. Bumble also keeps the refused subscriber, in a set: the same
        # `deliver` is then still called only once for each value.
        self._subscribers[characteristic.handle] = deliver
        try:
            await self._request(f"subscribe to {characteristic.uuid}", lambda gatt: gatt.subscribe(characteristic.obj, deliver))
        except BaseException:
            self._drop_subscriber(characteristic)
            raise

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        if characteristic.handle not in self._subscribers:
            raise BleakError(f"{characteristic.uuid} of {self.address} does not notify: start_notify first")
        self._drop_subscriber(characteristic)
        await self._request(
            f"unsubscribe from {characteristic.uuid}", lambda gatt: gatt.unsubscribe(characteristic.obj, force=True)
        )

    def _drop_subscriber(self, characteristic: BleakGATTCharacteristic) -> None:
        self._subscribers.pop(characteristic.handle, None)
        if self._connection is not None:
            gatt = self._connection.gatt_client
            gatt.notification_subscribers.pop(characteristic.handle, None)
            gatt.indication_subscribers.pop(characteristic.handle, None)

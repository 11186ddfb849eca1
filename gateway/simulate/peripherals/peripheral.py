"""What all emulated sensors have in common: advertising, connections, bonds that keep subscriptions, and what was sent.

All timing uses the event loop's clock, so the sensors also run on virtual time.
"""

import asyncio
import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, TypedDict

from bumble.core import BaseBumbleError
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service
from bumble.transport.common import TransportLostError

from gateway.errors import RadioError
from gateway.radio.bumble_address import format_address
from gateway.simulate.peripherals.pairing import Pairing
from gateway.simulate.peripherals.sent_values import SentValue, SentValues

log = logging.getLogger(__name__)

BASE_UUID_END: Final = "-0000-1000-8000-00805F9B34FB"
"""The end of the long form of a number of the Bluetooth SIG: Core 5.4, vol 3, part B, 2.5.1."""

OnEvent = Callable[[Mapping[str, Any]], None]
"""Receives one event of a sensor, ready for JSON."""

NOT_SUBSCRIBED: Final = bytes(2)
_TIMER_SLACK_S: Final = 0.001
"""asyncio may fire a timer before its time, by the resolution of the clock."""
_FLOOD_BATCH: Final = 20
"""Values that a flooding sensor hands to the radio before others may run."""


def ignore_event(_event: Mapping[str, Any]) -> None:
    """Do nothing with an event."""


class BondedSubscriptions:
    """The subscriptions of bonded hubs, which a sensor keeps over disconnections (Core 5.4, Vol 3, Part G, 3.3.3.3)."""

    def __init__(self, path: Path | None = None) -> None:
        """They are stored in the JSON file `path`, or in memory."""
        self._path = path
        self._by_peer: dict[str, dict[str, str]] = {}
        if path is not None and path.exists():
            self._by_peer = json.loads(path.read_text(encoding="utf-8"))

    def save(self, peer: str, configurations: Mapping[int, bytes]) -> None:
        """Keep the values of Client Characteristic Configuration by the handle of their characteristic."""
        self._by_peer[peer] = {str(handle): value.hex() for handle, value in configurations.items()}
        self._write()

    def load(self, peer: str) -> dict[int, bytes]:
        return {int(handle): bytes.fromhex(value) for handle, value in self._by_peer.get(peer, {}).items()}

    def forget(self, peer: str | None = None) -> None:
        """Forget those of one hub, or all."""
        if peer is None:
            self._by_peer.clear()
        else:
            self._by_peer.pop(peer, None)
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            self._path.write_text(json.dumps(self._by_peer), encoding="utf-8")


class PeripheralOptions(TypedDict, total=False):
    """What the constructor of every emulated sensor takes: `Peripheral` has the defaults."""

    on_event: OnEvent
    subscriptions: BondedSubscriptions


class Peripheral:
    """A sensor on one Bumble device. It serves one connection at a time.

    It advertises while it is awake and has no connection. A subclass adds its services, and overrides `serve`, which runs
    during each connection, and `work`, which runs all the time.
    """

    def __init__(
        self, device: Device, *, on_event: OnEvent = ignore_event, subscriptions: BondedSubscriptions | None = None
    ) -> None:
        """`device` is powered on or about to be. `pairing` says how it pairs."""
        self.device = device
        self.pairing = Pairing()
        device.pairing_config_factory = self.pairing.make_config
        self.sent = SentValues()
        self.connection: Connection | None = None
        self._on_event = on_event
        self._subscriptions = subscriptions or BondedSubscriptions()
        self._changed = asyncio.Event()
        self._advertising_lock = asyncio.Lock()
        self._radio_lost = asyncio.Event()
        self._awake_until_s = 0.0
        self._drops_left = 0
        device.gatt_server.on(device.gatt_server.EVENT_CHARACTERISTIC_SUBSCRIPTION, lambda *_: self.notice_change())

    @property
    def address(self) -> str:
        return format_address(self.device.random_address)

    def add_services(self, services: list[Service], advertising_data: bytes) -> None:
        """Publish services and set the advertisement. Writes to them are recorded in `sent.writes`."""
        self.device.add_services(services)
        self.device.advertising_data = advertising_data
        for characteristic in (each for service in services for each in service.characteristics):
            uuid = format_uuid(characteristic)
            characteristic.on(
                Characteristic.EVENT_WRITE, lambda _connection, value, uuid=uuid: self.sent.writes.append((uuid, bytes(value)))
            )

    async def run(self) -> NoReturn:
        """Advertise and serve connections until cancelled.

        Raises:
            RadioError: the radio was lost.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self.device.on(Device.EVENT_FLUSH, self._radio_lost.set)
                self.device.on(Device.EVENT_CONNECTION, lambda connection: self._on_connection(connection, tasks))
                tasks.create_task(self._advertise())
                tasks.create_task(self.work())
                tasks.create_task(self._watch_radio())
        except* TransportLostError:
            log.debug("radio lost")
        raise RadioError(f"{self.device.name} lost its radio")

    async def serve(self) -> None:
        """Do what the sensor does during a connection. Cancelled at its end."""

    async def work(self) -> None:
        """Do what the sensor does all the time, connected or not."""

    def wake(self, seconds: float = math.inf) -> None:
        """Advertise for so many seconds from now on, as after a press of a button."""
        self._awake_until_s = max(self._awake_until_s, now_s() + seconds)
        self.notice_change()
        if seconds < math.inf:
            asyncio.get_running_loop().call_later(seconds + _TIMER_SLACK_S, self.notice_change)

    def sleep(self) -> None:
        """Stop advertising, at the latest after the current connection."""
        self._awake_until_s = 0.0
        self.notice_change()

    async def advertise_data(self, advertising_data: bytes) -> None:
        """Change the advertisement, now and later."""
        async with self._advertising_lock:
            self.device.advertising_data = advertising_data
            advertising_set = self.device.legacy_advertising_set
            if advertising_set is not None and advertising_set.enabled:
                await advertising_set.set_advertising_data(advertising_data)

    async def forget_bond(self) -> None:
        """Fault: lose all bonds. The next hub that encrypts with its old key is told that the key is missing (HCI 0x06)."""
        if self.device.keystore is not None:
            await self.device.keystore.delete_all()
        self._subscriptions.forget()

    def indicate_then_drop(self, indications: int = 1) -> None:
        """Fault: at the next indications, drop the link without waiting for the confirmation."""
        self._drops_left = indications

    async def flood(self, values: int, payload: bytes = bytes(20)) -> None:
        """Fault: notify a meaningless value so many times, as fast as it goes, on everything that the hub subscribed to."""
        services = self.device.gatt_server.services
        for number in range(values):
            for characteristic in (each for service in services for each in service.characteristics):
                if characteristic.properties & Characteristic.Properties.NOTIFY:
                    await self.notify(characteristic, payload)
            if number % _FLOOD_BATCH == 0:
                await asyncio.sleep(0)

    def is_subscribed(self, characteristic: Characteristic[bytes]) -> bool:
        """Whether the connected hub has subscribed to it, in this connection or, if bonded, in an earlier one."""
        if self.connection is None:
            return False
        return bool(self.device.gatt_server.read_cccd(self.connection, characteristic) != NOT_SUBSCRIBED)

    @property
    def is_awake(self) -> bool:
        """Whether it advertises, or would without a connection."""
        return self._awake_until_s > now_s()

    @property
    def is_encrypted(self) -> bool:
        return self.connection is not None and bool(self.connection.is_encrypted)

    async def notify(self, characteristic: Characteristic[bytes], payload: bytes) -> None:
        """Send a value if the hub has subscribed to it; do nothing otherwise."""
        if self.connection is not None and self.is_subscribed(characteristic):
            self._record(characteristic, payload, is_indication=False)
            await self.device.notify_subscriber(self.connection, characteristic, payload)

    async def indicate(self, characteristic: Characteristic[bytes], payload: bytes) -> bool:
        """Send a value and wait for the confirmation. Return whether it came; if not, the link is dropped."""
        connection = self.connection
        if connection is None or not self.is_subscribed(characteristic):
            return False
        value = self._record(characteristic, payload, is_indication=True)
        confirmation = asyncio.ensure_future(self.device.indicate_subscriber(connection, characteristic, payload))
        confirmation.add_done_callback(lambda _: self.notice_change())
        try:
            if self._drops_left:
                self._drops_left -= 1
                await asyncio.sleep(0)  # the indication leaves first
            else:
                await self.wait_until(lambda: confirmation.done() or self.connection is not connection)
        finally:
            is_confirmed = confirmation.done() and not confirmation.cancelled() and confirmation.exception() is None
            confirmation.cancel()
        if is_confirmed:
            value.confirmed_s = now_s()
            self._on_event({"event": "confirmed", "characteristic": value.characteristic, "payload": payload.hex()})
        else:
            log.info("%s: an indication was not confirmed: disconnecting", self.device.name)
            await self.hang_up()
        return is_confirmed

    async def hang_up(self) -> None:
        """Disconnect, as a spot device does when it has sent everything."""
        if self.connection is not None:
            with suppress(BaseBumbleError):
                await self.connection.disconnect()

    async def wait_until(self, is_true: Callable[[], bool], timeout_s: float = math.inf) -> bool:
        """Wait until a condition that depends on connection, encryption, subscriptions or wakefulness is true.

        Return whether it became true in time.
        """
        deadline_s = now_s() + timeout_s
        while not is_true():
            if (left_s := deadline_s - now_s()) <= 0:
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if left_s == math.inf else left_s):
                    await self._changed.wait()
        return True

    def notice_change(self) -> None:
        """Let everyone who waits in `wait_until` check the condition again."""
        self._changed.set()

    def _record(self, characteristic: Characteristic[bytes], payload: bytes, *, is_indication: bool) -> SentValue:
        """Record a value before it is sent: what the hub has received is never more than what is recorded."""
        value = SentValue(now_s(), format_uuid(characteristic), payload, is_indication)
        self.sent.values.append(value)
        self._on_event({"event": "sent", "characteristic": value.characteristic, "payload": payload.hex()})
        return value

    async def _watch_radio(self) -> NoReturn:
        await self._radio_lost.wait()
        raise TransportLostError("the device was flushed")

    async def _advertise(self) -> NoReturn:
        """Advertise while awake, and again after each disconnection: a connection stops a controller's advertising."""
        while True:
            await self.wait_until(lambda: self.is_awake and self.connection is None)
            async with self._advertising_lock:
                await self.device.start_advertising()
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError  # Bumble swallows a cancellation while it waits for its controller
            self._on_event({"event": "advertising"})
            await self.wait_until(lambda: self.connection is not None or not self.is_awake)
            if self.connection is None:
                async with self._advertising_lock:
                    await self.device.stop_advertising()

    def _on_connection(self, connection: Connection, tasks: asyncio.TaskGroup) -> None:
        self.connection = connection
        serving = tasks.create_task(self.serve())
        self._on_event({"event": "connected"})
        self.notice_change()
        peer = str(connection.peer_address)

        def on_encryption() -> None:
            if connection.is_encrypted:
                configurations = self.device.gatt_server.subscribers.setdefault(connection, {})
                configurations.update(self._subscriptions.load(peer) | configurations)
                self.notice_change()

        def on_disconnection(_reason: int) -> None:
            serving.cancel()
            self.connection = None
            if connection.is_encrypted:  # so it has a bond: every pairing makes one
                self._subscriptions.save(peer, self.device.gatt_server.subscribers.get(connection, {}))
            self._on_event({"event": "disconnected"})
            self.notice_change()

        connection.on(Connection.EVENT_CONNECTION_ENCRYPTION_CHANGE, on_encryption)
        connection.on(Connection.EVENT_PAIRING_START, lambda: self._subscriptions.forget(peer))
        connection.on(Connection.EVENT_DISCONNECTION, on_disconnection)


def format_uuid(characteristic: Characteristic[bytes]) -> str:
    """Return the UUID of a characteristic in capitals: 4 digits for a number of the Bluetooth SIG, else with hyphens."""
    text: str = characteristic.uuid.to_hex_str("-").upper()
    # Bumble returns an equal UUID that somebody made before, which may be in the long form.
    return text[4:8] if text.startswith("0000") and text.endswith(BASE_UUID_END) else text


def now_s() -> float:
    """Return the event loop's time."""
    return asyncio.get_running_loop().time()


async def sleep_until(loop_s: float) -> None:
    await asyncio.sleep(loop_s - now_s())

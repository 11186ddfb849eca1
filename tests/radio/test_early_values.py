"""Values that come before anybody listens: kept in order, handed over once, and dropped at the end."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from bleak.backends.device import BLEDevice
from dbus_fast import Message, MessageType, Variant

from gateway import virtual_time
from gateway.radio.bluez_bus import PROPERTIES
from gateway.radio.bluez_subscriptions import BlueZSubscriptions
from gateway.radio.subscriptions import EARLY_LIMIT, EarlyValues

SENSOR, OTHER, RESULT, RATE = "C0:DE:00:00:00:01", "C0:DE:00:00:00:02", "12", "15"
DEVICE = "/org/bluez/hci0/dev_C0_DE_00_00_00_01"
CHARACTERISTIC = f"{DEVICE}/service0010/char0012"
MEASUREMENT = "00002a35-0000-1000-8000-00805f9b34fb"


def test_kept_values_come_in_order_with_their_age_and_before_later_ones() -> None:
    async def main() -> None:
        early, received = EarlyValues(), list[tuple[bytes, float]]()
        for payload in (b"first", b"second"):
            early.put(SENSOR, RESULT, payload, is_indicated=True)
            await asyncio.sleep(1.5)
        early.put(SENSOR, RATE, b"of another characteristic", is_indicated=False)
        early.put(OTHER, RESULT, b"of another sensor", is_indicated=True)
        early.listen(SENSOR, RESULT, lambda payload, age_s: received.append((payload, age_s)))
        early.put(SENSOR, RESULT, b"third", is_indicated=True)
        assert received == [(b"first", 3.0), (b"second", 1.5), (b"third", 0.0)]
        early.listen(SENSOR, RESULT, lambda payload, age_s: received.append((payload, age_s)))
        assert len(received) == 3

    virtual_time.run(main())


def test_no_more_than_the_limit_is_kept() -> None:
    async def main() -> None:
        early, received = EarlyValues(), list[bytes]()
        for number in range(EARLY_LIMIT + 10):
            early.put(SENSOR, RESULT, bytes([number % 256]), is_indicated=True)
        early.listen(SENSOR, RESULT, lambda payload, _age_s: received.append(payload))
        assert received == [bytes([number % 256]) for number in range(EARLY_LIMIT)]

    virtual_time.run(main())


def test_indications_of_a_failed_connection_are_kept_for_the_next_one_and_dropped_at_its_end() -> None:
    async def main() -> None:
        early, received = EarlyValues(), list[bytes]()
        early.put(SENSOR, RESULT, b"confirmed", is_indicated=True)
        early.put(SENSOR, RATE, b"not confirmed", is_indicated=False)
        early.begin(SENSOR)
        for characteristic in (RESULT, RATE):
            early.listen(SENSOR, characteristic, lambda payload, _age_s: received.append(payload))
        assert received == [b"confirmed"]
        early.put(SENSOR, "99", b"nobody wants this", is_indicated=True)
        early.end(SENSOR)
        early.put(SENSOR, RESULT, b"of the next connection", is_indicated=True)
        for characteristic in (RESULT, "99"):
            early.listen(SENSOR, characteristic, lambda payload, _age_s: received.append(payload))
        assert received == [b"confirmed", b"of the next connection"]

    virtual_time.run(main())


class ScriptedBus:
    """A message bus with one bonded sensor, whose last value comes before the answer to the last call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._handlers: list[Callable[[Message], bool]] = []

    def add_message_handler(self, handler: Callable[[Message], bool]) -> None:
        self._handlers.append(handler)

    def send_value(self, value: bytes) -> None:
        body = ["org.bluez.GattCharacteristic1", {"Value": Variant("ay", value)}, []]
        for handler in self._handlers:
            handler(
                Message(
                    None, CHARACTERISTIC, PROPERTIES, "PropertiesChanged", MessageType.SIGNAL, signature="sa{sv}as", body=body
                )
            )

    async def call(self, message: Message) -> Any:
        self.calls.append(message.member or "")
        body: list[Any] = []
        if message.member == "GetManagedObjects":
            found = {"UUID": Variant("s", MEASUREMENT), "Flags": Variant("as", ["indicate"])}
            device = {"Bonded": Variant("b", True)}
            body = [{DEVICE: {"org.bluez.Device1": device}, CHARACTERISTIC: {"org.bluez.GattCharacteristic1": found}}]
        if message.member == "Get":
            self.send_value(b"the last one")
            body = [Variant("b", False)]
        return SimpleNamespace(message_type=MessageType.METHOD_RETURN, body=body)


def test_bluez_hands_over_a_value_that_comes_after_the_disconnection_was_noticed() -> None:
    async def main() -> None:
        bus: Any = ScriptedBus()
        client: Any = None
        characteristic: Any = SimpleNamespace(obj=(CHARACTERISTIC, {}))
        subscriptions, received = BlueZSubscriptions(bus), list[bytes]()
        device = BLEDevice(SENSOR, "Cuff", {"path": DEVICE})
        bus.send_value(b"before anything is held")
        await subscriptions.prepare(device, {MEASUREMENT})
        bus.send_value(b"an early one")
        subscriptions.listen(client, characteristic, lambda payload, _age_s: received.append(payload))
        await subscriptions.end(device)
        bus.send_value(b"of the next connection")
        assert received == [b"an early one", b"the last one"]
        assert bus.calls == ["GetManagedObjects", "AddMatch", "StartNotify", "Get"]

    virtual_time.run(main())

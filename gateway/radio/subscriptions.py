"""Subscriptions that take a sensor's values from the first moment of a connection.

A bonded sensor remembers what the hub subscribed to (Core 5.4, Vol 3, Part G, 3.3.3.3). A cuff indicates its results as soon as
the link is encrypted, the Bluetooth stack confirms them at once, and the cuff forgets them: before the hub knows the services.
Such early values are kept until somebody listens.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice

OnValue = Callable[[bytes, float], None]
"""Receives a value and its age in seconds."""

EARLY_LIMIT: Final = 512
"""Early values that are kept of one characteristic: more than the memory of any cuff, which has at most 200 results."""


class Subscriptions(Protocol):
    """How one radio subscribes. Every value reaches one `OnValue` of its characteristic, once and in order."""

    async def prepare(self, device: BLEDevice, uuids: Collection[str]) -> None:
        """Before a connect: have the values of these characteristics taken from its first moment. Never fails."""
        ...

    def listen(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        """Hand over the values that came before, and from now on those that come without a subscription."""
        ...

    async def subscribe(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        """Subscribe. `on_value` is the one that listens.

        Raises:
            BleakError, TimeoutError: the subscription failed.
        """
        ...

    async def end(self, device: BLEDevice) -> None:
        """After a connection: hand over what the stack still holds, and forget the listeners. Never fails."""
        ...


class PlainSubscriptions:
    """Those of bleak's backends on macOS and Windows: nothing is kept."""

    async def prepare(self, device: BLEDevice, uuids: Collection[str]) -> None:
        pass

    def listen(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        pass

    async def subscribe(self, client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
        await start_notify(client, characteristic, on_value)

    async def end(self, device: BLEDevice) -> None:
        pass


async def start_notify(client: BleakClient, characteristic: BleakGATTCharacteristic, on_value: OnValue) -> None:
    """Subscribe with bleak. Raises as it does."""
    await client.start_notify(characteristic, lambda _characteristic, value: on_value(bytes(value), 0.0))


@dataclass(frozen=True, slots=True)
class _EarlyValue:
    payload: bytes
    arrived_s: float
    is_indicated: bool


class EarlyValues:
    """The values of one radio that came without a subscription. Devices and characteristics have any names."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, defaultdict[str, list[_EarlyValue]]] = defaultdict(lambda: defaultdict(list))
        self._listeners: defaultdict[str, dict[str, OnValue]] = defaultdict(dict)

    def begin(self, device: str) -> None:
        """At the start of a connection: of one that failed before, only indications are still of use."""
        for characteristic, values in self._kept[device].items():
            self._kept[device][characteristic] = [value for value in values if value.is_indicated]

    def put(self, device: str, characteristic: str, payload: bytes, *, is_indicated: bool) -> None:
        """Hand a value to its listener, or keep it until there is one."""
        listener, values = self._listeners[device].get(characteristic), self._kept[device][characteristic]
        if listener is not None:
            listener(payload, 0.0)
        elif len(values) < EARLY_LIMIT:
            values.append(_EarlyValue(payload, _now_s(), is_indicated))

    def listen(self, device: str, characteristic: str, on_value: OnValue) -> None:
        """Hand over the kept values of a characteristic, and the later ones as they come."""
        for value in self._kept[device].pop(characteristic, ()):
            on_value(value.payload, _now_s() - value.arrived_s)
        self._listeners[device][characteristic] = on_value

    def end(self, device: str) -> None:
        """Forget the listeners to a device, and its values that nobody wanted."""
        self._kept.pop(device, None)
        self._listeners.pop(device, None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()

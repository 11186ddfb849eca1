"""The life of a spot device: it wakes for a result, indicates what the hub has not confirmed, and disconnects by itself."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Unpack

from bumble.device import Device
from bumble.gatt import Characteristic

from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions, now_s

ADVERTISING_WINDOW_S: Final = 30.0
"""How long a cuff or a scale advertises after a result or a press of its button: 20 to 60 s."""
PATIENCE_S: Final = 5.0
"""How long it waits for encryption and subscription before it drops the link: from 1 s (Beurer BM48) to some 10 s."""
LINGER_S: Final = 2.0
"""How long it stays connected after the last confirmation: cuffs leave within 3 s."""


@dataclass(slots=True)
class StoredResult:
    """One result in the device's memory: the values that are indicated for it, in order, and whether all were confirmed.

    `measured_s` is the event loop's time of the measurement.
    """

    values: Sequence[tuple[Characteristic[bytes], bytes]]
    is_confirmed: bool = False
    measured_s: float = field(default_factory=now_s)


class SpotPeripheral(Peripheral):
    """A spot device. A subclass encodes results and passes them to `keep`."""

    patience_s: float = PATIENCE_S
    linger_s: float = LINGER_S
    needs_encryption: bool = True

    def __init__(self, device: Device, **options: Unpack[PeripheralOptions]) -> None:
        super().__init__(device, **options)
        self.memory: list[StoredResult] = []
        self._is_off = False

    def keep(self, values: Sequence[tuple[Characteristic[bytes], bytes]]) -> StoredResult:
        """Store a result. It is sent in this connection if there is one, else at the next."""
        result = StoredResult(values)
        self.memory.append(result)
        self.notice_change()
        return result

    def press_button(self) -> None:
        """Advertise for some time, as when the user presses the Bluetooth button to transfer again."""
        self.wake(ADVERTISING_WINDOW_S)

    def switch_off(self) -> None:
        """Drop the link, and advertise no more until the next result or press of the button."""
        self._is_off = True
        self.sleep()

    def is_ready(self) -> bool:
        """Whether the connected hub may receive results now."""
        needed = {characteristic for result in self.memory for characteristic, _ in result.values}
        return self.is_encrypted >= self.needs_encryption and any(map(self.is_subscribed, needed))

    def results_to_send(self) -> list[StoredResult]:
        """Return the results to indicate when a hub is ready, in the order of sending."""
        return self.unconfirmed()

    def unconfirmed(self) -> list[StoredResult]:
        """Return the results that this hub may have and that no hub has confirmed, oldest first."""
        return [result for result in self.memory if not result.is_confirmed]

    async def serve(self) -> None:
        """Ask for encryption, send everything to a hub that is ready in time, then disconnect and switch off."""
        self._is_off = False
        if self.needs_encryption and self.connection is not None:
            self.device.request_pairing(self.connection)
        await self.wait_until(lambda: self._is_off or self.is_ready(), self.patience_s)
        if self.is_ready() and not self._is_off:
            await self.prepare()
            to_send = self.results_to_send()
            while to_send:
                for result in to_send:
                    await self._send(result)
                await self.wait_until(lambda: bool(self.unconfirmed()), self.linger_s)
                to_send = self.unconfirmed()
            self.sleep()
        await self.hang_up()

    async def prepare(self) -> None:
        """Do what the device does between the last subscription and the first indication: nothing, or settle."""
        await asyncio.sleep(0)

    def values_of(self, result: StoredResult) -> Sequence[tuple[Characteristic[bytes], bytes]]:
        """Return what is indicated for a result, in order."""
        return result.values

    async def _send(self, result: StoredResult) -> None:
        """Indicate the values of a result whose characteristic the hub has subscribed to."""
        for characteristic, payload in self.values_of(result):
            if self.is_subscribed(characteristic) and not await self.indicate(characteristic, payload):
                return
        result.is_confirmed = True

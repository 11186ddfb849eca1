"""The two sides of a pairing: the person at the hub, and the sensor."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from bumble.pairing import PairingConfig, PairingDelegate

PASSKEY = 123_456
NOTHING = PairingDelegate.NO_OUTPUT_NO_INPUT
DISPLAY = PairingDelegate.DISPLAY_OUTPUT_ONLY
KEYBOARD = PairingDelegate.KEYBOARD_INPUT_ONLY
YES_NO = PairingDelegate.DISPLAY_OUTPUT_AND_YES_NO_INPUT


@dataclass
class Answers:
    """A person with prepared answers; `passkey` None cancels."""

    passkey: int | None = PASSKEY
    is_equal: bool = True
    shown: list[int] = field(default_factory=list)
    compared: list[int] = field(default_factory=list)
    asked: int = 0

    async def enter_passkey(self) -> int | None:
        self.asked += 1
        return self.passkey

    async def show_passkey(self, passkey: int) -> None:
        self.shown.append(passkey)

    async def confirm_number(self, number: int) -> bool:
        self.compared.append(number)
        return self.is_equal


class AbsentPerson(Answers):
    """Never answers; `cancelled` counts the questions that were withdrawn."""

    cancelled = 0

    async def enter_passkey(self) -> int | None:
        self.asked += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return None


class SensorDelegate(PairingDelegate):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """The sensor's side: shows `PASSKEY`, or takes what its user types, which is what the hub shows."""

    def __init__(self, capability: PairingDelegate.IoCapability, hub: Answers) -> None:
        key = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY
        super().__init__(capability, key, key)
        self._hub = hub
        self.compared: list[int] = []

    async def generate_passkey(self) -> int:
        return PASSKEY

    async def get_number(self) -> int | None:
        while not self._hub.shown:
            await asyncio.sleep(0.1)
        return self._hub.shown[0]

    async def compare_numbers(self, number: int, digits: int) -> bool:
        self.compared.append(number)
        return True


def set_up_pairing(device: Any, capability: PairingDelegate.IoCapability, hub: Answers) -> SensorDelegate:
    """Let a sensor pair with this capability; return its delegate."""
    delegate = SensorDelegate(capability, hub)
    mitm = capability is not NOTHING
    device.pairing_config_factory = lambda _connection: PairingConfig(sc=True, mitm=mitm, bonding=True, delegate=delegate)
    return delegate

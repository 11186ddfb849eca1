"""Pairing: the questions that a sensor asks a person, the bonds that result, and what can go wrong with them."""

from dataclasses import dataclass
from typing import Final, Protocol

from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

PAIRING_TIMEOUT_S: Final = 60.0
"""Time limit of one pairing. BlueZ waits 60 s for an agent's answer, and a person needs that long to read six digits from a
display. The security manager itself gives up 30 s after its last message (Core 5.4, Vol 3, Part H, 3.4)."""


class PairingError(BleakError):
    """The sensor was not paired. The message says why and what to do."""


class StaleBondError(BleakError):
    """The sensor has deleted its half of the bond, so no encrypted connection is possible until it is paired again.

    Nothing but a new pairing helps, and repeated connects only empty the sensor's battery.
    """

    def __init__(self, address: str) -> None:
        super().__init__(
            f"the sensor {address} no longer knows this hub (HCI 0x06): it was reset, got new batteries or was paired with a"
            f" phone; pair it again: pulsegate pair {address}"
        )
        self.address = address


class PairingAnswers(Protocol):
    """The person who pairs a sensor. A pairing that ends early cancels the question that it waits for."""

    async def enter_passkey(self) -> int | None:
        """Return the six digits that the sensor shows; None to cancel the pairing."""
        ...

    async def show_passkey(self, passkey: int) -> None:
        """Show six digits that the person must enter at the sensor. Returns at once."""
        ...

    async def confirm_number(self, number: int) -> bool:
        """Return whether the sensor shows the same six digits."""
        ...


@dataclass(frozen=True, slots=True)
class Bond:
    """A sensor that this hub is paired with. `name` is "" where the stack keeps none."""

    address: str
    name: str = ""


class Adapter(Protocol):
    """What a radio's controller does beside scanning and connecting."""

    async def pair(self, device: BLEDevice, answers: PairingAnswers) -> str:
        """Pair with an advertising sensor, and disconnect. The bond is then stored.

        Return the sensor's lasting address: one that hides behind changing addresses tells it when it is paired.

        Raises:
            PairingError: the sensor or the person refused, it took too long, or there is a bond already.
            BleakError: the connection failed.
        """
        ...

    async def unpair(self, address: str) -> bool:
        """Delete the bond with a sensor and end its connection. Return whether there was one."""
        ...

    async def bonds(self) -> list[Bond]:
        """Return all bonds, ordered by address."""
        ...

    async def power_cycle(self) -> None:
        """Switch the controller off and on. The radio is lost afterwards: open it again."""
        ...


class NoAdapter:
    """The adapter of a radio that cannot pair: bleak's own backends on macOS and Windows, where the system pairs."""

    async def pair(self, device: BLEDevice, answers: PairingAnswers) -> str:
        del answers
        raise PairingError(f"cannot pair {device.address} from here: pair it in the settings of this computer")

    async def unpair(self, address: str) -> bool:
        raise PairingError(f"cannot remove the bond with {address} from here: remove it in the settings of this computer")

    async def bonds(self) -> list[Bond]:
        return []

    async def power_cycle(self) -> None:
        raise BleakError("cannot switch the adapter off and on from here: do it in the settings of this computer")


def already_paired(address: str) -> PairingError:
    return PairingError(f"{address} is paired already: to pair it again, remove the bond first")


def pairing_refused(address: str) -> PairingError:
    return PairingError(
        f"{address} refused the pairing: check the six digits, put the sensor into its pairing mode again, and retry"
    )


def pairing_cancelled(address: str) -> PairingError:
    return PairingError(f"the pairing with {address} was cancelled: put the sensor into its pairing mode and start again")


def pairing_timed_out(address: str) -> PairingError:
    return PairingError(
        f"the pairing with {address} was not finished within {PAIRING_TIMEOUT_S:g} s: put the sensor into its pairing mode,"
        " keep it beside the hub, and retry"
    )

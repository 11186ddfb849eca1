"""How an emulated sensor pairs: without user input, or with a six-digit passkey on its display; always, or only when asked."""

from dataclasses import dataclass

from bumble.pairing import PairingConfig, PairingDelegate


@dataclass(slots=True)
class Pairing:
    """A sensor's side of pairing. Change the fields at any time.

    Attributes:
        is_allowed: whether the sensor accepts a new hub. Cuffs do so only in their pairing mode.
        passkey: the number that the sensor displays; None for "Just Works".
        shown: the number on the display, once a pairing has begun.
    """

    is_allowed: bool = True
    passkey: int | None = None
    shown: int | None = None

    def make_config(self, _connection: object) -> PairingConfig:
        """Return Bumble's configuration of one pairing: LE Secure Connections, with a bond."""
        return PairingConfig(sc=True, mitm=self.passkey is not None, bonding=True, delegate=_Delegate(self))


class _Delegate(PairingDelegate):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    def __init__(self, pairing: Pairing) -> None:
        # No identity keys are distributed: if Bumble has a peer's, it scans for the peer before it connects, without a timeout.
        ltk = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY
        abilities = PairingDelegate.IoCapability
        has_display = pairing.passkey is not None
        super().__init__(abilities.DISPLAY_OUTPUT_ONLY if has_display else abilities.NO_OUTPUT_NO_INPUT, ltk, ltk)
        self._pairing = pairing

    async def accept(self) -> bool:
        return self._pairing.is_allowed

    async def generate_passkey(self) -> int:
        return self._pairing.passkey or 0

    async def display_number(self, number: int, digits: int) -> None:
        self._pairing.shown = number

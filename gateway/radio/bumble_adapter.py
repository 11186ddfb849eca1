"""Pairing and bonds of a Bumble device."""

import asyncio
from typing import Any, Final

from bleak.backends.device import BLEDevice
from bumble import hci
from bumble.core import ProtocolError
from bumble.device import Connection
from bumble.pairing import PairingConfig, PairingDelegate

from gateway.radio.bumble_address import format_address
from gateway.radio.central import Central
from gateway.radio.pairing import (
    PAIRING_TIMEOUT_S,
    Bond,
    PairingAnswers,
    already_paired,
    pairing_cancelled,
    pairing_refused,
    pairing_timed_out,
)

_ENCRYPTION_KEY: Final = PairingDelegate.KeyDistribution.DISTRIBUTE_ENCRYPTION_KEY


class _Delegate(PairingDelegate):  # type: ignore[misc]  # mypy does not follow Bumble's imports
    """Passes Bumble's questions on. The hub has a keyboard and a display, so the sensor decides which method is used."""

    def __init__(self, answers: PairingAnswers) -> None:
        super().__init__(PairingDelegate.DISPLAY_OUTPUT_AND_KEYBOARD_INPUT, _ENCRYPTION_KEY, _ENCRYPTION_KEY)
        self._answers = answers
        self.is_cancelled = False

    async def get_number(self) -> int | None:
        passkey = await self._answers.enter_passkey()
        self.is_cancelled = passkey is None
        return passkey

    async def display_number(self, number: int, digits: int) -> None:
        del digits
        await self._answers.show_passkey(number)

    async def compare_numbers(self, number: int, digits: int) -> bool:
        del digits
        is_equal = await self._answers.confirm_number(number)
        self.is_cancelled = not is_equal
        return is_equal


class BumbleAdapter:
    """A Bumble device as the hub's adapter; see `pairing.Adapter`."""

    def __init__(self, central: Central) -> None:
        self._central = central
        self._pairing = asyncio.Lock()

    async def pair(self, device: BLEDevice, answers: PairingAnswers) -> str:
        peer: hci.Address = device.details
        if await self._central.keys.get(str(peer)) is not None:
            raise already_paired(device.address)
        delegate = _Delegate(answers)
        try:
            with self._central.convert_errors(f"pair {device.address}", device.address):
                async with self._pairing, asyncio.timeout(PAIRING_TIMEOUT_S):
                    await self._pair(peer, delegate)
        except TimeoutError as error:
            raise pairing_timed_out(device.address) from error
        return device.address

    async def _pair(self, peer: hci.Address, delegate: _Delegate) -> None:
        bumble = self._central.device
        default = bumble.pairing_config_factory

        def configure(connection: Connection) -> PairingConfig:
            is_meant = connection.peer_address == peer
            return PairingConfig(sc=True, mitm=True, bonding=True, delegate=delegate) if is_meant else default(connection)

        bumble.pairing_config_factory = configure
        try:
            connection = await self._central.connect(peer)
            try:
                await connection.pair()
            except ProtocolError as error:
                address = format_address(peer)
                raise (pairing_cancelled(address) if delegate.is_cancelled else pairing_refused(address)) from error
            finally:
                await _disconnect(connection)
        finally:
            bumble.pairing_config_factory = default

    async def unpair(self, address: str) -> bool:
        for key, _ in await self._central.keys.get_all():
            peer = hci.Address(key)
            if format_address(peer) == address.upper():
                await self._central.keys.delete(key)
                connection = self._central.device.find_connection_by_bd_addr(peer)
                if connection is not None:
                    await _disconnect(connection)
                return True
        return False

    async def bonds(self) -> list[Bond]:
        return sorted((Bond(format_address(hci.Address(key))) for key, _ in await self._central.keys.get_all()), key=_address)

    async def power_cycle(self) -> None:
        """End all connections, as a power cycle does. A virtual controller has nothing else to switch off."""
        for connection in tuple(self._central.device.connections.values()):
            await _disconnect(connection)
        self._central.lost.set()


def _address(bond: Bond) -> str:
    return bond.address


async def _disconnect(connection: Any) -> None:
    """End a connection unless it has ended: a peripheral may disconnect first."""
    if connection.device.connections.get(connection.handle) is connection:
        await connection.disconnect()

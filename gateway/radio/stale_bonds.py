"""Connects to a sensor and tells a bond that the sensor has forgotten from a bad link.

A controller reports a missing key as HCI error 0x06. Bumble passes it on. BlueZ hides it: the link comes up, the encryption
fails, the link drops, and BlueZ reports `le-connection-abort-by-local`, which a weak signal causes as well. bleak then retries
without telling anybody until its timeout. So the drops of the link during a connect are counted: a sensor with a bond whose
link drops twice in a row although its signal is strong has forgotten the bond.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from bleak import BleakClient
from bleak.exc import BleakDBusError, BleakError

from gateway.radio.pairing import StaleBondError

STALE_AFTER_DROPS: Final = 2
"""One drop happens on a good link too, when the sensor's radio is busy; six of six drops in a row were seen of a scale that had
forgotten the bond."""
STRONG_SIGNAL_DBM: Final = -80
"""With a weaker signal, links drop by themselves: most sensors receive down to some -90 dBm."""
_REFUSED: Final = ("org.bluez.Error.AuthenticationFailed", "org.bluez.Error.AuthenticationRejected")
_KEY_MISSING: Final = "connection-key-missing"
"""BlueZ 5.8x names the cause: `le-connection-key-missing`, `br-connection-key-missing`."""


def names_a_missing_key(error: Exception) -> bool:
    """Return whether BlueZ says in so many words that the encryption of a link was refused."""
    if not isinstance(error, BleakDBusError):
        return False
    return error.dbus_error in _REFUSED or _KEY_MISSING in (error.dbus_error_details or "")


class LinkDrops:
    """Counts, for each sensor, the links in a row that dropped while they were connecting although the signal was strong."""

    def __init__(self) -> None:
        self._drops: Counter[str] = Counter()

    def add(self, address: str, rssi_dbm: int | None) -> None:
        if rssi_dbm is not None and rssi_dbm >= STRONG_SIGNAL_DBM:
            self._drops[address] += 1

    def clear(self, address: str) -> None:
        self._drops.pop(address, None)

    def are_suspicious(self, address: str) -> bool:
        return self._drops[address] >= STALE_AFTER_DROPS


async def connect_client(
    make_client: Callable[[Callable[[BleakClient], None]], BleakClient],
    address: str,
    rssi_dbm: int | None,
    drops: LinkDrops,
    is_bonded: Callable[[], Awaitable[bool]],
    on_disconnect: Callable[[BleakClient], None],
    timeout_s: float,
) -> BleakClient:
    """Make a client and connect it. `make_client` is given the function that the client calls at a disconnection.

    `on_disconnect` is called for the end of the connection that this returns, not for links that dropped before. After
    `timeout_s` the client gives up and closes its link, which is not a drop.

    Raises:
        StaleBondError: the sensor has forgotten the bond.
        BleakError, TimeoutError: the connection failed otherwise.
    """
    suspicion = asyncio.Event()
    is_established = False
    gives_up_s = asyncio.get_running_loop().time() + timeout_s

    def on_drop(client: BleakClient) -> None:
        if is_established:
            on_disconnect(client)
            return
        if asyncio.get_running_loop().time() >= gives_up_s:
            return
        drops.add(address, rssi_dbm)
        if drops.are_suspicious(address):
            suspicion.set()

    client = make_client(on_drop)
    try:
        await _connect(client, suspicion, is_bonded)
    except _SuspiciousError as error:
        drops.clear(address)
        raise StaleBondError(address) from error
    except BaseException:
        if client.is_connected:  # the task was cancelled just as the connect succeeded
            await client.disconnect()
        raise
    is_established = True
    drops.clear(address)
    return client


class _SuspiciousError(Exception):
    """Links drop as they do when a sensor with a bond has forgotten it."""


async def _connect(client: BleakClient, suspicion: asyncio.Event, is_bonded: Callable[[], Awaitable[bool]]) -> None:
    connecting, suspecting = asyncio.ensure_future(client.connect()), asyncio.ensure_future(suspicion.wait())
    try:
        await asyncio.wait({connecting, suspecting}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done() and await is_bonded():
            raise _SuspiciousError
        await connecting
    except StaleBondError as error:
        raise _SuspiciousError from error
    except (BleakError, TimeoutError) as error:
        if (suspicion.is_set() or names_a_missing_key(error)) and await is_bonded():
            raise _SuspiciousError from error
        raise
    finally:
        for task in (connecting, suspecting):
            task.cancel()
        await asyncio.wait({connecting, suspecting})
    if not client.is_connected:
        await client.disconnect()  # bleak closes its bus only here
        raise BleakError(f"connect {client.address}: the link was lost as soon as it was established")

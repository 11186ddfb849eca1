"""The adapter of a Linux machine: what bleak leaves out of BlueZ. Pairing, bonds, and the end of bluetoothd or of the adapter.

bleak does not notice that bluetoothd died: its clients stay "connected" for ever. This watches the owner of `org.bluez`, the
adapter and the bus, and then makes bleak forget all it knows, so that every client sees its disconnection.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from bleak.backends.bluezdbus import manager as bleak_manager
from bleak.backends.bluezdbus.scanner import BleakScannerBlueZDBus
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import BaseBleakScanner
from bleak.exc import BleakDBusError, BleakError
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from gateway.errors import RadioError
from gateway.radio.bluez_agent import AGENT_PATH, CAPABILITY, BlueZAgent
from gateway.radio.bluez_bus import (
    ADAPTER,
    BLUEZ,
    DBUS,
    DEVICE,
    OBJECT_MANAGER,
    PROPERTIES,
    call,
    choose_adapter,
    is_bonded,
    managed_objects,
    open_system_bus,
)
from gateway.radio.bluez_subscriptions import BlueZSubscriptions
from gateway.radio.pairing import (
    PAIRING_TIMEOUT_S,
    Bond,
    PairingAnswers,
    already_paired,
    pairing_cancelled,
    pairing_refused,
    pairing_timed_out,
)

AGENT_MANAGER: Final = "org.bluez.AgentManager1"

POWER_OFF_S: Final = 1.0
"""How long the adapter stays off in a power cycle: a USB controller needs some 100 ms to drop its links."""

_MATCH_RULES: Final = (
    f"type='signal',sender='{DBUS}',interface='{DBUS}',member='NameOwnerChanged',arg0='{BLUEZ}'",
    f"type='signal',sender='{BLUEZ}',interface='{OBJECT_MANAGER}',member='InterfacesRemoved'",
    f"type='signal',sender='{BLUEZ}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{ADAPTER}'",
)
_CANCELLED: Final = ("org.bluez.Error.AuthenticationCanceled", "org.bluez.Error.AuthenticationRejected")
_TIMED_OUT: Final = ("org.bluez.Error.AuthenticationTimeout", "org.freedesktop.DBus.Error.NoReply")


class BlueZAdapter:
    """One adapter of BlueZ; see `pairing.Adapter`. `open_bluez_adapter` creates it. `lost` is set once it cannot be used."""

    def __init__(self, bus: MessageBus, lost: asyncio.Event) -> None:
        self._bus = bus
        self._agent = BlueZAgent(bus)
        self.subscriptions = BlueZSubscriptions(bus)
        self._lost = lost
        self._losing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._pairing = asyncio.Lock()
        self._is_cycling = False
        self.path = ""

    async def start(self, name: str | None) -> None:
        """Find the adapter, switch it on, and register the agent. `name` is `hci0` and so on, or None for the first one.

        Raises:
            RadioError: there is no Bluetooth service, no access to it, or no such adapter, or it cannot be switched on.
        """
        self._bus.add_message_handler(self._on_message)
        self._watching = asyncio.create_task(self._watch_bus())
        for rule in _MATCH_RULES:
            await call(self._bus, "/org/freedesktop/DBus", DBUS, "AddMatch", "s", [rule], destination=DBUS)
        objects = await managed_objects(self._bus)
        self.path = choose_adapter(objects, name)
        if not objects[self.path][ADAPTER]["Powered"]:
            await self._switch_on()
        await call(self._bus, "/org/bluez", AGENT_MANAGER, "RegisterAgent", "os", [AGENT_PATH, CAPABILITY])
        await self._request_default_agent()

    async def close(self) -> None:
        """Close the bus, and bleak's as well, for which bleak has no public function."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        await self._agent.close()
        self.subscriptions.close()
        self._bus.remove_message_handler(self._on_message)
        await _close_bleaks_bus()
        if self._losing is not None:
            await asyncio.wait({self._losing})

    async def pair(self, device: BLEDevice, answers: PairingAnswers) -> str:
        """Pair on the agent's own bus: BlueZ then asks this agent, whichever program registered the default one."""
        path: str = device.details["path"]
        async with self._pairing:
            await self._request_default_agent()
            try:
                with self._agent.answering(path, answers):
                    await call(self._bus, path, DEVICE, "Pair", timeout_s=PAIRING_TIMEOUT_S)
                (address,) = await call(self._bus, path, PROPERTIES, "Get", "ss", [DEVICE, "Address"])
                return str(address.value)
            except BleakDBusError as error:
                raise self._explain(error, device.address) from error
            except TimeoutError as error:
                await self._try(path, "CancelPairing")
                raise pairing_timed_out(device.address) from error
            except asyncio.CancelledError:
                await self._try(path, "CancelPairing")
                raise
            finally:
                await self._try(path, "Disconnect")

    def _explain(self, error: BleakDBusError, address: str) -> BleakError:
        name = error.dbus_error
        if name == "org.bluez.Error.AlreadyExists":
            return already_paired(address)
        if self._agent.is_cancelled or name in _CANCELLED:
            return pairing_cancelled(address)
        if name in _TIMED_OUT:
            return pairing_timed_out(address)
        return pairing_refused(address) if name == "org.bluez.Error.AuthenticationFailed" else error

    async def unpair(self, address: str) -> bool:
        for path, device in (await self._devices()).items():
            if device["Address"] == address.upper():
                with suppress(BleakDBusError):  # BlueZ has removed it meanwhile
                    await call(self._bus, self.path, ADAPTER, "RemoveDevice", "o", [path])
                return is_bonded(device)
        return False

    async def bonds(self) -> list[Bond]:
        devices = (await self._devices()).values()
        bonds = (Bond(device["Address"], device.get("Alias", "")) for device in devices if is_bonded(device))
        return sorted(bonds, key=lambda bond: bond.address)

    async def _devices(self) -> dict[str, dict[str, Any]]:
        """The properties of this adapter's devices, by path."""
        objects = await managed_objects(self._bus)
        return {path: each[DEVICE] for path, each in objects.items() if path.startswith(f"{self.path}/dev_") and DEVICE in each}

    async def power_cycle(self) -> None:
        self._is_cycling = True  # the loss is reported when the adapter is on again
        await self._set_powered(on=False)
        await asyncio.sleep(POWER_OFF_S)
        await self._set_powered(on=True)
        await self._lose()

    async def _switch_on(self) -> None:
        try:
            await self._set_powered(on=True)
        except BleakDBusError as error:
            name = self.path.split("/")[-1]
            raise RadioError(
                f"the Bluetooth adapter {name} cannot be switched on ({error}): run rfkill unblock bluetooth, or unplug it and"
                " plug it in again"
            ) from error

    async def _set_powered(self, *, on: bool) -> None:
        await call(self._bus, self.path, PROPERTIES, "Set", "ssv", [ADAPTER, "Powered", Variant("b", on)])

    async def _request_default_agent(self) -> None:
        """Another program may have taken this over. BlueZ asks the default agent when an attribute needs a pairing."""
        await call(self._bus, "/org/bluez", AGENT_MANAGER, "RequestDefaultAgent", "o", [AGENT_PATH])

    async def _try(self, path: str, member: str) -> None:
        """Call a method of a device whose failure changes nothing: the pairing or the link has ended."""
        with suppress(BleakError, TimeoutError, RadioError):
            await call(self._bus, path, DEVICE, member)

    def _on_message(self, message: Message) -> bool:
        """Notice the end of bluetoothd or of the adapter. No message is for this handler alone."""
        if message.message_type is MessageType.SIGNAL and self._ends_adapter(message):
            self._start_losing()
        return False

    def _ends_adapter(self, message: Message) -> bool:
        match message.member, message.body:
            case "NameOwnerChanged", [name, *_]:
                return bool(name == BLUEZ)
            case "InterfacesRemoved", [path, interfaces]:
                return path == self.path and ADAPTER in interfaces
            case "PropertiesChanged", [_, {"Powered": powered}, _] if message.path == self.path:
                return not powered.value and not self._is_cycling
            case _:
                return False

    async def _watch_bus(self) -> None:
        with suppress(Exception):  # the error that ended the bus
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it untyped
        self._start_losing()

    def _start_losing(self) -> None:
        if self._losing is None and not self._lost.is_set():
            self._losing = asyncio.create_task(self._lose())

    async def _lose(self) -> None:
        await _close_bleaks_bus()
        self._lost.set()


async def _close_bleaks_bus() -> None:
    """Close the bus that bleak's clients and scanners share: bleak then forgets all devices and reports every disconnection."""
    manager: Any = vars(bleak_manager)["_global_instances"].pop(asyncio.get_running_loop(), None)
    if manager is not None and manager._bus is not None and manager._bus_watcher_task is not None:
        manager._bus.disconnect()
        await asyncio.wait({manager._bus_watcher_task})


def make_scanner_backend(adapter: str) -> type[BaseBleakScanner]:
    """Return bleak's scanner for BlueZ, bound to an adapter such as `hci1`; a client uses that of the device it connects to."""

    class Scanner(BleakScannerBlueZDBus):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "bluez": {"adapter": adapter}})

    return Scanner


@asynccontextmanager
async def open_bluez_adapter(name: str | None, lost: asyncio.Event) -> AsyncIterator[BlueZAdapter]:
    """Open the adapter `name`, or the first one, and watch it; set `lost` once it cannot be used.

    Raises:
        RadioError: there is no Bluetooth service, no access to it, or no such adapter, or it cannot be switched on.
    """
    async with open_system_bus() as bus:
        adapter = BlueZAdapter(bus, lost)
        try:
            try:
                await adapter.start(name)
            except (BleakDBusError, TimeoutError) as error:
                reason = str(error) or "no answer"
                raise RadioError(f"BlueZ does not work ({reason}): restart it (systemctl restart bluetooth)") from error
            yield adapter
        finally:
            await adapter.close()

"""Calls to BlueZ on the system's message bus, and plain words for what a machine without working Bluetooth answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from bleak.backends.bluezdbus.utils import get_dbus_authenticator
from bleak.exc import BleakDBusError
from dbus_fast import AuthError, BusType, Message, MessageType, unpack_variants
from dbus_fast.aio import MessageBus

from gateway.errors import RadioError

BLUEZ: Final = "org.bluez"
ADAPTER: Final = "org.bluez.Adapter1"
DEVICE: Final = "org.bluez.Device1"
CHARACTERISTIC: Final = "org.bluez.GattCharacteristic1"
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
DBUS: Final = "org.freedesktop.DBus"

CALL_TIMEOUT_S: Final = 10.0
"""bluetoothd answers within milliseconds, and needs a few seconds to switch an adapter. One that hangs longer is restarted."""

_NO_SERVICE: Final = ("org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner")
_NO_ACCESS: Final = "org.freedesktop.DBus.Error.AccessDenied"

Objects = dict[str, dict[str, dict[str, Any]]]
"""Properties by interface, by path."""


@asynccontextmanager
async def open_system_bus() -> AsyncIterator[MessageBus]:
    """A connection to the system's message bus. Raises RadioError where there is none."""
    bus = MessageBus(bus_type=BusType.SYSTEM, auth=get_dbus_authenticator())
    try:
        try:
            await bus.connect()
        except (OSError, EOFError, AuthError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RadioError(
                f"no Bluetooth service answers ({reason}): install and start bluez (systemctl start bluetooth)"
            ) from error
        yield bus
    finally:
        bus.disconnect()


async def call(
    bus: MessageBus,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    body: list[Any] | None = None,
    *,
    destination: str = BLUEZ,
    timeout_s: float = CALL_TIMEOUT_S,
) -> list[Any]:
    """Call a method and return the body of the reply.

    Raises:
        BleakDBusError: the reply is an error.
        TimeoutError: there is no reply.
        RadioError: there is no Bluetooth service, or no access to it.
    """
    message = Message(destination, path, interface, member, signature=signature, body=body or [])
    try:
        async with asyncio.timeout(timeout_s):
            reply = await bus.call(message)
    except EOFError as error:
        raise RadioError("the system's message bus was closed: it is restarting; try again in a moment") from error
    if reply.message_type is not MessageType.ERROR:
        return reply.body
    name = reply.error_name or ""
    if name in _NO_SERVICE:
        raise RadioError("no Bluetooth service answers: install and start bluez (systemctl start bluetooth)")
    if name == _NO_ACCESS:
        raise RadioError(
            "this user may not use Bluetooth: add it to the group bluetooth (usermod -aG bluetooth USER), and start again"
        )
    raise BleakDBusError(name, reply.body)


async def managed_objects(bus: MessageBus) -> Objects:
    """Return all objects of BlueZ."""
    (objects,) = await call(bus, "/", OBJECT_MANAGER, "GetManagedObjects")
    return unpack_variants(objects)  # type: ignore[no-any-return]


def choose_adapter(objects: Objects, name: str | None) -> str:
    """Return the path of the adapter: the one with this name, else the first that is on, else the first.

    Raises:
        RadioError: there is no such adapter.
    """
    adapters = {path: properties[ADAPTER] for path, properties in sorted(objects.items()) if ADAPTER in properties}
    if not adapters:
        raise RadioError("this machine has no Bluetooth adapter: plug one in")
    if name is None:
        return next((path for path, adapter in adapters.items() if adapter["Powered"]), next(iter(adapters)))
    path = f"/org/bluez/{name}"
    if path not in adapters:
        found = ", ".join(path.split("/")[-1] for path in adapters)
        raise RadioError(f"this machine has no Bluetooth adapter {name}, but {found}: plug it in, or set `radio`")
    return path


def is_bonded(device: dict[str, Any]) -> bool:
    """Return whether a device has a bond. BlueZ has `Bonded` since 5.65; before, all LE devices that are `Paired` have one."""
    return bool(device.get("Bonded", device.get("Paired")))

"""Objects on a D-Bus, as `org.freedesktop.DBus.ObjectManager` publishes them."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from dbus_fast import Message, MessageType, Variant

Properties = dict[str, Variant]
Reply = tuple[str, list[Any]]
"""Signature and body of a method's return message."""

BLUEZ: Final = "org.bluez"
ADAPTER: Final = "org.bluez.Adapter1"
AGENT_MANAGER: Final = "org.bluez.AgentManager1"
DEVICE: Final = "org.bluez.Device1"
SERVICE: Final = "org.bluez.GattService1"
CHARACTERISTIC: Final = "org.bluez.GattCharacteristic1"
DESCRIPTOR: Final = "org.bluez.GattDescriptor1"
OBJECT_MANAGER: Final = "org.freedesktop.DBus.ObjectManager"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
FAILED: Final = "org.bluez.Error.Failed"
EMPTY_REPLY: Final[Reply] = ("", [])
SENDER: Final[ContextVar[str]] = ContextVar("SENDER", default="")
"""The bus name of the program whose call this task answers."""


class BlueZError(Exception):
    """An error that is sent as a D-Bus error reply."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name, self.text = name, text


class ObjectTree:
    """The objects on the bus, each with one interface. Every change is sent as a signal."""

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self.objects: dict[str, dict[str, Properties]] = {}

    def add(self, path: str, interface: str, properties: Properties) -> None:
        self.objects[path] = {interface: properties}
        self._signal("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, self.objects[path]])

    def remove_below(self, path: str) -> None:
        for child in sorted((other for other in self.objects if other.startswith(f"{path}/")), reverse=True):
            self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [child, list(self.objects.pop(child))])

    def remove(self, path: str) -> None:
        self.remove_below(path)
        self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, list(self.objects.pop(path))])

    def change(self, path: str, interface: str, changed: Properties, invalidated: tuple[str, ...] = ()) -> None:
        properties = self.objects[path][interface]
        properties.update(changed)
        for name in invalidated:
            properties.pop(name, None)
        self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, changed, list(invalidated)])

    def _signal(self, path: str, interface: str, member: str, signature: str, body: list[Any]) -> None:
        kind = MessageType.SIGNAL
        self._send(Message(None, path, interface, member, kind, signature=signature, body=body))

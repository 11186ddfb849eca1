"""Finds the sensors of a Bluetooth capture: what each sent, and which characteristics its handles are."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from captures.bluetooth.att import AttReader, MalformedError, Named, Value, is_from_client
from captures.bluetooth.messages import (
    Advertised,
    AttPdu,
    Connected,
    Disconnected,
    Encrypted,
    EnhancedBearer,
    Link,
    Lost,
    Message,
    clean_name,
)
from captures.recording import RecordingError
from drivers.spec import uuid16

Key = tuple[str, bool]
"""A sensor: its address, and whether its values are received. They are sent where the sensor itself recorded the capture."""
DEVICE_NAME: Final = uuid16(0x2A00)
_SENSORS: Final = 256
"""Sensors with values. A phone that is worn for days connects to some ten."""
_ADDRESSES: Final = 4096
"""Addresses of connected devices; some change theirs every quarter of an hour."""
_HANDLES: Final = 4096
"""Handles of a sensor with values; a sensor has some fifty."""
_NAMES: Final = 4096
"""Devices whose name is kept; those seen last. A phone passes thousands in a day."""
_BEARERS: Final = 1024

Trouble = Literal["lost", "encrypted", "enhanced"]


class TooManyError(RecordingError):
    """A capture with more devices or handles than is plausible."""


class Event(NamedTuple):
    """Something that a sensor did. Those of its link concern the sensor on either side of it."""

    address: str
    is_received: bool | None
    what: Value | Named | Trouble | Literal["connected", "disconnected"]


@dataclass
class Sensor:
    """What a capture holds of one sensor. `pushed` and `read` count its values by handle."""

    key: Key
    first_us: int
    handles: dict[int, str] = field(default_factory=dict)
    pushed: Counter[int] = field(default_factory=Counter)
    read: Counter[int] = field(default_factory=Counter)
    troubles: Counter[Trouble] = field(default_factory=Counter)
    gap_name: str = ""

    @property
    def address(self) -> str:
        return self.key[0]


class Tracker:
    """Follows the links and reads what their two ends send each other."""

    def __init__(self) -> None:
        self.names: OrderedDict[str, str] = OrderedDict()  # removes its oldest entry in constant time
        self._addresses: dict[Link, str] = {}
        self._bearers: dict[tuple[Link, bool], AttReader] = {}

    def feed(self, message: Message) -> Iterator[Event]:
        match message:
            case AttPdu(link, is_received, pdu):
                yield from self._read(link, is_received, pdu)
            case Connected(link, address):
                yield from self._connect(link, address)
            case Disconnected(link):
                yield from self._disconnect(link)
            case Advertised(address, name):
                self.names.pop(address, None)
                self.names[address] = name
                if len(self.names) > _NAMES:
                    self.names.popitem(last=False)
            case Lost(link):
                yield Event(self._address(link), None, "lost")
            case Encrypted(link):
                yield Event(self._address(link), None, "encrypted")
            case EnhancedBearer(link):
                yield Event(self._address(link), None, "enhanced")

    def _address(self, link: Link) -> str:
        number = f"{link[1]:#010x}" if link[0] < 0 else f"{link[1]:#06x}"
        return self._addresses.get(link) or f"connection {number}"

    def _connect(self, link: Link, address: str) -> Iterator[Event]:
        """On the air, the end of a link is often not seen: a device that connects again has lost its link."""
        old = [other for other, known in self._addresses.items() if known == address or other == link]
        for other in old:
            yield from self._disconnect(other)
        self._addresses[link] = address
        yield Event(address, None, "connected")

    def _disconnect(self, link: Link) -> Iterator[Event]:
        address = self._address(link)
        was_followed = link in self._addresses
        for is_received in (True, False):
            reader = self._bearers.pop((link, is_received), None)
            if reader is not None:
                was_followed = True
                yield from (Event(address, is_received, value) for value in reader.finish())
        self._addresses.pop(link, None)
        if was_followed:
            yield Event(address, None, "disconnected")

    def _read(self, link: Link, is_received: bool | None, pdu: bytes) -> Iterator[Event]:
        """The side of the server: values of a notification that was received are those of the peer."""
        side = True if is_received is None else is_received != is_from_client(pdu)
        address = self._address(link)
        reader = self._bearers.get((link, side))
        if reader is None:
            if len(self._bearers) >= _BEARERS:
                del self._bearers[next(iter(self._bearers))]
            reader = self._bearers[(link, side)] = AttReader()
        try:
            for what in reader.feed(pdu):
                yield Event(address, side, what)
        except MalformedError:
            yield Event(address, None, "lost")

    def finish(self) -> Iterator[Event]:
        """Yield the long values whose end is not in the capture."""
        for (link, side), reader in self._bearers.items():
            yield from (Event(self._address(link), side, value) for value in reader.finish())


class SensorList:
    """The sensors of a capture, in the order in which they appear. Fill it with every event."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._sensors: dict[Key, Sensor] = {}
        self._linked_us: dict[str, int] = {}
        self._troubles: dict[str, Counter[Trouble]] = {}

    def add(self, event: Event, time_us: int) -> None:
        """Add an event.

        Raises:
            TooManyError: more devices or handles than a capture of sensors has.
        """
        match event.what:
            case "connected":
                self._check_count(self._linked_us, _ADDRESSES)
                self._linked_us.setdefault(event.address, time_us)
            case "lost" | "encrypted" | "enhanced" as trouble:
                self._check_count(self._troubles, _ADDRESSES)
                self._troubles.setdefault(event.address, Counter())[trouble] += 1
            case Named(handle, uuid):
                handles = self._sensor(event, time_us).handles
                self._check_handles(handles)
                handles.setdefault(handle, uuid)
            case Value() as value:
                self._count(self._sensor(event, time_us), value)
            case _:
                pass

    def finish(self) -> list[Sensor]:
        """The sensors that sent values or listed their characteristics, and those whose packets could not be read."""
        for address, troubles in self._troubles.items():
            keys = [key for key in self._sensors if key[0] == address] or [(address, True)]
            for key in keys:
                sensor = self._sensors.setdefault(key, Sensor(key, self._linked_us.get(address, 0)))
                sensor.troubles = troubles
        return list(self._sensors.values())

    def _sensor(self, event: Event, time_us: int) -> Sensor:
        key = (event.address, bool(event.is_received))
        found = self._sensors.get(key)
        if found is None:
            self._check_count(self._sensors, _SENSORS)
            found = self._sensors[key] = Sensor(key, self._linked_us.get(event.address, time_us))
        return found

    def _count(self, sensor: Sensor, value: Value) -> None:
        counts = sensor.pushed if value.is_pushed else sensor.read
        self._check_handles(counts)
        counts[value.handle] += 1
        if sensor.handles.get(value.handle) == DEVICE_NAME and not value.is_pushed:
            sensor.gap_name = clean_name(value.payload)

    def _check_count(self, entries: dict[Key, Sensor] | dict[str, int] | dict[str, Counter[Trouble]], limit: int) -> None:
        if len(entries) > limit:
            raise TooManyError(f"{self._file}: more than {limit} connected devices; split the file with Wireshark's editcap")

    def _check_handles(self, entries: dict[int, str] | Counter[int]) -> None:
        if len(entries) > _HANDLES:
            raise TooManyError(f"{self._file}: a device with more than {_HANDLES} handles; the file is damaged")

"""The declaration of a driver: what a session must subscribe to and read, and how bytes are decoded to readings.

For each driver whose service the sensor offers, a session subscribes to its `streams`, then reads and decodes its `reads`. That
is the short form. The long form adds `converse`: a conversation (`drivers.conversation`) that writes, waits for answers and
decodes the streams that have no decoder here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from drivers.conversation import Context, Conversation
from drivers.device import Decoder, Quirk

_BASE_UUID: Final = "{:08x}-0000-1000-8000-00805f9b34fb"


def uuid16(number: int) -> str:
    """The 128-bit form of a Bluetooth SIG number: Core Specification 5.4, volume 3, part B, section 2.5.1."""
    return _BASE_UUID.format(number)


@dataclass(frozen=True, slots=True)
class Characteristic:
    """One characteristic that a session subscribes to or reads, and the decoder of its values.

    `uuid` has 128 bits and is in lower case. `decode` is None where the driver's conversation decodes the values. After
    `silent_after_s` without a value, a subscription counts as silent: a healthy sensor always sends sooner. It is None where
    the sensor sends only changes. If a sensor refuses a subscription that `is_optional`, or any read, the session continues
    without it.
    """

    uuid: str
    mode: Literal["notify", "indicate", "read"]
    decode: Decoder | None = None
    silent_after_s: float | None = None
    is_optional: bool = False


BroadcastField = Literal["service_data", "manufacturer_data"]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A field of an advertisement: `service_data` of a 128-bit UUID, or `manufacturer_data` of a company's number.

    `decode` is given the field without its UUID or company number.
    """

    field: BroadcastField
    key: str | int
    decode: Decoder


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """The driver of one GATT service, of a sensor's advertisements, or of both.

    `service` is the UUID of the service; "" for a sensor that only advertises. `bonding` is True if its characteristics need an
    encrypted link. `setup_rank` orders the set-ups of a sensor's drivers: the clock is set before a user is chosen, and both
    before records are asked for. `identifies` is True for the one driver whose reads say what the sensor is. `sets_clock` is
    True if its start procedure reads and sets the sensor's clock and does nothing else: it runs before any value is decoded,
    because the time of a result depends on the clock.

    A session leaves the `others` alone; they are decoded where something else read them, as in a capture.
    """

    name: str
    service: str = ""
    streams: tuple[Characteristic, ...] = ()
    reads: tuple[Characteristic, ...] = ()
    others: tuple[Characteristic, ...] = ()
    broadcasts: tuple[Broadcast, ...] = ()
    bonding: bool = False
    quirks: tuple[Quirk, ...] = ()
    converse: Callable[[Context], Conversation] | None = None
    setup_rank: int = 0
    identifies: bool = False
    sets_clock: bool = False

    @property
    def characteristics(self) -> frozenset[str]:
        """Every characteristic whose values this driver decodes."""
        return frozenset(item.uuid for item in self.streams + self.reads + self.others)

"""How a driver declares itself: what a session must subscribe to, read and write, and how the bytes become readings.

A session does, for each driver whose service the sensor offers, in this order:

1. read each of `reads` that the sensor has, and decode it;
2. subscribe to each of `streams` that the sensor has;
3. subscribe to `control_points`, then send each of `setup`, waiting for the answer that `expect` accepts;
4. at a clean stop, send each of `teardown` in the same way, and disconnect.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from drivers.readings import Reading, Status, Waveform

Decode = Callable[[bytes], tuple[Reading, ...]]
"""From one payload to what it says. Pure; raises `DecodeError` and nothing else."""

_BASE_UUID: Final = "{:08x}-0000-1000-8000-00805f9b34fb"


def uuid16(number: int) -> str:
    """The 128-bit form of a Bluetooth SIG number: Core Specification 5.4, volume 3, part B, section 2.5.1."""
    return _BASE_UUID.format(number)


class SetupRefusedError(Exception):
    """The sensor answered a set-up write with an error. The message names the request and the sensor's reason."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One characteristic and the decoder of its values.

    `characteristic` is a 128-bit UUID in lower case. `silent_after_s` is how long a healthy sensor never stays quiet on
    a subscription; None where it sends only when something changes.
    """

    characteristic: str
    mode: Literal["notify", "indicate", "read"]
    decode: Decode
    silent_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """A write with response. Where `expect` is given, the sensor answers by an indication of the same characteristic.

    `expect` returns when this is the awaited answer and it is good, raises `SetupRefusedError` when the sensor refuses, and
    `DecodeError` when this is no answer to the write: then wait on for the right one.
    """

    characteristic: str
    payload: bytes
    expect: Callable[[bytes], None] | None = None


@dataclass(frozen=True, slots=True)
class DeviceInformation:
    """What a sensor says it is; "" is unknown."""

    manufacturer: str = ""
    model: str = ""
    firmware: str = ""

    def updated(self, readings: Iterable[Reading]) -> "DeviceInformation":
        """With what these readings say about manufacturer, model and firmware."""
        said = {r.kind: r.value for r in readings if isinstance(r, Status) and isinstance(r.value, str)}
        return replace(self, **{name: said[name] for name in ("manufacturer", "model", "firmware") if name in said})


@dataclass(frozen=True, slots=True)
class Quirk:
    """What one model does differently from what its service declares, and the evidence (`why`).

    It applies where all given names are equal (None: any); `firmware` matches by prefix. `rate_hz` is the model's true rate
    by kind of waveform; `ignored` are kinds that it reports wrongly.
    """

    why: str
    manufacturer: str | None = None
    model: str | None = None
    firmware: str | None = None
    rate_hz: Mapping[str, float] | None = None
    ignored: frozenset[str] = frozenset()

    def applies_to(self, device: DeviceInformation) -> bool:
        return (
            self.manufacturer in (None, device.manufacturer)
            and self.model in (None, device.model)
            and device.firmware.startswith(self.firmware or "")
        )

    def correct(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """The readings with the declared differences applied."""
        return tuple(self._corrected(reading) for reading in readings if getattr(reading, "kind", None) not in self.ignored)

    def _corrected(self, reading: Reading) -> Reading:
        if isinstance(reading, Waveform) and self.rate_hz and reading.kind in self.rate_hz:
            return replace(reading, rate_hz=self.rate_hz[reading.kind])
        return reading


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """Everything about one GATT service. `bonding`: its characteristics need an encrypted link."""

    name: str
    service: str
    streams: tuple[Stream, ...] = ()
    reads: tuple[Stream, ...] = ()
    setup: tuple[Write, ...] = ()
    teardown: tuple[Write, ...] = ()
    bonding: bool = False
    quirks: tuple[Quirk, ...] = ()

    @property
    def control_points(self) -> tuple[str, ...]:
        """Characteristics on which the answers to `setup` and `teardown` come: subscribe before the first write."""
        return tuple(dict.fromkeys(write.characteristic for write in self.setup + self.teardown if write.expect))

    @property
    def characteristics(self) -> frozenset[str]:
        """Every characteristic that this driver speaks for."""
        streams = {stream.characteristic for stream in self.streams + self.reads}
        return frozenset(streams | {write.characteristic for write in self.setup + self.teardown})

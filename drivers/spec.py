"""The declaration of a driver: what a session must subscribe to, read and write, and how bytes are decoded to readings.

For each driver whose service the sensor offers, a session performs these steps in order:

1. read and decode each of `reads` that the sensor has and does not refuse;
2. subscribe to each of `streams` that the sensor has;
3. subscribe to `control_points`, then send each of `setup`, and wait for the answer that `expect` accepts;
4. at a clean stop, send each of `teardown` in the same way, then disconnect.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from drivers.readings import Reading, Status, Waveform

Decoder = Callable[[bytes], tuple[Reading, ...]]
"""Decodes one payload to readings. A pure function that raises only `DecodeError`."""

_BASE_UUID: Final = "{:08x}-0000-1000-8000-00805f9b34fb"


def uuid16(number: int) -> str:
    """The 128-bit form of a Bluetooth SIG number: Core Specification 5.4, volume 3, part B, section 2.5.1."""
    return _BASE_UUID.format(number)


class SetupRefusedError(Exception):
    """The sensor answered a set-up write with an error. The message names the request and the sensor's reason."""


@dataclass(frozen=True, slots=True)
class Characteristic:
    """One characteristic that a session subscribes to or reads, and the decoder of its values.

    `uuid` has 128 bits and is in lower case. After `silent_after_s` without a value, a subscription counts as silent: a
    healthy sensor always sends sooner. It is None where the sensor sends only changes. If a sensor refuses a subscription that
    `is_optional`, or any read, the session continues without it.
    """

    uuid: str
    mode: Literal["notify", "indicate", "read"]
    decode: Decoder
    silent_after_s: float | None = None
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """A write with response. Where `expect` is given, the sensor answers by an indication of the same characteristic.

    `expect` checks such an indication. It returns if the sensor accepts the write, raises `SetupRefusedError` if the sensor
    refuses it, and `DecodeError` if the indication does not answer this write. After a `DecodeError` the session keeps waiting.
    """

    characteristic: str
    payload: bytes
    expect: Callable[[bytes], None] | None = None


@dataclass(frozen=True, slots=True)
class DeviceInformation:
    """How a sensor identifies itself; "" where unknown."""

    manufacturer: str = ""
    model: str = ""
    firmware: str = ""

    def updated(self, readings: Iterable[Reading]) -> "DeviceInformation":
        """A copy with the manufacturer, model and firmware that these readings report."""
        reported = {r.kind: r.value for r in readings if isinstance(r, Status) and isinstance(r.value, str)}
        return replace(self, **{name: reported[name] for name in ("manufacturer", "model", "firmware") if name in reported})


@dataclass(frozen=True, slots=True)
class Quirk:
    """A deviation of one model from its service's declaration, and the evidence for it (`why`).

    It applies where all given fields match: `manufacturer` and `model` exactly, `firmware` by prefix. None matches
    anything. `rate_hz` is the model's true rate by kind of waveform; `ignored` are kinds that it reports wrongly.
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
        """The readings with this quirk corrected."""
        return tuple(self._correct_rate(reading) for reading in readings if getattr(reading, "kind", None) not in self.ignored)

    def _correct_rate(self, reading: Reading) -> Reading:
        if isinstance(reading, Waveform) and self.rate_hz and reading.kind in self.rate_hz:
            return replace(reading, rate_hz=self.rate_hz[reading.kind])
        return reading


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """The driver of one GATT service. The module's docstring says when a session uses each field.

    `service` is the UUID of the service. `bonding` is True if its characteristics need an encrypted link.
    """

    name: str
    service: str
    streams: tuple[Characteristic, ...] = ()
    reads: tuple[Characteristic, ...] = ()
    setup: tuple[Write, ...] = ()
    teardown: tuple[Write, ...] = ()
    bonding: bool = False
    quirks: tuple[Quirk, ...] = ()

    @property
    def control_points(self) -> tuple[str, ...]:
        """Characteristics that send the answers to `setup` and `teardown`: subscribe to them before the first write."""
        return tuple(dict.fromkeys(write.characteristic for write in self.setup + self.teardown if write.expect))

    @property
    def characteristics(self) -> frozenset[str]:
        """Every characteristic that this driver claims."""
        streams = {stream.uuid for stream in self.streams + self.reads}
        return frozenset(streams | {write.characteristic for write in self.setup + self.teardown})

"""How a sensor identifies itself, and what models do differently from their service's declaration."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from drivers.readings import Reading, Status, Waveform

Decoder = Callable[[bytes], tuple[Reading, ...]]
"""Decodes one payload to readings. A pure function that raises only `DecodeError`."""


@dataclass(frozen=True, slots=True)
class DeviceInformation:
    """How a sensor identifies itself; "" where unknown. `name` is the name that it advertises."""

    manufacturer: str = ""
    model: str = ""
    firmware: str = ""
    name: str = ""

    def updated(self, readings: Iterable[Reading]) -> "DeviceInformation":
        """A copy with the manufacturer, model and firmware that these readings report."""
        reported = {r.kind: r.value for r in readings if isinstance(r, Status) and isinstance(r.value, str)}
        return replace(self, **{name: reported[name] for name in ("manufacturer", "model", "firmware") if name in reported})

    def is_model(self, model: str) -> bool:
        """Whether the model number or the advertised name holds `model` as a word of its own, in any case."""
        word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(model)}(?![A-Za-z0-9])", re.IGNORECASE)
        return bool(word.search(self.model) or word.search(self.name))


@dataclass(frozen=True, slots=True)
class Quirk:
    """A deviation of some models from their service's declaration, and the evidence for it (`why`).

    It applies where all given fields match: `manufacturer` exactly, one of `models` (`DeviceInformation.is_model`), `firmware`
    by prefix. None matches anything. `decode` are the decoders of characteristics whose layout differs, `rate_hz` the true rate
    by kind of waveform, `ignored` the kinds that are reported wrongly. `bonds_first` says that the sensor must be bonded before
    its services are discovered; only its name is known then.
    """

    why: str
    manufacturer: str | None = None
    models: tuple[str, ...] | None = None
    firmware: str | None = None
    decode: Mapping[str, Decoder] = field(default_factory=dict)
    rate_hz: Mapping[str, float] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    bonds_first: bool = False

    def applies_to(self, device: DeviceInformation) -> bool:
        return (
            self.manufacturer in (None, device.manufacturer)
            and (self.models is None or any(device.is_model(model) for model in self.models))
            and device.firmware.startswith(self.firmware or "")
        )

    def correct(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """The readings with this quirk corrected."""
        return tuple(self._correct_rate(reading) for reading in readings if getattr(reading, "kind", None) not in self.ignored)

    def _correct_rate(self, reading: Reading) -> Reading:
        if isinstance(reading, Waveform) and reading.kind in self.rate_hz:
            return replace(reading, rate_hz=self.rate_hz[reading.kind])
        return reading

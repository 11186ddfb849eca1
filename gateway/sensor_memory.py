"""What the hub remembers of one sensor between connections: its identity, and what its drivers remember."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from drivers.device import DeviceInformation


@dataclass(slots=True)
class SensorMemory:
    """The identity that the sensor last reported, and each driver's memory by the driver's name."""

    device: DeviceInformation = field(default_factory=DeviceInformation)
    drivers: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def restore(cls, saved: Mapping[str, Any] | None) -> "SensorMemory":
        """The inverse of `state`; a new sensor has none."""
        return cls() if saved is None else cls(DeviceInformation(**saved["device"]), dict(saved["drivers"]))

    def state(self) -> Mapping[str, Any]:
        """A copy that is ready for JSON."""
        return {"device": asdict(self.device), "drivers": dict(self.drivers)}

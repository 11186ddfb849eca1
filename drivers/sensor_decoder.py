"""Decodes the recorded values of a sensor: several services, and an identity that becomes known on the way."""

from drivers.conversation import Context, Moment
from drivers.decoding import ServiceDecoder
from drivers.device import DeviceInformation
from drivers.readings import Reading
from drivers.registry import Registry
from drivers.weighing import WeighingJoiner


class SensorDecoder:
    """Decodes the values of a recorded sensor, whose conversations nobody held: their answers are among the values.

    `device` is what the sensor has said of itself so far. When that changes, decoding begins anew, because quirks may apply.
    """

    def __init__(self, registry: Registry, device: DeviceInformation) -> None:
        self.device = device
        self._registry = registry
        self._decoders: dict[str, ServiceDecoder] = {}
        self._weighings = WeighingJoiner()

    def decode(self, characteristic: str, payload: bytes, arrived: Moment) -> tuple[Reading, ...]:
        """Decode one value; see `Registry.decode`."""
        driver = self._registry.find(characteristic)
        if driver is None:
            return self._registry.decode(characteristic, payload)
        if driver.name not in self._decoders:
            self._decoders[driver.name] = ServiceDecoder(driver, Context(self.device))
        readings = self._decoders[driver.name].decode(characteristic, payload, arrived).readings
        device = self.device.updated(readings)
        if device != self.device:
            self.device = device
            self._decoders.clear()
        return self._weighings.join(readings, arrived.utc_us / 1e6)

"""Recognises a sensor of the settings by its advertisements."""

from dataclasses import dataclass

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from config.settings import SensorSettings


@dataclass(slots=True)
class SensorMatch:
    """Whether an advertisement is the sensor's. `name` is the name in the last one that was."""

    sensor: SensorSettings
    name: str = ""

    def __call__(self, device: BLEDevice, advertisement: AdvertisementData) -> bool:
        name = advertisement.local_name or device.name or ""
        if self.sensor.address is not None:
            is_sensor = device.address.upper() == self.sensor.address
        else:
            is_sensor = name.startswith(self.sensor.advertised_name or "\0")  # no name starts with "\0"
        if is_sensor:
            self.name = name
        return is_sensor

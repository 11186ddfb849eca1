"""Recognises a sensor of the settings by its advertisements."""

from dataclasses import dataclass

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData

from config.settings import SensorSettings
from gateway.pairings import Pairings


@dataclass(slots=True)
class SensorMatch:
    """Whether an advertisement is the sensor's. `name` and `rssi_dbm` are those of the last one that was."""

    sensor: SensorSettings
    pairings: Pairings
    name: str = ""
    rssi_dbm: int | None = None

    def __call__(self, device: BLEDevice, advertisement: AdvertisementData) -> bool:
        name = advertisement.local_name or device.name or ""
        is_sensor = self.pairings.is_sensor(self.sensor, device.address, name)
        if is_sensor:
            self.name, self.rssi_dbm = name, advertisement.rssi
        return is_sensor

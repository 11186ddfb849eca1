"""The paired sensors of a running agent: which advertisements are a sensor's, and with which sensors the hub may bond."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.settings import SensorSettings
from gateway import paired_sensors
from gateway.paired_sensors import PairedSensor


@dataclass(slots=True)
class Pairings:
    """What `pulsegate pair` stored in the data folder, read once at the start. Without a folder, nothing is stored."""

    folder: Path | None = None
    paired: Mapping[str, PairedSensor] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Pairings":
        """Read the paired sensors. Raises `PermanentError` if the file is damaged."""
        return cls(folder, paired_sensors.load_paired(folder))

    def is_sensor(self, sensor: SensorSettings, address: str, name: str) -> bool:
        """Whether an advertisement with this address and name is the sensor's."""
        return paired_sensors.is_sensor(sensor, self.paired, address, name)

    def may_bond(self, sensor: SensorSettings) -> bool:
        """Whether the hub may create or use a bond with the sensor; see decision 19."""
        return paired_sensors.may_bond(sensor, self.paired)

    def is_forgotten(self, sensor: SensorSettings) -> bool:
        """Whether the sensor has forgotten its bond and was not paired again."""
        return paired_sensors.is_forgotten(sensor, self.paired)

    def forget(self, sensor: SensorSettings, address: str) -> None:
        """Note durably that the sensor has forgotten its bond. Raises `PermanentError` if that cannot be written."""
        self.paired = paired_sensors.with_forgotten(sensor, self.paired, address)
        if self.folder is not None:
            paired_sensors.store_paired(self.folder, self.paired)

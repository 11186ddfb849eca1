"""The measurements of Polar's Measurement Data service, and what a sensor says of their streams.

Source: Polar, "Polar Measurement Data", version 1.0 (2024), table 2, and `PmdMeasurementType` of the vendor's SDK.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Measurement(IntEnum):
    """The types of measurements, by number."""

    ECG = 0
    PPG = 1
    ACC = 2
    PPI = 3
    GYRO = 5
    MAG = 6
    SKIN_TEMP = 7
    SDK_MODE = 9
    LOCATION = 10
    PRESSURE = 11
    TEMPERATURE = 12
    OFFLINE_RECORDING = 13
    OFFLINE_HR = 14


MEASUREMENT_BITS: Final = 0x3F
"""The bits of a type's byte that are its number; the others tell live from stored measurements."""
_KNOWN: Final = frozenset(Measurement)


def name_of(measurement: int) -> str:
    """The vendor's name of a measurement, or its number if that is unknown."""
    return Measurement(measurement).name if measurement in _KNOWN else str(measurement)


@dataclass(frozen=True, slots=True)
class Stream:
    """What a sensor says of one of its streams. `factor` turns samples into units; None where the sensor does not say."""

    rate_hz: float
    factor: float | None = None


ECG_RATE_HZ: Final = 130
"""Nominal rate. The true rate differs by up to some tenths of a percent; the timeline measures it from the frames' times."""

DEFAULT_STREAMS: Final[Mapping[int, Stream]] = {
    Measurement.ECG: Stream(float(ECG_RATE_HZ)),
    Measurement.PPG: Stream(55.0),
    Measurement.ACC: Stream(50.0),
    Measurement.GYRO: Stream(52.0),
    Measurement.MAG: Stream(50.0),
}
"""Used until the sensor says its rate: the only rate of the H10's ECG, and of the Verity Sense's PPG and gyroscope outside SDK
mode; a usual rate of the others. The timeline measures the true rate."""
WITHOUT_RATE: Final = Stream(1.0)
"""For measurements that yield no waveform."""

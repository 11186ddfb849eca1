"""Weight Scale Service 1.0 (Bluetooth SIG): weight, and the BMI and height of the user."""

from functools import partial
from typing import Final

from drivers import date_time
from drivers.codec import Reader
from drivers.readings import Reading, Status, group_of
from drivers.spec import Characteristic, DriverSpec, uuid16
from drivers.weighing import height_m, mass_kg, read_features, read_origin, spot

_IMPERIAL: Final = 1 << 0
_TIME: Final = 1 << 1
_USER: Final = 1 << 2
_BMI_AND_HEIGHT: Final = 1 << 3
_RESERVED: Final = 0xF0

_UNSUCCESSFUL: Final = 0xFFFF
"""The weight could not be measured (section 3.2.1.2)."""


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Weight Measurement, 0x2A9D (section 3.2).

    Yields the weight in kg, then the BMI in kg/m2 and the height in m if they are present. A weight that could not be measured
    is a failed measurement. The resolution that the scale's features name does not change the unit.
    """
    reader = Reader(payload)
    flags = reader.u8("flags")
    weight = reader.u16("weight")
    origin = read_origin(reader, group_of(payload), has_time=bool(flags & _TIME), has_user=bool(flags & _USER))
    bmi_and_height = (reader.u16("BMI"), reader.u16("height")) if flags & _BMI_AND_HEIGHT else None
    reader.expect_end()

    is_imperial = bool(flags & _IMPERIAL)
    doubts = ("reserved_flags",) if flags & _RESERVED else ()
    readings: list[Reading] = []
    if weight == _UNSUCCESSFUL:
        readings.append(Status("failed_measurement", "weight", origin))
    else:
        unit = ("sent_in_lb",) if is_imperial else ()
        readings.append(spot("weight", mass_kg(weight, is_imperial=is_imperial), origin, doubts + unit))
    if bmi_and_height:
        bmi, height = bmi_and_height
        unit = ("sent_in_inches",) if is_imperial else ()
        readings.append(spot("bmi", bmi / 10, origin, doubts))
        readings.append(spot("height", height_m(height, is_imperial=is_imperial), origin, doubts + unit))
    return tuple(readings)


decode_feature: Final = partial(read_features, names=("timestamp", "multiple_users", "bmi"), weight_bit=3, height_bit=7)
"""Weight Scale Feature, 0x2A9E (section 3.1)."""

DRIVER: Final = DriverSpec(
    name="weight_scale",
    service=uuid16(0x181D),
    streams=(Characteristic(uuid16(0x2A9D), "indicate", decode_measurement),),
    reads=(Characteristic(uuid16(0x2A9E), "read", decode_feature),),
    others=(date_time.CHARACTERISTIC,),
    quirks=(date_time.BONDS_FIRST,),
    converse=date_time.ClockConversation,
    sets_clock=True,
)

"""Battery Service 1.0 (Bluetooth SIG)."""

from typing import Final

from drivers.codec import Reader
from drivers.readings import DecodeError, Reading, Status
from drivers.spec import Characteristic, DriverSpec, uuid16

_LEVEL: Final = uuid16(0x2A19)


def decode_battery_level(payload: bytes) -> tuple[Reading, ...]:
    """Battery Level, 0x2A19 (section 3.1): 0 to 100 %; other values are reserved."""
    reader = Reader(payload)
    level = reader.u8("battery level")
    reader.expect_end()
    if level > 100:
        raise DecodeError(f"battery level: {level} is reserved; the service defines 0 to 100 %")
    return (Status("battery", level),)


DRIVER: Final = DriverSpec(
    name="battery",
    service=uuid16(0x180F),
    streams=(Characteristic(_LEVEL, "notify", decode_battery_level, is_optional=True),),
    reads=(Characteristic(_LEVEL, "read", decode_battery_level),),
)

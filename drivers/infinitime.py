"""Motion service of InfiniTime, the firmware of the PineTime watch: steps and acceleration.

Source: doc/MotionService.md, MotionService.cpp and MotionController.cpp of InfiniTimeOrg/InfiniTime@82505657. The watch sends
its heart rate through the Heart Rate Service.
"""

from typing import Final

from drivers.codec import Reader
from drivers.readings import Reading, Vital
from drivers.spec import Characteristic, DriverSpec

SERVICE: Final = "00030000-78fc-48fe-8e23-433b3a1942d0"
STEP_COUNT: Final = "00030001-78fc-48fe-8e23-433b3a1942d0"
MOTION: Final = "00030002-78fc-48fe-8e23-433b3a1942d0"

_LSB_PER_G: Final = 1024
"""The firmware's "binary milli-g"."""


def decode_step_count(payload: bytes) -> tuple[Reading, ...]:
    """Step count: the steps since midnight on the watch's clock, a 32-bit number."""
    reader = Reader(payload)
    steps = reader.u32("step count")
    reader.expect_end()
    return (Vital("steps", steps),)


def decode_motion(payload: bytes) -> tuple[Reading, ...]:
    """Raw motion values: the acceleration along x, y and z as signed 16-bit numbers. Yields it in units of g."""
    reader = Reader(payload)
    readings = tuple(Vital(f"motion_{axis}", reader.i16(f"motion {axis}") / _LSB_PER_G) for axis in "xyz")
    reader.expect_end()
    return readings


DRIVER: Final = DriverSpec(
    name="infinitime",
    service=SERVICE,
    # The watch notifies a count that has changed, and sends nothing while its wearer is still.
    streams=(Characteristic(STEP_COUNT, "notify", decode_step_count, is_optional=True),),
    # The motion is not subscribed to: the watch would send ten values a second, which its battery does not last for.
    reads=(Characteristic(STEP_COUNT, "read", decode_step_count), Characteristic(MOTION, "read", decode_motion)),
)

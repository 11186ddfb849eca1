"""Mi Smart Scale (Xiaomi): the weight in its advertisements. The layout is known from captures and other projects."""

from typing import Final

from drivers.codec import Reader
from drivers.readings import DecodeError, Origin, Reading, Vital, group_of
from drivers.spec import Broadcast, DriverSpec, uuid16
from drivers.weighing import spot

_POUNDS: Final = 1 << 0
_JIN: Final = 1 << 4
_STABLE: Final = 1 << 5
_OBJECT: Final = 1 << 6

_KG_PER_POUND: Final = 0.45359237
_STEPS_PER_KG: Final = 200
_STEPS_PER_UNIT: Final = 100
"""Pounds and jin are sent in hundredths, kg in 1/200: one jin is 0.5 kg, so a jin has as many steps as half a kg."""


def convert_weight(raw: int, origin: Origin, *, in_pounds: bool, in_jin: bool) -> Vital:
    """The weight that a Xiaomi scale sends, in kg. Raises `DecodeError` for two units at once."""
    if in_pounds and in_jin:
        raise DecodeError("unit: both pounds and jin are set; a scale sends one")
    if in_pounds:
        return spot("weight", round(raw / _STEPS_PER_UNIT * _KG_PER_POUND, 2), origin, ("sent_in_lb",))
    return spot("weight", raw / _STEPS_PER_KG, origin, ("sent_in_jin",) if in_jin else ())


def decode_frame(payload: bytes) -> tuple[Reading, ...]:
    """The 10 octets of the service data: state, weight, time.

    The scale repeats the frame of a weighing until the next one, also after the person has left it. All have the same group:
    that of their weight and time. A weight that is not stable yet, or that of an object, is no reading.
    """
    reader = Reader(payload)
    state = reader.u8("state")
    weight = reader.u16("weight")
    time = reader.measured_time("time")
    reader.expect_end()
    origin = Origin(group_of(payload[1:]), time.at, time.clock)
    vital = convert_weight(weight, origin, in_pounds=bool(state & _POUNDS), in_jin=bool(state & _JIN))
    return (vital,) if state & _STABLE and not state & _OBJECT else ()


DRIVER: Final = DriverSpec(
    name="mi_scale",
    broadcasts=(Broadcast("service_data", uuid16(0x181D), decode_frame),),
)

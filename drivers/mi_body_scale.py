"""Mi Body Composition Scale 1 and 2 (Xiaomi): weight and impedance in its advertisements and, if connected, in 0x2A9C."""

from typing import Final

from drivers.codec import Reader
from drivers.mi_scale import convert_weight
from drivers.readings import Origin, Reading, group_of
from drivers.spec import Broadcast, DriverSpec, uuid16
from drivers.weighing import spot

MODELS: Final = ("MIBFS", "MIBCS", "XMTZC02HM", "XMTZC05HM", "Mi Body Composition Scale", "Mi Body Composition Scale 2")
"""The names that the scales advertise, their model numbers and their trade names."""

_POUNDS: Final = 1 << 0
_OBJECT: Final = 1 << 2
_IMPEDANCE: Final = 1 << 9
_STABLE: Final = 1 << 13
_JIN: Final = 1 << 14
"""Bits of the two octets of the state, little endian."""

_NO_IMPEDANCE: Final = (0, 0xFFFD, 0xFFFE, 0xFFFF)
"""Sent where the scale could not measure the impedance, for example through socks; FFFD is seen in captures."""


def decode_frame(payload: bytes) -> tuple[Reading, ...]:
    """The 13 octets of the service data: state, time, impedance, weight. Yields kg, then Ohm if the impedance was measured.

    Frames of one weighing first have the weight only, then the impedance too; the last one is repeated, also after the person
    has left the scale. All have the same group: that of their weight and time. A weight that is not stable yet, or that of an
    object, is no reading.
    """
    reader = Reader(payload)
    state = reader.u16("state")
    time = reader.measured_time("time")
    impedance = reader.u16("impedance")
    weight = reader.u16("weight")
    reader.expect_end()
    origin = Origin(group_of(payload[2:9] + payload[11:13]), time.at, time.clock)
    vital = convert_weight(weight, origin, in_pounds=bool(state & _POUNDS), in_jin=bool(state & _JIN))
    if not state & _STABLE or state & _OBJECT:
        return ()
    is_measured = state & _IMPEDANCE and impedance not in _NO_IMPEDANCE
    return (vital, spot("impedance", impedance, origin)) if is_measured else (vital,)


DRIVER: Final = DriverSpec(
    name="mi_body_scale",
    broadcasts=(Broadcast("service_data", uuid16(0x181B), decode_frame),),
)

"""Heart rate in the advertisements of Polar sensors and watches, as Polar's BLE SDK reads it."""

from typing import Final

from drivers.codec import Reader
from drivers.heart_rate import rate_flags
from drivers.readings import Reading, Status, Vital
from drivers.spec import Broadcast, DriverSpec

_COMPANY: Final = 0x006B

_CONTACT: Final = 1 << 1
_OTHER_SEGMENT: Final = 1 << 6
"""In a longer advertisement, this bit marks a segment of other data, whose length follows."""
_PLAIN_SIZES: Final = (3, 4)
"""An advertisement of this size is the heart rate alone. There, bit 6 is the type of the sensor."""


def decode_heart_rate(payload: bytes) -> tuple[Reading, ...]:
    """The manufacturer data: state, code of the 5 kHz transmission, fast average, slow average.

    Yields the slow average as the heart rate, because Polar displays it, then the fast average, which old sensors lack, skin
    contact and the other bits of the state as text. The counter in it tells a new measurement from a repeated one. The battery
    bit is left out: it is set in every known capture.
    """
    reader = Reader(payload)
    state = reader.u8("state")
    while len(payload) not in _PLAIN_SIZES and state & _OTHER_SEGMENT:
        reader.read_bytes("other segment", reader.u8("length of the other segment"))
        if not reader.remaining:
            return ()
        state = reader.u8("state")
    code = reader.u8("5 kHz code")
    averages = (reader.u8("fast average"), *((reader.u8("slow average"),) if reader.remaining else ()))
    reader.expect_end()

    rates = zip(("heart_rate", "heart_rate_fast"), reversed(averages), strict=False)
    frame = f"counter={state >> 2 & 7} broadcast={state >> 5 & 1} sensor_type={state >> 6 & 1} status={state >> 7}"
    return (
        *(Vital(kind, rate, rate_flags(rate)) for kind, rate in rates),
        Status("skin_contact", bool(state & _CONTACT)),
        Status("broadcast_frame", f"{frame} khz_code={code}"),
    )


DRIVER: Final = DriverSpec(
    name="polar_broadcast",
    broadcasts=(Broadcast("manufacturer_data", _COMPANY, decode_heart_rate),),
)

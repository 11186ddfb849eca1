"""Mi Band and Amazfit watches (Huami): the last heart rate in their advertisements. The layout is known from captures."""

from typing import Final

from drivers.codec import Reader
from drivers.heart_rate import rate_flags
from drivers.readings import Reading, Vital
from drivers.spec import Broadcast, DriverSpec

_COMPANY: Final = 0x0157
_ACTIVITY: Final = 2
"""The first octet of advertisements that have the heart rate."""
_NOT_MEASURED: Final = 0xFF


def decode_activity(payload: bytes) -> tuple[Reading, ...]:
    """The 24 octets of the manufacturer data: type, two unknown octets, heart rate in 1/min, 14 unknown ones, address.

    The band repeats its last heart rate until it measures again, and does not say when it measured: the flag is `age_unknown`.
    """
    reader = Reader(payload)
    kind = reader.u8("type")
    reader.read_bytes("unknown", 2)
    rate = reader.u8("heart rate")
    reader.read_bytes("unknown and address", 20)
    reader.expect_end()
    if kind != _ACTIVITY or rate == _NOT_MEASURED:
        return ()
    return (Vital("heart_rate", rate, ("age_unknown", *rate_flags(rate))),)


DRIVER: Final = DriverSpec(
    name="mi_band",
    broadcasts=(Broadcast("manufacturer_data", _COMPANY, decode_activity),),
)

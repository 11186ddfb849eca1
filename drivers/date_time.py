"""Date Time (0x2A08) inside a service of measurements: the clock of A&D's cuffs, thermometers and scales.

Source: GATT Specification Supplement, "Date Time"; A&D's protocol of the UA-651BLE. The SIG's services do not contain this
characteristic: a sensor that has it there takes the hub's local time from it, in place of the Current Time Service.
"""

import struct
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Context, Effect, Moment, Procedure, Read, RefusedError, Value, Write, do_nothing
from drivers.current_time import MAX_OFFSET_S, decode_date_time, local_time, measure_offset_s
from drivers.device import Quirk
from drivers.readings import DecodeError, Quarantined, Status
from drivers.spec import Characteristic, uuid16

DATE_TIME: Final = uuid16(0x2A08)

BONDS_FIRST: Final = Quirk(
    why="A&D's sensors show E10 and switch off when their services are discovered on a link without a bond "
    "(A&D's AndroidSampleCode, issue 1). Their advertised names begin with A&D_.",
    models=("A&D",),
    bonds_first=True,
)


def encode_local_time(now: Moment) -> bytes:
    """Return the patient's local time as 7 octets: year, month, day, hour, minute, second."""
    time = local_time(now)
    return struct.pack("<H5B", time.year, time.month, time.day, time.hour, time.minute, time.second)


def set_clock(now: Moment) -> Procedure:
    """Read the clock, and set it to the patient's local time where it is wrong or cannot be read.

    Most sensors have no clock here, and some refuse: they are used as they are. Yields the time that the sensor has, by how
    much it is wrong, and whether it was set. Results that are stored in the sensor have times of the clock before.
    """
    payload = yield Read(DATE_TIME)
    offset_s = None
    if payload is not None:
        try:
            yield from decode_date_time(payload)
        except DecodeError as error:
            yield Quarantined(DATE_TIME, payload, str(error))
        else:
            offset_s = measure_offset_s(Reader(payload).measured_time("date and time"), 0, now)
    if not now.is_plausible:
        return
    if offset_s is not None:
        yield Status("sensor_clock_offset_s", offset_s)
    if offset_s is None or abs(offset_s) > MAX_OFFSET_S:
        yield from _write(now, is_readable=payload is not None)


def _write(now: Moment, *, is_readable: bool) -> Procedure:
    try:
        yield Write(DATE_TIME, encode_local_time(now))
    except RefusedError:
        if is_readable:  # else the sensor may have no clock
            yield Status("sensor_clock_written", False)
    else:
        yield Status("sensor_clock_written", True)


CHARACTERISTIC: Final = Characteristic(DATE_TIME, "read", decode_date_time)
"""For `DriverSpec.others`: the conversation reads it."""


class ClockConversation:
    """Sets the sensor's clock, and nothing else."""

    def __init__(self, context: Context) -> None:
        del context

    def start(self, now: Moment) -> Procedure:
        return set_clock(now)

    def receive(self, value: Value) -> tuple[Effect, ...]:
        """No stream is left to the conversation."""
        del value
        return ()

    def stop(self) -> Procedure:
        return do_nothing()

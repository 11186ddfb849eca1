"""Date Time (0x2A08) inside a service of measurements: the clock of A&D's cuffs, thermometers and scales.

Source: GATT Specification Supplement, "Date Time"; A&D's protocol of the UA-651BLE. The SIG's services do not contain this
characteristic: a sensor that has it there takes the hub's local time from it, in place of the Current Time Service.
"""

import struct
from datetime import UTC, datetime
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Context, Effect, Moment, Procedure, Read, RefusedError, Value, Write, do_nothing
from drivers.device import Quirk
from drivers.readings import DecodeError, Reading, Status
from drivers.spec import Characteristic, uuid16

DATE_TIME: Final = uuid16(0x2A08)

BONDS_FIRST: Final = Quirk(
    why="A&D's sensors show E10 and switch off when their services are discovered on a link without a bond "
    "(A&D's AndroidSampleCode, issue 1). Their advertised names begin with A&D_.",
    models=("A&D",),
    bonds_first=True,
)


def decode_date_time(payload: bytes) -> tuple[Reading, ...]:
    """Decode the sensor's own date and time, local: a status in ISO 8601 form, "unknown" or "invalid"."""
    reader = Reader(payload)
    sent = reader.measured_time("date and time")
    reader.expect_end()
    return (Status("sensor_time", sent.at.isoformat() if sent.at else sent.clock),)


def encode_local_time(now: Moment) -> bytes:
    """Return the patient's local time as 7 octets: year, month, day, hour, minute, second."""
    local = _local_time(now)
    return struct.pack("<H5B", local.year, local.month, local.day, local.hour, local.minute, local.second)


def set_clock(now: Moment) -> Procedure:
    """Set the clock to the patient's local time. Most sensors have none here, and some refuse: they are used as they are.

    Yields first by how much the clock was wrong, because the results that are stored in the sensor have times of that clock;
    then whether it was set.
    """
    before = yield Read(DATE_TIME)
    offset_s = None if before is None else _measure_offset_s(before, now)
    if offset_s is not None:
        yield Status("sensor_clock_offset_s", offset_s)
    try:  # also where it could not be read: a clock may be there to be written only
        yield Write(DATE_TIME, encode_local_time(now))
    except RefusedError:
        if before is not None:
            yield Status("sensor_clock_written", False)
    else:
        yield Status("sensor_clock_written", True)


def _local_time(now: Moment) -> datetime:
    """The patient's local time to the second, without a time zone as sensors keep it."""
    return datetime.fromtimestamp(now.utc_us // 1_000_000 + now.utc_offset_s, UTC).replace(tzinfo=None)


def _measure_offset_s(payload: bytes, now: Moment) -> float | None:
    """The sensor's clock minus the patient's local time; None where the sensor has no date."""
    try:
        sent = Reader(payload).measured_time("date and time")
    except DecodeError:
        return None
    return (sent.at - _local_time(now)).total_seconds() if sent.at else None


READ: Final = Characteristic(DATE_TIME, "read", decode_date_time)


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

"""Health Thermometer Service 1.0 (Bluetooth SIG): body temperature, final and intermediate, its site and its interval."""

from dataclasses import dataclass
from typing import Final

from drivers import date_time
from drivers.codec import MeasuredTime, Reader, SpecialValue
from drivers.readings import Origin, Reading, Status, Vital, group_of
from drivers.spec import Characteristic, DriverSpec, uuid16

SURVIVED_RANGE_C: Final = (11.0, 47.0)
"""Core temperatures that people survived: 11.8 °C in an accidental hypothermia, 46.5 °C in a heat stroke. A value outside has
another unit or layout than it says."""

_FAHRENHEIT: Final = 1 << 0
_TIME: Final = 1 << 1
_SITE: Final = 1 << 2
_RESERVED_FLAGS: Final = 0b1111_1000

_SITES: Final = ("armpit", "body", "ear", "finger", "gastrointestinal tract", "mouth", "rectum", "toe", "tympanum")
"""Temperature Type, from 1 on. "body" is the body in general."""


@dataclass(frozen=True, slots=True)
class _Measurement:
    """The fields of a Temperature Measurement; `celsius` and `site` are None where the thermometer sends none."""

    celsius: float | None
    flags: tuple[str, ...]
    time: MeasuredTime | None
    site: str | None


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Decode a Temperature Measurement, 0x2A1C (section 3.1): the temperature in °C, and the site where it was measured.

    A temperature that is not a number is a failed measurement. Reserved flags and a reserved site are ignored.
    """
    measurement = _read_measurement(payload)
    time = measurement.time
    origin = Origin(group_of(payload), measured=time.at if time else None, clock=time.clock if time else None)
    result = (
        Status("failed_measurement", "temperature", origin)
        if measurement.celsius is None
        else Vital("temperature", measurement.celsius, measurement.flags, origin)
    )
    site = measurement.site
    return (result,) if site is None else (result, Status("temperature_site", site, origin))


def decode_intermediate(payload: bytes) -> tuple[Reading, ...]:
    """Decode an Intermediate Temperature, 0x2A1E (section 3.3): a value before the final one, never a result.

    The date and time and the site are in a text.
    """
    measurement = _read_measurement(payload)
    if measurement.celsius is None:
        return ()
    time, site = measurement.time, measurement.site
    details = [f"measured={time.at.isoformat() if time.at else time.clock}"] if time else []
    details += [f"site={site.replace(' ', '_')}"] if site else []
    told = (Status("temperature_intermediate_details", " ".join(details)),) if details else ()
    return (Vital("temperature_intermediate", measurement.celsius, measurement.flags), *told)


def decode_type(payload: bytes) -> tuple[Reading, ...]:
    """Decode the Temperature Type, 0x2A1D (section 3.2): the site of a thermometer that has one, or "unknown"."""
    reader = Reader(payload)
    number = reader.u8("temperature type")
    reader.expect_end()
    return (Status("temperature_site", _site(number) or "unknown"),)


def decode_interval(payload: bytes) -> tuple[Reading, ...]:
    """Decode the Measurement Interval, 0x2A21 (section 3.4), in s; 0 means that the thermometer does not measure by itself."""
    reader = Reader(payload)
    interval_s = reader.u16("measurement interval")
    reader.expect_end()
    return (Status("measurement_interval", interval_s),)


def _read_measurement(payload: bytes) -> _Measurement:
    reader = Reader(payload)
    flags = reader.u8("flags")
    value = reader.float32("temperature")
    time = reader.measured_time("time stamp") if flags & _TIME else None
    site = _site(reader.u8("temperature type")) if flags & _SITE else None
    reader.expect_end()
    celsius = None if isinstance(value, SpecialValue) else _in_celsius(value, is_fahrenheit=bool(flags & _FAHRENHEIT))
    return _Measurement(celsius, _flags(flags, celsius), time, site)


def _in_celsius(value: float, *, is_fahrenheit: bool) -> float:
    return round((value - 32) * 5 / 9, 2) if is_fahrenheit else value


def _flags(flags: int, celsius: float | None) -> tuple[str, ...]:
    named = ["sent_in_fahrenheit"] * bool(flags & _FAHRENHEIT)
    named += ["reserved_flags"] * bool(flags & _RESERVED_FLAGS)
    named += ["implausible"] * (celsius is not None and not SURVIVED_RANGE_C[0] <= celsius <= SURVIVED_RANGE_C[1])
    return tuple(named)


def _site(number: int) -> str | None:
    return _SITES[number - 1] if 1 <= number <= len(_SITES) else None


DRIVER: Final = DriverSpec(
    name="health_thermometer",
    service=uuid16(0x1809),
    streams=(
        Characteristic(uuid16(0x2A1C), "indicate", decode_measurement),
        Characteristic(uuid16(0x2A1E), "notify", decode_intermediate, is_optional=True),
    ),
    reads=(
        Characteristic(uuid16(0x2A1D), "read", decode_type),
        Characteristic(uuid16(0x2A21), "read", decode_interval),
    ),
    others=(date_time.CHARACTERISTIC,),
    quirks=(date_time.BONDS_FIRST,),
    converse=date_time.ClockConversation,
    sets_clock=True,
)

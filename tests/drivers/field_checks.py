"""Checks of single fields of the vectors of devices, for `tests.drivers.device_fields`.

A check is given the readings, the expected value and the vector. Values are compared in the unit of their kind, with as many
decimals as the expected value has.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from drivers.kinds import KINDS
from drivers.readings import TICKS_PER_SECOND, Intervals, Origin, Reading, Status, Vital, Waveform

SPECIAL_VALUES: Final = {"NaN", "NRes", "+INF", "-INF", "reserved"}


@dataclass(frozen=True)
class Found:
    """The readings of a payload, by what a field may ask for."""

    readings: tuple[Reading, ...]

    def values(self, *kinds: str) -> list[Any]:
        """The values of vitals and statuses of these kinds."""
        return [r.value for r in self.readings if isinstance(r, Vital | Status) and r.kind in kinds]

    def texts(self, *kinds: str) -> list[str]:
        """The statuses of these kinds, or of all, as text."""
        return [str(r.value) for r in self.readings if isinstance(r, Status) and (not kinds or r.kind in kinds)]

    @property
    def kinds(self) -> set[str]:
        return {r.kind for r in self.readings if isinstance(r, Vital | Status | Intervals | Waveform)}

    @property
    def flags(self) -> set[str]:
        return {flag for r in self.readings if isinstance(r, Vital) for flag in r.flags}

    @property
    def origins(self) -> list[Origin]:
        return [r.origin for r in self.readings if isinstance(r, Vital | Status) and r.origin is not None]

    @property
    def waves(self) -> list[Waveform]:
        return [r for r in self.readings if isinstance(r, Waveform)]

    def ticks(self, *, but: Iterable[str] = ()) -> list[int]:
        return [tick for r in self.readings if isinstance(r, Intervals) and r.kind not in but for tick in r.ticks]


Check = Callable[[Found, Any, dict[str, Any]], bool]


def is_close(value: float, expected: float) -> bool:
    """Whether the value is the expected one, rounded to its decimals."""
    decimals = len(str(float(expected)).partition(".")[2]) if abs(expected) >= 1e-3 or expected == 0 else 0
    return math.isclose(value, expected, rel_tol=1e-6) or round(value, max(decimals, 1)) == expected


def number(*kinds: str, factor: float = 1.0, decimals: int | None = None, flag: str | None = None) -> Check:
    """A value of one of these kinds; none where the expected value is null, special or a stub. `flag` must accompany it."""

    def check(found: Found, expected: Any, vector: dict[str, Any]) -> bool:
        values = found.values(*kinds)
        is_stub = expected == 0 and "placeholder" in vector["expect"].get("judgement", [])
        if expected is None or expected in SPECIAL_VALUES or is_stub:
            return not values
        sought = expected * factor if decimals is None else round(expected * factor, decimals)
        return any(is_close(value, sought) for value in values) and (flag is None or flag in found.flags)

    return check


def text(*kinds: str) -> Check:
    """A status of one of these kinds, or of any; none where the expected value is null. A list has one status an item."""

    def check(found: Found, expected: Any, _vector: dict[str, Any]) -> bool:
        wanted = [] if expected is None else [str(item) for item in (expected if isinstance(expected, list) else [expected])]
        return found.texts(*kinds) == wanted

    return check


def mention(*kinds: str, form: str = "{}") -> Check:
    """A status of one of these kinds that mentions the value, or each item of a list, in the given form."""

    def check(found: Found, expected: Any, _vector: dict[str, Any]) -> bool:
        items = expected if isinstance(expected, list) else [expected]
        written = [str(item).lower() if isinstance(item, bool) else str(item) for item in items]
        return all(any(form.format(item) in said for said in found.texts(*kinds)) for item in written)

    return check


def first_of(*checks: Check) -> Check:
    """One of the checks succeeds: a field has several meanings."""
    return lambda found, expected, vector: any(check(found, expected, vector) for check in checks)


def flagged(flag: str) -> Check:
    return lambda found, _expected, _vector: flag in found.flags


def of_kind(kind: str) -> Check:
    return lambda found, _expected, _vector: kind in found.kinds


def has_clock(state: str) -> Check:
    def check(found: Found, _expected: Any, _vector: dict[str, Any]) -> bool:
        return any(origin.clock == state for origin in found.origins) or state in found.texts("sensor_time")

    return check


JUDGEMENTS: Final[dict[str, Check]] = {
    "failed_measurement": of_kind("failed_measurement"),
    "unknown_time": has_clock("unknown"),
    "invalid_time": has_clock("invalid"),
    "clock_not_set": has_clock("not_set"),
    "unknown_user": flagged("unknown_user"),
    "no_pulse": flagged("no_pulse_found"),
    "zero_interval": flagged("zero_interval"),
    "rr_filler": flagged("rr_filler"),
    "rr_flag_without_interval": flagged("rr_flag_without_interval"),
    "implausible_rate": flagged("implausible"),
    "implausible_value": flagged("implausible"),
    "implausible_pressure": flagged("implausible"),
    "implausible_interval": of_kind("rr_implausible"),
    "placeholder": of_kind("placeholder"),
    "multiple_packets": flagged("multiple_packets"),
    "reserved_flags": flagged("reserved_flags"),
}


def check_judgement(found: Found, expected: list[str], vector: dict[str, Any]) -> bool:
    return all(JUDGEMENTS[name](found, None, vector) for name in expected)


def check_timestamp(found: Found, expected: str | None, _vector: dict[str, Any]) -> bool:
    measured = {origin.measured.isoformat() if origin.measured else None for origin in found.origins}
    said = {None if value in ("unknown", "invalid") else value for value in found.texts("sensor_time")}
    return (measured | said) == {expected}


def check_user(found: Found, expected: int | None, vector: dict[str, Any]) -> bool:
    if vector["service"] == "181C":
        return not found.readings if expected is None else mention("user_control", form="user={}")(found, expected, vector)
    return {origin.user for origin in found.origins} == {expected}


CONTACTS: Final = {"detected": [True], "not detected": [False], "not supported": [], True: [True], False: [False]}


def check_contact(found: Found, expected: str | bool, _vector: dict[str, Any]) -> bool:
    lost = expected == "not detected"
    return found.values("skin_contact") == CONTACTS.get(expected) and lost == ("no_contact" in found.flags)


def check_intervals(found: Found, expected: list[int], vector: dict[str, Any]) -> bool:
    """The intervals in ticks. A disputed vector may mean milliseconds, as its note argues."""
    ticks = found.ticks()
    in_ms = [round(tick * 1000 / TICKS_PER_SECOND) for tick in ticks]
    return ticks == expected or (bool(vector.get("disputed")) and in_ms == expected)


def check_system_id(part: slice) -> Check:
    """Part of the System ID. A filler pattern has a kind of its own, so that it is never taken for an identity."""
    return lambda found, expected, _vector: [value[part] for value in found.values("system_id_filler")] == [expected]


CUFF_STATUS: Final = {0: "body_movement", 1: "cuff_too_loose", 2: "irregular_pulse", 5: "improper_position"}
PULSE_RANGE: Final = {1: "pulse_above_range", 2: "pulse_below_range", 3: "pulse_range_reserved"}


def check_cuff_status_bits(found: Found, expected: int, _vector: dict[str, Any]) -> bool:
    names = {name for bit, name in CUFF_STATUS.items() if expected >> bit & 1} | ({PULSE_RANGE.get(expected >> 3 & 3)} - {None})
    reserved = {"reserved_bits"} if expected >> 6 else set()
    known = {*CUFF_STATUS.values(), *PULSE_RANGE.values(), "reserved_bits"}
    return found.flags & known == names | reserved and (not reserved or found.values("blood_pressure_status") == [expected])


def check_status(found: Found, expected: str | list[str], vector: dict[str, Any]) -> bool:
    if isinstance(expected, str):
        return text("control_status")(found, expected, vector)
    return set(expected) <= found.flags


def check_sensor_status(found: Found, expected: list[str], vector: dict[str, Any]) -> bool:
    """The status of an oximeter: flags of its values, or a status where it has none."""
    return set(expected) <= found.flags or mention("oximeter_status")(found, expected, vector)


def check_stamp_ms(found: Found, expected: int, _vector: dict[str, Any]) -> bool:
    return expected * 1_000_000 in [wave.last_ns for wave in found.waves]


UNITS: Final = {"mG": "m[g]", "counts": "", "raw": "", "dps": "", "hPa": "hPa", "C": "Cel", "kg": "kg", "lb": "kg"}
"""The unit of the kinds, by the first word of the expected unit. Raw values, before their factor is known, have none."""


def check_unit(found: Found, expected: str, _vector: dict[str, Any]) -> bool:
    units = {KINDS[r.kind].ucum for r in found.readings if isinstance(r, Waveform | Vital) and r.kind != "impedance"}
    return units == {UNITS[expected.split(maxsplit=1)[0]]} and (expected == "lb") == ("sent_in_lb" in found.flags)


def feature(name: str) -> Check:
    """Whether the sensor says that it has a feature."""
    return lambda found, expected, _vector: [name in said for said in found.texts("features")] == [expected]


def check_fahrenheit(found: Found, expected: float, _vector: dict[str, Any]) -> bool:
    return found.values("temperature") == [round((expected - 32) / 1.8, 2)] and "sent_in_fahrenheit" in found.flags


def check_triples(found: Found, expected: list[list[float]], _vector: dict[str, Any]) -> bool:
    return all(
        round(wave.samples[i] * wave.scale, 4) == sample[axis]
        for i, sample in enumerate(expected)
        for axis, wave in enumerate(found.waves)
    )


def is_framing(_found: Found, _expected: Any, _vector: dict[str, Any]) -> bool:
    """The field concerns the frame only: it decides how the other fields are read, and no reading has it."""
    return True

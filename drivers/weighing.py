"""What the drivers of scales share: units, origins, features, and the results of one weighing."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from drivers.codec import Reader
from drivers.readings import Origin, Reading, Status, Vital

JOIN_WITHIN_S: Final = 10.0
"""Beurer scales send body composition within seconds after the weight that it belongs to. Two persons need more time."""

BODY_COMPOSITION: Final = "body composition"
"""What a `failed_measurement` or `placeholder` of body composition says that it is about."""
BODY_KINDS: Final = frozenset(
    {
        "body_fat",
        "basal_metabolism",
        "muscle_percentage",
        "muscle_mass",
        "fat_free_mass",
        "soft_lean_mass",
        "body_water_mass",
        "impedance",
    }
)
"""The kinds of vital signs that only body composition has."""

_PERCENTAGES: Final = ("body_fat", "muscle_percentage")

_UNKNOWN_USER: Final = 255
"""Sent where the scale does not recognise the user: Weight Scale Service 1.0, section 3.2.1.4."""

_KG_STEP_G: Final = 5
_LB_STEP_G: Final = 4.5359237
"""0.01 lb; the international pound has 453.59237 g."""
_M_STEP_MM: Final = 1
_IN_STEP_MM: Final = 2.54
"""0.1 in."""

_WEIGHT_RESOLUTIONS: Final = (
    "not specified",
    "0.5 kg or 1 lb",
    "0.2 kg or 0.5 lb",
    "0.1 kg or 0.2 lb",
    "0.05 kg or 0.1 lb",
    "0.02 kg or 0.05 lb",
    "0.01 kg or 0.02 lb",
    "0.005 kg or 0.01 lb",
)
_HEIGHT_RESOLUTIONS: Final = ("not specified", "0.01 m or 1 in", "0.005 m or 0.5 in", "0.001 m or 0.1 in")
"""By code: Weight Scale Service 1.0, section 3.1.1; Body Composition Service 1.0, section 3.1.1, has the same."""


def mass_kg(raw: int, *, is_imperial: bool) -> float:
    """A mass in kg; it is sent in steps of 0.005 kg or of 0.01 lb. Pounds are converted and rounded to 0.01 kg."""
    return round(raw * _LB_STEP_G / 1000, 2) if is_imperial else raw * _KG_STEP_G / 1000


def height_m(raw: int, *, is_imperial: bool) -> float:
    """A height in m; it is sent in steps of 0.001 m or of 0.1 in. Inches are converted and rounded to 0.001 m."""
    return round(raw * _IN_STEP_MM / 1000, 3) if is_imperial else raw * _M_STEP_MM / 1000


def read_origin(reader: Reader, group: int, *, has_time: bool, has_user: bool) -> Origin:
    """Read the time and the user that a scale sends with a result."""
    time = reader.measured_time("time stamp") if has_time else None
    user = reader.u8("user ID") if has_user else _UNKNOWN_USER
    named = None if user == _UNKNOWN_USER else user
    return Origin(group, time.at, time.clock, user=named) if time else Origin(group, user=named)


def spot(kind: str, value: float, origin: Origin, flags: tuple[str, ...] = ()) -> Vital:
    """A measured value of a person. Those that no person can have, 0 and more than 100 %, have the flag `implausible`."""
    is_possible = value > 0 and (kind not in _PERCENTAGES or value <= 100)
    return Vital(kind, value, flags if is_possible else (*flags, "implausible"), origin)


def read_features(payload: bytes, names: tuple[str, ...], weight_bit: int, height_bit: int) -> tuple[Reading, ...]:
    """Decode the features of a scale: a bit for each of `names`, then the codes of the resolutions from the given bits on.

    The resolutions are informational: the unit of a sent value does not depend on them.
    """
    reader = Reader(payload)
    bits = reader.u32("features")
    reader.expect_end()
    features = ", ".join(name for bit, name in enumerate(names) if bits >> bit & 1)
    return (
        Status("features", features or "none"),
        Status("weight_resolution", _resolution(bits >> weight_bit & 0xF, _WEIGHT_RESOLUTIONS)),
        Status("height_resolution", _resolution(bits >> height_bit & 0x7, _HEIGHT_RESOLUTIONS)),
    )


def _resolution(code: int, names: tuple[str, ...]) -> str:
    return f"code {code}: {names[code] if code < len(names) else 'reserved'}"


class WeighingJoiner:
    """Gives body composition that has neither time nor user the origin of the weight before it. One for each connection.

    A scale sends the weight and the body composition of one weighing in two services.
    """

    def __init__(self) -> None:
        self._weight: Origin | None = None
        self._weight_at_s = 0.0

    def join(self, readings: tuple[Reading, ...], arrived_s: float) -> tuple[Reading, ...]:
        """Return the readings of one value, joined. `arrived_s` is a monotonic time in seconds."""
        origin = _origin_of(readings)
        if origin is None:
            return readings
        if not any(_is_body(reading) for reading in readings):
            if any(isinstance(reading, Vital) and reading.kind == "weight" for reading in readings):
                self._weight, self._weight_at_s = origin, arrived_s
            return readings
        is_anonymous = origin.measured is None and origin.user is None
        if self._weight is None or not is_anonymous or arrived_s - self._weight_at_s > JOIN_WITHIN_S:
            return readings
        return tuple(replace(r, origin=self._weight) if isinstance(r, Vital | Status) else r for r in readings)


def _origin_of(readings: Iterable[Reading]) -> Origin | None:
    return next((reading.origin for reading in readings if isinstance(reading, (Vital, Status)) and reading.origin), None)


def _is_body(reading: Reading) -> bool:
    match reading:
        case Vital(kind):
            return kind in BODY_KINDS
        case Status(_, value):
            return value == BODY_COMPOSITION
        case _:
            return False

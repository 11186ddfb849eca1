"""Decides whether a result that a person measured on demand is new, when it was measured, and whether it is this patient's.

A result is the readings with one `Origin.group`. Time and person are decided at its first reading, from the readings that
arrive with it, and hold for those that follow.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import tzinfo
from typing import Any, Final, Literal, TypeGuard

from drivers.readings import Origin, Reading, Status, Vital
from gateway.spot_times import NOT_USABLE, SpotTimes, local_as_us
from gateway.timeline import Arrival
from sync.records import SpotOrigin, Times

Spot = Vital | Status
Whose = Literal["patient", "other", "unconfirmed"]
"""Whose a result is: the patient's, certainly another person's, or possibly so: then the patient is asked."""

MAX_RESULTS: Final = 512
"""Results that are recognised when the sensor sends them again: twice as many as a scale stores, 30 of each of 8 users. A cuff
stores at most 200."""
REPEAT_US: Final = 120 * 1_000_000
"""A result without a usable date and a number is a repeat within this time: sensors send a result several times until its
connection ends, or advertise it for a minute. After a longer silence, the same values are a new measurement."""
MAX_HELD: Final = 64
"""Results that wait for the patient's answer, of one sensor: two months of another person's daily weight. The oldest goes."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was decided about a result.

    `is_datable` says whether its time can be used: not if it comes from the sensor's memory without a usable time.
    """

    times: Times
    origin: SpotOrigin
    whose: Whose = "patient"

    @property
    def is_datable(self) -> bool:
        return not (self.origin.is_stored and self.origin.time_source == "arrival")


@dataclass(slots=True)
class HeldResult:
    """A result that waits for the patient's answer; `values` are kind, value and flags of each reading.

    `is_sent`: it was sent to the clinic at once, marked as unconfirmed, because its value alone raises an alert.
    """

    result: Result
    values: list[tuple[str, float, tuple[str, ...]]] = field(default_factory=list)
    is_sent: bool = False

    @property
    def id(self) -> str:
        """Identifies the result to the patient: 12 hexadecimal digits."""
        return f"{self.result.origin.group:012x}"

    def to_state(self) -> dict[str, Any]:
        return {
            "times": asdict(self.result.times),
            "origin": asdict(self.result.origin),
            "values": [[kind, value, list(flags)] for kind, value, flags in self.values],
            "is_sent": self.is_sent,
        }

    @classmethod
    def from_state(cls, saved: Mapping[str, Any]) -> "HeldResult":
        result = Result(Times(**saved["times"]), SpotOrigin(**saved["origin"]), "unconfirmed")
        values = [(kind, value, tuple(flags)) for kind, value, flags in saved["values"]]
        return cls(result, values, saved["is_sent"])


def held_results(saved: Mapping[str, Any] | None) -> list[HeldResult]:
    """The results in a saved state that wait for the patient's answer, oldest first."""
    return [HeldResult.from_state(held) for held in saved["held"]] if saved else []


@dataclass(slots=True)
class SpotCounters:
    """Counts results since the sensor is known. The names are keys of the saved state.

    Attributes:
        of_others: in a slot of the sensor that is not this patient's; they were dropped.
        repeats: the sensor sent them again.
        rejected: the patient said that they are another person's.
        given_up: deleted without an answer, because more than `MAX_HELD` waited.
    """

    of_others: int = 0
    repeats: int = 0
    rejected: int = 0
    given_up: int = 0


class SpotResults:
    """The results of one sensor."""

    def __init__(
        self, slots: Collection[int] | None, saved: Mapping[str, Any] | None = None, zone: tzinfo | None = None
    ) -> None:
        """`slots` are the sensor's numbers of this patient; None: every result is the patient's. `saved` is the last `state()`.

        `zone` is the patient's time zone; None: that of the hub.
        """
        unknown: dict[str, Any] = {"times": None, "seen": {}, "held": [], "counters": {}, "last_person": (0, "patient")}
        past = unknown | dict(saved or {})
        self._state = saved
        """What `state` returned last. It is made again only after a change, because a pipeline asks after each notification."""
        self._is_changed = False
        self._slots = slots
        self._times = SpotTimes(past["times"], zone)
        self._seen: dict[int, list[Any]] = {int(group, 16): list(seen) for group, seen in past["seen"].items()}
        """By group, oldest first: the time of its last arrival, and the kinds that came."""
        self._current: dict[int, Result] = {}
        """The results that are being received."""
        self._held = {held.id: held for held in held_results(past)}
        self._last_person: tuple[int, Whose] = tuple(past["last_person"])
        """When the last result arrived, and whose it was."""
        self.counters = SpotCounters(**past["counters"])

    def state(self) -> Mapping[str, Any] | None:
        """What must survive a restart, ready for JSON; None if nothing is known."""
        if self._is_changed:
            self._state = {
                "times": self._times.state(),
                "seen": {f"{group:012x}": list(seen) for group, seen in self._seen.items()},
                "held": [held.to_state() for held in self._held.values()],
                "counters": asdict(self.counters),
                "last_person": list(self._last_person),
            }
            self._is_changed = False
        return self._state

    @property
    def held(self) -> Sequence[HeldResult]:
        """The results that wait for the patient's answer, oldest first."""
        return tuple(self._held.values())

    def is_held(self, id_: str) -> bool:
        """Whether this result waits for the patient's answer."""
        return id_ in self._held

    def on_status(self, status: Status, arrival: Arrival) -> None:
        """Learn what a status says of the sensor's clock."""
        if status.kind == "sensor_clock_written" and status.value is True:
            self._times.on_clock_set(arrival.wall_us)
        elif status.kind == "sensor_time" and isinstance(status.value, str):
            self._times.observe(status.value, arrival.wall_us)
        else:
            return
        self._is_changed = True

    def on_disconnected(self) -> None:
        """The connection has ended."""
        self._times.on_disconnected()

    def begin(self, arrival: Arrival) -> None:
        """Readings arrive. Results whose readings all came long ago are not continued."""
        self._current = {
            group: result
            for group, result in self._current.items()
            if abs(arrival.wall_us - result.times.arrived_us) <= REPEAT_US
        }

    def select_new(self, readings: Sequence[Spot], origin: Origin, arrival: Arrival) -> list[Spot]:
        """Return the readings of a result that the sensor has not sent before, and remember them. They arrived together."""
        self._is_changed = True
        seen = self._seen.get(origin.group)
        if seen is not None and not _has_identity(origin) and abs(arrival.wall_us - seen[0]) > REPEAT_US:
            seen = None
            self._current.pop(origin.group, None)
        if seen is None:
            self._seen.pop(origin.group, None)
            seen = self._seen[origin.group] = [arrival.wall_us]
            for group in list(self._seen)[:-MAX_RESULTS]:
                del self._seen[group]
        seen[0] = arrival.wall_us
        new = [reading for reading in readings if reading.kind not in seen[1:]]
        self.counters.repeats += len(readings) - len(new)
        seen.extend(dict.fromkeys(reading.kind for reading in new))
        return new

    def decide(self, origin: Origin, arrival: Arrival, is_like_patient: bool | None) -> Result:
        """Return what holds for a result's readings, decided at the first of them.

        `is_like_patient` says whether the result can be this patient's by what was measured before; None: it does not tell.
        """
        known, held = self._current.get(origin.group), self._held.get(f"{origin.group:012x}")
        if known is None and held is not None:
            known = held.result
        if known is not None:
            return known
        whose = self._find_person(origin.user, is_like_patient, arrival.wall_us)
        self._last_person = (arrival.wall_us, whose)
        at_us, source = self._times.find(origin, arrival.wall_us)
        measured, clock = origin.measured, origin.clock
        local_us = None if measured is None else local_as_us(measured)
        if measured is not None and local_us is None:
            clock = "invalid"
        spot = SpotOrigin(origin.group, source, origin.is_stored, local_us, clock, origin.record, origin.user)
        result = Result(Times(at_us, arrival.wall_us, arrival.mono_ns), spot, whose)
        if whose == "other":
            self.counters.of_others += 1
        self._current[origin.group] = result
        return result

    def hold(self, result: Result, readings: Iterable[Vital], *, is_urgent: bool) -> HeldResult:
        """Keep readings of a result until the patient answers. `is_urgent`: the clinic must have them before."""
        held = self._held.setdefault(f"{result.origin.group:012x}", HeldResult(result))
        held.is_sent |= is_urgent
        held.values.extend((reading.kind, reading.value, reading.flags) for reading in readings)
        for id_ in list(self._held)[:-MAX_HELD]:
            del self._held[id_]
            self.counters.given_up += 1
        return held

    def answer(self, id_: str, *, is_patient: bool) -> HeldResult | None:
        """End the wait for an answer; returns the result. None: no such result waits."""
        self._is_changed = True
        held = self._held.pop(id_, None)
        if held is not None and not is_patient:
            self.counters.rejected += 1
        return held

    def _find_person(self, user: int | None, is_like_patient: bool | None, now_us: int) -> Whose:
        """Whose a result is. What tells nothing, as a body composition, is of the person of the result just before it."""
        if self._slots is None:
            return "patient"
        if user is not None:
            return "patient" if user in self._slots else "other"
        if is_like_patient is None:
            last_us, last_person = self._last_person
            return last_person if abs(now_us - last_us) <= REPEAT_US else "patient"
        return "patient" if is_like_patient else "unconfirmed"


def _has_identity(origin: Origin) -> bool:
    """Whether two results with the same content are the same: not where the sensor's date may stand still."""
    is_dated = origin.measured is not None and (origin.is_stored or origin.clock not in NOT_USABLE)
    return is_dated or origin.record is not None


def is_of_result(reading: Reading) -> TypeGuard[Spot]:
    """Whether a reading belongs to a result that was measured on demand."""
    return isinstance(reading, (Vital, Status)) and reading.origin is not None


def gather_results(readings: Sequence[Reading]) -> list[Reading | tuple[Spot, ...]]:
    """Returns the readings in their order; those of one result together, at the place of the first."""
    results: dict[int, list[Spot]] = {}
    for reading in filter(is_of_result, readings):
        results.setdefault(_group(reading), []).append(reading)
    return [
        tuple(results.pop(_group(reading))) if is_of_result(reading) else reading
        for reading in readings
        if not is_of_result(reading) or _group(reading) in results
    ]


def _group(reading: Spot) -> int:
    assert reading.origin is not None
    return reading.origin.group

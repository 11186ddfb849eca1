"""The audit of the sensors in the home: compares what each measured and sent with what the clinic holds of it.

A result that a person measured is compared by its values: the clinic must hold every confirmed one once. A sensor keeps what no
hub has confirmed, so such a result is not lost. A continuous value is compared by number: how many times it was sent, and how
many times the clinic holds it.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gateway.simulate.peripherals.watch import STEPS

IN_FLIGHT_US: Final = 2_000_000
"""What is sent within this time before the end of a connection may not arrive: nobody confirms a notification."""
_READ_BY_THE_HUB: Final = frozenset({"steps"})
"""Kinds that the hub also reads when it connects, so it holds some more of them than were sent."""

Json = Mapping[str, Any]
Values = frozenset[tuple[str, float | str]]


def _decode_rate(payload: bytes) -> dict[str, float]:
    return {"heart_rate": payload[1]}


def _decode_steps(payload: bytes) -> dict[str, float]:
    return {"steps": int.from_bytes(payload, "little")}


def _decode_continuous_oximetry(payload: bytes) -> dict[str, float]:
    """Whole numbers: SFLOAT with the exponent 0 is the number itself."""
    return {kind: int.from_bytes(payload[at : at + 2], "little") for kind, at in (("spo2", 1), ("pulse_rate", 3))}


_CONTINUOUS: Final[Mapping[str, Callable[[bytes], dict[str, float]]]] = {
    "2A37": _decode_rate,
    "2A5F": _decode_continuous_oximetry,
    STEPS: _decode_steps,
}
"""The continuous values of the sensors in `home.HOME`, by characteristic, as `gateway.simulate.peripherals` encode them."""


@dataclass(frozen=True, slots=True)
class SensorAudit:
    """The counts of one sensor. `lost`, `repeated`, `values_lost` and `values_repeated` must be 0.

    Attributes:
        measured: results that a person measured, and failed measurements.
        in_sensor: those that no hub has confirmed: the sensor keeps them for the next connection.
        stored: results that the clinic holds.
        lost: results that were confirmed, and that the clinic does not hold.
        repeated: results that the clinic holds more often than they were measured, or that never were.
        values_sent: continuous values that were sent; `values_stored` those that the clinic holds.
        values_in_flight: those sent just before the end of a connection, and not held.
    """

    measured: int = 0
    in_sensor: int = 0
    stored: int = 0
    lost: int = 0
    repeated: int = 0
    values_sent: int = 0
    values_stored: int = 0
    values_in_flight: int = 0
    values_lost: int = 0
    values_repeated: int = 0

    @property
    def passed(self) -> bool:
        return not (self.lost or self.repeated or self.values_lost or self.values_repeated)

    def counts(self) -> dict[str, int]:
        """Return all counts by name."""
        return asdict(self)


@dataclass(slots=True)
class SensorLog:
    """What one sensor has told of itself. `result` is the characteristic that transfers its results."""

    result: str | None = None
    state: str = "starting"
    measured: Counter[Values] = field(default_factory=Counter)
    confirmed: set[str] = field(default_factory=set)
    """Payloads of results."""
    sent: Counter[tuple[str, float]] = field(default_factory=Counter)
    """Continuous values by kind and value."""
    in_flight: Counter[tuple[str, float]] = field(default_factory=Counter)
    _recent: deque[tuple[int, tuple[str, float]]] = field(default_factory=lambda: deque(maxlen=100))

    def on_event(self, event: Json, now_us: int) -> None:
        """Handle a line of the sensor's standard output, received at `now_us` (Unix time)."""
        match event:
            case {"event": "measured", "values": values}:
                self.measured[frozenset(values.items())] += 1
            case {"event": "confirmed", "characteristic": self.result, "payload": payload}:
                self.confirmed.add(payload)
            case {"event": "sent", "characteristic": str(characteristic), "payload": payload} if characteristic in _CONTINUOUS:
                for value in _CONTINUOUS[characteristic](bytes.fromhex(payload)).items():
                    self.sent[value] += 1
                    self._recent.append((now_us, value))
            case {"event": "advertising" | "connected" | "disconnected" as state}:
                self.state = state
                if state == "disconnected":
                    self._note_in_flight(now_us)
            case _:
                pass

    def _note_in_flight(self, now_us: int) -> None:
        self.in_flight.update(value for at_us, value in self._recent if now_us - at_us <= IN_FLIGHT_US)
        self._recent.clear()

    def format(self) -> str:
        """Return the state and the counts in words."""
        parts = [self.state]
        if self.result is not None:
            parts.append(f"{self.measured.total()} results measured, {len(self.confirmed)} confirmed by the hub")
        if self.sent:
            parts.append(f"{self.sent.total()} values sent")
        return ", ".join(parts)


def audit_sensor(log: SensorLog, sensor: str, records: Iterable[Json]) -> SensorAudit:
    """Compare a sensor's log with the records that the clinic opened (`pulsegate-cloud open --json`)."""
    kinds = {kind for values in log.measured for kind, _ in values}
    continuous_kinds = {kind for kind, _ in log.sent}
    results: dict[int, set[tuple[str, float | str]]] = {}
    continuous: Counter[tuple[str, float]] = Counter()
    repeated = 0
    for record in records:
        if record.get("sensor") != sensor or record["type"] not in ("vital", "status"):
            continue
        kind, value, origin = record["kind"], record["value"], record["origin"]
        if origin is not None and kind in kinds:
            result = results.setdefault(origin["group"], set())
            repeated += (kind, value) in result
            result.add((kind, value))
        elif origin is None and kind in continuous_kinds:
            continuous[kind, value] += 1
    stored = Counter(map(frozenset, results.values()))
    missing = log.sent - continuous
    extra = Counter({value: n for value, n in (continuous - log.sent).items() if value[0] not in _READ_BY_THE_HUB})
    return SensorAudit(
        measured=log.measured.total(),
        in_sensor=max(0, log.measured.total() - len(log.confirmed)) if log.result else 0,
        stored=stored.total(),
        lost=max(0, len(log.confirmed) - (log.measured & stored).total()),
        repeated=repeated + (stored - log.measured).total(),
        values_sent=log.sent.total(),
        values_stored=continuous.total(),
        values_in_flight=(missing & log.in_flight).total(),
        values_lost=(missing - log.in_flight).total(),
        values_repeated=extra.total(),
    )

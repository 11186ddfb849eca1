"""Pulse Oximeter Service 1.0.1 (Bluetooth SIG): spot checks, continuous measurements, features and stored spot checks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from drivers.codec import Reader, SpecialValue
from drivers.conversation import Context, Effect, Moment, Procedure, Read, Remember, Value, do_nothing
from drivers.readings import ClockState, Origin, Reading, Status, Vital, group_of
from drivers.record_access import CONTROL_POINT, REPORT_ALL, RecordTransfer, decode_record_access
from drivers.spec import Characteristic, DriverSpec, uuid16

SPOT_CHECK: Final = uuid16(0x2A5E)
CONTINUOUS: Final = uuid16(0x2A5F)
FEATURES: Final = uuid16(0x2A60)

MAX_REMEMBERED_RECORDS: Final = 1000
"""An oximeter for the finger stores some 20 to 500 spot checks. A record that was forgotten is only decoded once more."""

_PLAUSIBLE: Final[Mapping[str, tuple[float, float]]] = {"spo2": (40, 100), "pulse_rate": (18, 321)}
"""SpO2: as `config.limits.PLAUSIBLE`, which gives the reason. Pulse rate: the range that Nonin states for its WristOx2 3150,
wider than that of other finger oximeters."""

_SPOT_TIME, _SPOT_STATUS, _SPOT_DEVICE, _SPOT_AMPLITUDE, _SPOT_CLOCK_NOT_SET = (1 << bit for bit in range(5))
_FAST, _SLOW, _STATUS, _DEVICE, _AMPLITUDE = (1 << bit for bit in range(5))
_RESERVED_FLAGS: Final = 0xE0

_RESERVED: Final = "reserved_bits"
_FROM_STORAGE: Final = "from_storage"
_MEASUREMENT_STATUS: Final = (
    *(_RESERVED,) * 5,
    "ongoing",
    "early_estimate",
    "validated",
    "fully_qualified",
    _FROM_STORAGE,
    "demonstration",
    "testing",
    "calibration_ongoing",
    "unavailable",
    "questionable",
    "invalid",
)
"""Section 3.1.1.4, by bit."""
_DEVICE_STATUS: Final = (
    "extended_display_update",
    "equipment_malfunction",
    "signal_processing_irregularity",
    "inadequate_signal",
    "poor_signal",
    "low_perfusion",
    "erratic_signal",
    "nonpulsatile",
    "questionable_pulse",
    "signal_analysis_ongoing",
    "sensor_interference",
    "sensor_unconnected",
    "unknown_sensor",
    "sensor_displaced",
    "sensor_malfunction",
    "sensor_disconnected",
    *(_RESERVED,) * 8,
)
"""Section 3.1.1.5, by bit. "Unconnected" is a sensor without a finger, "disconnected" one that is off its cable."""
_FEATURE_NAMES: Final = (
    "measurement_status",
    "device_status",
    "storage",
    "timestamp",
    "fast",
    "slow",
    "pulse_amplitude",
    "multiple_bonds",
    *(_RESERVED,) * 8,
)
"""Section 3.3, by bit."""
_STORAGE: Final = 1 << 2


def decode_spot_check(payload: bytes) -> tuple[Vital | Status, ...]:
    """PLX Spot-Check Measurement, 0x2A5E (section 3.1).

    Yields SpO2 in %, the pulse rate in 1/min and the pulse amplitude index in %; the flags are the names of the status bits. A
    value that is not available is left out. A measurement without SpO2 and pulse rate is a failed one: it yields
    `failed_measurement` and, in `oximeter_status`, the names of its status bits.

    The group of a result with a time is made of its time and values, because the status of a record changes when it is stored.
    """
    reader = Reader(payload)
    flags = reader.u8("flags")
    result = payload[1:5]
    values = [("spo2", reader.sfloat("SpO2")), ("pulse_rate", reader.sfloat("pulse rate"))]
    time = None
    if flags & _SPOT_TIME:
        result += payload[5:12]
        time = reader.measured_time("timestamp")
    status = _read_status(reader, flags, has_status=flags & _SPOT_STATUS, has_device=flags & _SPOT_DEVICE)
    if flags & _SPOT_AMPLITUDE:
        values.append(("pulse_amplitude", reader.sfloat("pulse amplitude index")))
    reader.expect_end()

    is_stored = _FROM_STORAGE in status
    if time is None:
        return _readings(values, status, Origin(group_of(payload), is_stored=is_stored))
    clock: ClockState = "not_set" if time.at and flags & _SPOT_CLOCK_NOT_SET else time.clock
    return _readings(values, status, Origin(group_of(result), time.at, clock, is_stored=is_stored))


def decode_continuous(payload: bytes) -> tuple[Reading, ...]:
    """PLX Continuous Measurement, 0x2A5F (section 3.2).

    Yields SpO2 in % and the pulse rate in 1/min, of the normal, the fast and the slow average, and the pulse amplitude index in
    %. The flags are `continuous` and the names of the status bits. A value that is not available is left out. A measurement
    without any SpO2 and pulse rate yields `no_signal` and, in `oximeter_status`, the names of its status bits.
    """
    reader = Reader(payload)
    flags = reader.u8("flags")
    values = _read_pair(reader, "")
    if flags & _FAST:
        values += _read_pair(reader, "_fast")
    if flags & _SLOW:
        values += _read_pair(reader, "_slow")
    status = _read_status(reader, flags, has_status=flags & _STATUS, has_device=flags & _DEVICE)
    if flags & _AMPLITUDE:
        values.append(("pulse_amplitude", reader.sfloat("pulse amplitude index")))
    reader.expect_end()
    return _readings(values, status, None)


def decode_features(payload: bytes) -> tuple[Reading, ...]:
    """PLX Features, 0x2A60 (section 3.3): what the sensor measures, and which of its status bits it uses."""
    reader = Reader(payload)
    features = _names(_FEATURE_NAMES, reader.u16("features"))
    supported = {"oximeter_features": features}
    if "measurement_status" in features:
        names = _names(_MEASUREMENT_STATUS, reader.u16("measurement status support"))
        supported["oximeter_measurement_status_supported"] = names
    if "device_status" in features:
        supported["oximeter_device_status_supported"] = _names(_DEVICE_STATUS, reader.u24("device and sensor status support"))
    reader.expect_end()
    return tuple(Status(kind, ", ".join(names) or "none") for kind, names in supported.items())


_Values = list[tuple[str, float | SpecialValue]]


def _read_pair(reader: Reader, suffix: str) -> _Values:
    spo2, pulse_rate = f"spo2{suffix}", f"pulse_rate{suffix}"
    return [(spo2, reader.sfloat(spo2)), (pulse_rate, reader.sfloat(pulse_rate))]


def _read_status(reader: Reader, flags: int, *, has_status: int, has_device: int) -> tuple[str, ...]:
    """The names of all status bits that are set, each once."""
    names = _names(_MEASUREMENT_STATUS, reader.u16("measurement status")) if has_status else ()
    names += _names(_DEVICE_STATUS, reader.u24("device and sensor status")) if has_device else ()
    names += (_RESERVED,) if flags & _RESERVED_FLAGS else ()
    return tuple(dict.fromkeys(names))


def _names(names: Sequence[str], bits: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for bit, name in enumerate(names) if bits >> bit & 1))


def _readings(values: _Values, status: tuple[str, ...], origin: Origin | None) -> tuple[Vital | Status, ...]:
    """The readings of one measurement; `origin` is None for a continuous one."""
    flags = status if origin else ("continuous", *status)
    vitals = tuple(
        Vital(kind, value, (*flags, *_doubts(kind, value)), origin)
        for kind, value in values
        if not isinstance(value, SpecialValue)
    )
    if any(vital.kind != "pulse_amplitude" for vital in vitals):
        return vitals
    failure = Status("failed_measurement" if origin else "no_signal", "oximetry", origin)
    reasons = (Status("oximeter_status", ", ".join(status), origin),) if status else ()
    return (*vitals, failure, *reasons)


def _doubts(kind: str, value: float) -> tuple[str, ...]:
    measured = kind.removesuffix("_fast").removesuffix("_slow")
    if measured == "pulse_rate" and value == 0:
        return ("no_pulse_found",)
    low, high = _PLAUSIBLE.get(measured, (value, value))
    return () if low <= value <= high else ("implausible",)


class _OximeterConversation:
    """Fetches the spot checks from the memory of an oximeter that has one.

    The service defines no filter, so all records come each time. The memory of the driver holds the groups of those that were
    fetched; they yield nothing again.
    """

    def __init__(self, context: Context) -> None:
        self._fetched: dict[int, None] = dict.fromkeys(context.memory.get("records", ()))
        self._transfer = RecordTransfer(SPOT_CHECK)

    def start(self, now: Moment) -> Procedure:
        del now
        features = yield Read(FEATURES)
        if not features or not features[0] & _STORAGE:
            return
        known = set(self._fetched)
        yield from self._transfer.run(lambda: REPORT_ALL)
        if self._fetched.keys() != known:
            yield Remember({"records": list(self._fetched)[-MAX_REMEMBERED_RECORDS:]})

    def receive(self, value: Value) -> tuple[Effect, ...]:
        if value.characteristic == CONTROL_POINT:
            return decode_record_access(value.payload)
        readings = decode_spot_check(value.payload)
        origin = readings[0].origin
        assert origin is not None
        if not origin.is_stored and not self._transfer.is_running:
            return readings
        if self._transfer.is_aborted:
            return ()
        is_known = origin.group in self._fetched
        self._fetched.pop(origin.group, None)  # added again as the newest
        self._fetched[origin.group] = None
        if len(self._fetched) > 2 * MAX_REMEMBERED_RECORDS:  # those remembered, and as many that are new
            del self._fetched[next(iter(self._fetched))]
        return () if is_known else tuple(replace(reading, origin=replace(origin, is_stored=True)) for reading in readings)

    def stop(self) -> Procedure:
        return do_nothing()


DRIVER: Final = DriverSpec(
    name="pulse_oximeter",
    service=uuid16(0x1822),
    streams=(
        Characteristic(SPOT_CHECK, "indicate", is_optional=True),
        # Without a deadline: an oximeter without a finger, or one that is made for spot checks, sends nothing.
        Characteristic(CONTINUOUS, "notify", decode_continuous, is_optional=True),
        Characteristic(CONTROL_POINT, "indicate", is_optional=True),
    ),
    reads=(Characteristic(FEATURES, "read", decode_features),),
    converse=_OximeterConversation,
    # After the clock and the choice of a user.
    setup_rank=10,
)

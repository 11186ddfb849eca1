"""Finds the signals of a JSON document: its lists of samples, with their sampling rate, unit and start.

Shapes that are read, wherever they stand in the document:

- a list of numbers: Fitbit (`waveformSamples` with `scalingFactor` counts per mV), Google Health (`millivoltsScalingFactor`),
  Withings (`signal` in µV beside `wearposition`), Kardia (`samples.leadI`, each count `amplitudeResolution` nV), loggers;
- a list of samples with times, as objects or pairs: Health Auto Export (`voltageMeasurements` of `date`, `voltage`, `units`),
  react-native-health (pairs of seconds and volts), Polar Recorder (`data` of `timeStamp` in ns since 2000 and `voltage` in µV);
- a list of packets: Movesense (`Samples`, and the `Timestamp` of the first one in ms);
- SampledData of FHIR (`origin`, `period` in ms, `factor`, `data` as text).

Sources: dev.fitbit.com (ECG Log List), developers.kardia.com (Single ECG), developer.withings.com (Heart v2 Get),
Lybron/health-auto-export#69, docs/getElectrocardiogramSamples.md of react-native-health, Boelensman1/PolarRecorder#7, FHIR R5
(SampledData).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from captures.exports.keys import (
    find_kind,
    find_rate,
    find_start,
    find_time_key,
    find_unit,
    find_value_key,
    normalize,
    split_key,
    to_number,
    unit_of_key,
)
from captures.exports.packets import choose_name, join_packets, parse_packet
from captures.exports.times import Times, rate_of_times, read_times
from captures.leads import is_ecg_name, is_ppg_name, millivolts_per_unit
from captures.recording import Samples

SIGNAL_LIMIT: Final = 1_000
"""Most signals of a document that are read: 60 recordings of a 12-lead device have 720."""
_SHORTEST: Final = 16
"""Numbers in a list: shorter lists are positions, channels and the like."""
_ECG_KEYS: Final = frozenset(("waveformsamples", "voltagemeasurements", "voltagevalues"))
"""Keys of vendors that hold an ECG and do not say so."""
_HEAD_ITEMS: Final = 50
"""First items of a list that are searched for packets: those of several sensors may alternate."""
_START_TOLERANCE_US: Final = 120_000_000
_FHIR_INVALID: Final = ("E", "U", "L")


@dataclass(frozen=True, slots=True)
class Signal:
    """The samples of one list. `unit` is empty where the document states none; `times_s` are seconds from the first sample."""

    name: str
    unit: str
    rate_hz: float | None
    start_us: int | None
    times_s: Samples | None
    values: Samples


@dataclass(frozen=True, slots=True)
class _Place:
    """A value of the document: its keys, and the objects around it, the innermost first."""

    value: object
    keys: tuple[str, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()


def find_signals(document: object) -> list[Signal]:
    """Return the signals of a document in its order."""
    found: list[Signal] = []
    places = [_Place(document)]
    while places and len(found) < SIGNAL_LIMIT:
        place = places.pop()
        signal = _read_signal(place)
        if signal is not None:
            found.append(signal)
        else:
            places.extend(reversed(list(_inner_places(place))))
    return found


def _inner_places(place: _Place) -> Iterator[_Place]:
    if isinstance(place.value, dict):
        objects = (place.value, *place.objects[:4])
        for key, value in place.value.items():
            if isinstance(value, (dict, list)):
                yield _Place(value, (*place.keys[-3:], key), objects)
    elif isinstance(place.value, list):
        for value in place.value:
            if isinstance(value, (dict, list)):
                yield _Place(value, place.keys, place.objects)


def _read_signal(place: _Place) -> Signal | None:
    """The signal of a list or a FHIR SampledData; None if it is something else."""
    if isinstance(place.value, dict):
        return _read_sampled_data(place, place.value)
    if not isinstance(place.value, list) or len(place.value) < 2:
        return None
    first = place.value[0]
    if isinstance(first, dict):
        return _read_packets(place, place.value) or _read_points(place, place.value)
    if isinstance(first, list):
        return _read_pairs(place, place.value)
    return _read_numbers(place, place.value)


def _read_numbers(place: _Place, values: list[object]) -> Signal | None:
    numbers = np.array([to_number(value) for value in values])
    if numbers.size < _SHORTEST or np.isnan(numbers).mean() > 0.5:
        return None
    return _make_signal(place, numbers, None)


def _read_pairs(place: _Place, pairs: list[object]) -> Signal | None:
    """Pairs of a time and a value."""
    if len(pairs) < _SHORTEST or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return None
    times = read_times([pair[0] for pair in pairs])  # type: ignore[index]
    if times is None:
        return None
    signal = _make_signal(place, np.array([to_number(pair[1]) for pair in pairs]), times)  # type: ignore[index]
    volts = not signal.unit and place.keys and normalize(place.keys[-1]) == "voltagemeasurements"
    return replace(signal, unit="V") if volts else signal


def _read_points(place: _Place, points: list[object]) -> Signal | None:
    """Objects that hold a value and its time."""
    first = points[0]
    assert isinstance(first, dict)
    key, time_key = find_value_key(first), find_time_key(first)
    if key is None or len(points) < _SHORTEST or key == time_key:
        return None
    rows = [point if isinstance(point, dict) else {} for point in points]
    times = read_times([row.get(time_key) for row in rows]) if time_key is not None else None
    inner = _Place(place.value, (*place.keys, key), (first, *place.objects))
    signal = _make_signal(inner, np.array([to_number(row.get(key)) for row in rows]), times, place.objects)
    microvolts = key == "voltage" and time_key == "timeStamp" and not signal.unit  # Polar's SDK: PolarEcgDataSample
    return replace(signal, unit=unit_of_key(key) or ("uV" if microvolts else signal.unit))


def _read_packets(place: _Place, items: list[object]) -> Signal | None:
    head = [packet for packet in (parse_packet(item) for item in items[:_HEAD_ITEMS] if isinstance(item, dict)) if packet]
    if not head:
        return None
    name = choose_name(head)
    packets = [packet for packet in (parse_packet(item) for item in items if isinstance(item, dict)) if packet]
    joined = join_packets([packet for packet in packets if packet.name == name])
    if joined is None:
        return None
    times_s, values = joined
    start_us = next(packet.start_us for packet in packets if packet.name == name)
    signal = _make_signal(replace(place, keys=(*place.keys, name)), values, Times(times_s, start_us))
    return replace(signal, unit=signal.unit or head[0].unit)


def _read_sampled_data(place: _Place, found: Mapping[str, Any]) -> Signal | None:
    """The SampledData of FHIR: values are `data` times `factor` plus `origin.value`, in `origin.unit`."""
    text, origin = found.get("data"), found.get("origin")
    period_ms = to_number(found.get("period", found.get("interval")))
    if not isinstance(text, str) or not isinstance(origin, dict) or not period_ms > 0:
        return None
    factor = to_number(found.get("factor", 1.0))
    values = np.array([math.nan if cell in _FHIR_INVALID else to_number(cell) for cell in text.split()])
    unit = next((x for x in (origin.get("unit"), origin.get("code")) if isinstance(x, str) and millivolts_per_unit(x)), "")
    if values.size < _SHORTEST:
        return None
    offset = to_number(origin.get("value", 0.0))
    signal = _make_signal(place, values * factor + (0.0 if math.isnan(offset) else offset), None)
    return replace(signal, unit=unit, rate_hz=1000.0 / period_ms)


def _make_signal(
    place: _Place, values: Samples, times: Times | None, around: Sequence[Mapping[str, Any]] | None = None
) -> Signal:
    """The signal at a place; `around` are the objects that may state its start, if not all around it do."""
    stated_us = find_start(place.objects if around is None else around)
    start_us = times.start_us if times else None
    if start_us is None or (stated_us is not None and abs(start_us - stated_us) > _START_TOLERANCE_US):
        start_us = stated_us
    rate_hz = find_rate(place.objects) or (rate_of_times(times.seconds) if times else None)
    return Signal(_name_of(place), _unit_of(place), rate_hz, start_us, times.seconds if times else None, values)


def _name_of(place: _Place) -> str:
    """The name of a signal: its key, with the keys around it if only they say what it is."""
    own = split_key(place.keys[-1]) if place.keys else ""
    enclosing = place.objects[0] if place.objects else {}
    if (place.keys and normalize(place.keys[-1]) in _ECG_KEYS) or "wearposition" in enclosing:
        return "ECG"
    wider = [own, *(" ".join(map(split_key, place.keys[-count:])) for count in range(2, len(place.keys) + 1))]
    wider += [find_kind(found) for found in place.objects[:2]]
    return next((name for name in wider if _says_kind(name)), own)


def _says_kind(name: str) -> bool:
    return is_ecg_name(name) or is_ppg_name(name)


def _unit_of(place: _Place) -> str:
    """The unit of a signal, from the key, the objects around it, or the factor that vendors state."""
    enclosing: Sequence[Mapping[str, Any]] = place.objects
    own = place.keys[-1] if place.keys else ""
    per_mv = math.nan
    for found in enclosing[:2]:
        known = {normalize(key): to_number(value) for key, value in found.items()}
        if "waveformsamples" in map(normalize, found):
            per_mv = known.get("scalingfactor", known.get("millivoltsscalingfactor", math.nan))
        elif known.get("amplituderesolution", 0.0) > 0:
            per_mv = 1e6 / known["amplituderesolution"]
    if per_mv > 0:
        return f"{per_mv:.6f}/mV"
    if enclosing and "wearposition" in enclosing[0]:
        return "uV"
    return unit_of_key(own) or find_unit(enclosing)

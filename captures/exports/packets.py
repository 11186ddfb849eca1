"""Parses packets of samples as apps log them: JSON objects with the samples of one notification and their time."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np

from captures.exports.keys import find_kind, find_time_key, find_unit, find_value_key, split_key, to_number, unit_of_key
from captures.exports.times import Times, read_times, to_time
from captures.leads import is_ecg_name
from captures.moments import moment_of_number
from captures.recording import Samples

_HELD_PACKETS: Final = 8
"""Packets that are buffered because earlier ones may follow."""


class PacketOrderError(ValueError):
    """The packets belong to two recordings, because the times go back."""


class Packet(NamedTuple):
    """Samples of one notification; `t_s` is the time of the first one on the sensor's clock.

    `times` are the times of its samples where each has one. `start_us` is the wall clock of the first sample, if it is known.
    """

    name: str
    unit: str
    t_s: float
    values: Samples
    times: Times | None = None
    start_us: int | None = None


def parse_packet(item: Mapping[str, Any]) -> Packet | None:
    """The packet of an object; None if it is something else, such as a packet of another sensor.

    Movesense: `{"ecg": {"Samples": [47, 23, …], "Timestamp": 51234}}`, the inner object also as `Body` or alone.
    Polar Recorder: `{"phoneTimestamp": …, "dataType": "ECG", "data": [{"voltage": 17, "timeStamp": …}, …]}`.
    """
    return _parse_samples(item) or _parse_points(item)


def _parse_samples(item: Mapping[str, Any]) -> Packet | None:
    for key, inner in (("", item), *((key, value) for key, value in item.items() if isinstance(value, dict))):
        samples, t_ms = inner.get("Samples"), to_number(inner.get("Timestamp"))
        if isinstance(samples, list) and samples and not math.isnan(t_ms):
            values = np.array([to_number(value) for value in samples])
            if np.isnan(values).all():
                return None
            name = split_key(key) if is_ecg_name(split_key(key)) else find_kind(item) or "Samples"
            uri = item.get("Uri")
            return Packet("ECG" if isinstance(uri, str) and "/ecg" in uri.casefold() else name, "", t_ms * 1e-3, values)
    return None


def _parse_points(item: Mapping[str, Any]) -> Packet | None:
    points = item.get("data")
    if not isinstance(points, list) or len(points) < 2 or not all(isinstance(point, dict) for point in points):
        return None
    key, time_key = find_value_key(points[0]), find_time_key(points[0])
    times = read_times([point.get(time_key) for point in points]) if time_key is not None else None
    if key is None or time_key is None or times is None:
        return None
    values = np.array([to_number(point.get(key)) for point in points])
    unit = unit_of_key(key) or ("uV" if key == "voltage" and time_key == "timeStamp" else "")
    arrived_us = moment_of_number(to_number(item.get("phoneTimestamp")))
    start_us = times.start_us if arrived_us is None else arrived_us - round(float(times.seconds[-1]) * 1e6)
    t_s = to_number(points[0].get(time_key)) * _scale(points, time_key, times)
    return Packet(find_kind(item) or split_key(key), unit, t_s, values, times, start_us)


def parse_sample(item: Mapping[str, Any]) -> Packet | None:
    """The packet of an object that holds one sample of an ECG and its time, in any unit: `{"t": 0.004, "ecg_mv": 0.1}`."""
    key, time_key = find_value_key(item), find_time_key(item)
    if key is None or time_key is None or key == time_key or not is_ecg_name(split_key(key)):
        return None
    t = to_time(item[time_key])
    unit = unit_of_key(key) or find_unit((item,))
    return None if math.isnan(t) else Packet(split_key(key), unit, t, np.array([to_number(item[key])]))


def scale_samples(packets: Sequence[Packet]) -> tuple[float, int | None]:
    """Seconds in the unit of the times of single samples, and the time of the first one; 1.0 and None if unknown."""
    times = read_times([packet.t_s for packet in packets])
    span = packets[-1].t_s - packets[0].t_s
    return (float(times.seconds[-1]) / span, times.start_us) if times and span > 0 else (1.0, None)


def _scale(points: Sequence[Mapping[str, Any]], time_key: str, times: Times) -> float:
    """Seconds in the unit of the times."""
    span = to_number(points[-1].get(time_key)) - to_number(points[0].get(time_key))
    return float(times.seconds[-1]) / span if span > 0 else math.nan


def choose_name(packets: Sequence[Packet]) -> str:
    """The name of the packets to read: the first that says ECG, else the first."""
    return next((packet.name for packet in packets if is_ecg_name(packet.name)), packets[0].name)


def period_of(packets: Iterable[Packet]) -> float | None:
    """The seconds from sample to sample by the times of the packets; gaps between packets do not count. None if unknown."""
    starts = [(packet.t_s, packet.values.size) for packet in packets]
    t_s = np.array([start[0] for start in starts])
    counts = np.array([start[1] for start in starts[:-1]], dtype=np.float64)
    if t_s.size < 2:
        return None
    periods = np.diff(t_s) / counts
    typical = float(np.median(periods))
    usual = np.abs(periods - typical) <= 0.5 * typical
    if not typical > 0 or not usual.any():
        return None
    return float(np.diff(t_s)[usual].sum() / counts[usual].sum())


def sort_packets(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Yield packets sorted by time if they are out of order by a few; repeated packets are left out.

    Raises:
        PacketOrderError: the times go back farther, so a second recording begins.
    """
    held: list[Packet] = []
    last: Packet | None = None
    begin_s = math.nan
    for packet in chain(packets, (None,) * _HELD_PACKETS):
        if packet is not None:
            held.append(packet)
            held.sort(key=lambda packet: packet.t_s)
        if held and (packet is None or len(held) > _HELD_PACKETS):
            first = held.pop(0)
            is_again = last is not None and first.t_s == last.t_s
            if last and (first.t_s < last.t_s or (is_again and not np.array_equal(first.values, last.values))):
                raise PacketOrderError(f"the times go back from {last.t_s - begin_s:.3f} to {first.t_s - begin_s:.3f} s")
            if not is_again:
                yield first
            begin_s = begin_s if last else first.t_s
            last = first


def join_packets(packets: Sequence[Packet]) -> tuple[Samples, Samples] | None:
    """The times in seconds from the first sample, and the samples, of packets in the order of their times; None if unknown."""
    packets = list(sort_packets(packets))
    period_s = period_of(packets)
    if period_s is None:
        return None
    times = np.concatenate([packet.t_s + period_s * np.arange(packet.values.size) for packet in packets])
    return times - times[0], np.concatenate([packet.values for packet in packets])

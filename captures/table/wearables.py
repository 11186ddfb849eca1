"""Recognises the texts of wearables and their apps: Apple Watch, Empatica E4, Polar Sensor Logger."""

import csv
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from captures.leads import millivolts_per_unit
from captures.moments import moment_of_number, parse_moment
from captures.table.layout import Column, Layout
from captures.table.preamble import RATES_HZ, has_decimal_comma, is_number, to_number
from captures.table.titles import read_column

_PREAMBLE_LINES: Final = 40
_HERTZ: Final = frozenset(
    ("hz", "hertz", "hercios", "hercio", "hertzios", "herz", "гц", "герц", "赫兹", "赫茲", "ヘルツ", "헤르츠")
)
_WATCH_HZ: Final = (500.0, 520.0)
"""Sampling rates of the watch: 511 to 513 Hz. Its export may name the unit in any language."""
_RATE_KEYS: Final = re.compile(
    r"(?:sampl\w{0,8}[ _-]?(?:rate|freq\w{0,8})|messrate|abtastrate|fs|freq\w{0,8})(?:\W{0,3}hz\W?)?", re.IGNORECASE
)
_VALUE: Final = re.compile(r"\s*(\d{1,5}(?:[.,]\d{1,6})?)\s*(\S{0,20})\s*")
_BVP_HZ: Final = 64.0


class _Preamble(NamedTuple):
    """What the rows of keys and values state; `end` is the number of the line after them."""

    end: int
    rate_hz: float | None
    unit: str
    start_us: int | None
    lead: str


def recognise_watch(head: Sequence[str]) -> Layout | None:
    """Apple Watch ECG (Health app, electrocardiograms/ecg_*.csv): rows of keys and values, then one value a line in µV.

    Keys, the decimal mark and the unit's name follow the language of the phone: `Sample Rate,512 hertz`, `Messrate,512 Hertz`.
    The name may be missing. Older exports have rows `Lead I,-0.021` below `Lead,Voltage`, in mV. Also read are texts of other
    devices with rows of keys and values that state a sampling rate, and then one value a line.
    Sources: smart-on-fhir/Swift-FHIR#29; the loaders of Swift and Python projects, which name the German and Portuguese keys.
    """
    found = _read_preamble(head)
    if found is None or found.rate_hz is None:
        return None
    rows = [line.strip() for line in head[found.end :] if line.strip()]
    if all(is_number(row) for row in rows):
        column = Column(1, found.lead or "ECG", found.unit)
        return Layout(
            "Apple Watch" if _WATCH_HZ[0] <= found.rate_hz <= _WATCH_HZ[1] else "",
            found.end,
            None,
            (column,),
            decimal_comma=has_decimal_comma(rows),
            signal=column,
            rate_hz=found.rate_hz,
            start_us=found.start_us,
        )
    return _recognise_pairs(head, found)


def _recognise_pairs(head: Sequence[str], found: _Preamble) -> Layout | None:
    """Rows `Lead I,-0.021` below a row of two titles."""
    pairs = [_split(line) for line in head[found.end + 1 :] if line.strip()]
    titles = _split(head[found.end])
    if len(titles) != 2 or not pairs or not all(len(pair) == 2 and is_number(pair[1]) and pair[0] for pair in pairs):
        return None
    if is_number(pairs[0][0]) or len({pair[0] for pair in pairs}) > 1:
        return None
    title = read_column(2, titles[1])
    signal = Column(2, pairs[0][0][:40], title.unit or found.unit or "mV")
    return Layout(
        "Apple Watch",
        found.end + 1,
        ",",
        (Column(1, titles[0][:40]), signal),
        decimal_comma=any("," in pair[1] for pair in pairs),
        signal=signal,
        rate_hz=found.rate_hz,
        start_us=found.start_us,
    )


def _read_preamble(head: Sequence[str]) -> _Preamble | None:
    """The rows of keys and values at the start of a text; None if it starts with fewer than two."""
    rate_hz, unit, start_us, lead, count = None, "", None, "", 0
    end = len(head)
    for number, line in enumerate(head[:_PREAMBLE_LINES]):
        cells = _split(line)
        if not line.strip():
            continue
        if is_number(line) or (count >= 3 and _are_titles(head, number)):
            end = number
            break
        key, value = cells[0], ",".join(cells[1:]).strip()
        count += 1
        rate_hz = rate_hz or _parse_rate(key, value)
        if len(cells) == 2 and millivolts_per_unit(value):
            unit = value
        elif len(cells) == 2 and re.search(r"\bI{1,3}$", value[-20:]):
            lead = value[:40]
        moment = parse_moment(value)
        start_us = moment if start_us is None else start_us
    return _Preamble(end, rate_hz, unit, start_us, lead) if count >= 2 and end < len(head) else None


def _are_titles(head: Sequence[str], number: int) -> bool:
    """Whether a line holds two titles: the next ones have a name and a number each."""
    if len(cells := _split(head[number])) != 2 or is_number(cells[1]):
        return False
    rows = [_split(line) for line in head[number + 1 : number + 8] if line.strip()][:3]
    return len(rows) == 3 and all(len(row) == 2 and is_number(row[1]) and not is_number(row[0]) for row in rows)


def _parse_rate(key: str, value: str) -> float | None:
    found = _VALUE.fullmatch(value[:40])
    if found is None:
        return None
    rate_hz, unit = to_number(found[1]), found[2].casefold()
    named = unit in _HERTZ or (unit in ("", "sps") and _RATE_KEYS.fullmatch(key[:40].strip()) is not None)
    if not named and not (unit and _WATCH_HZ[0] <= rate_hz <= _WATCH_HZ[1]):
        return None
    return rate_hz if RATES_HZ[0] <= rate_hz <= RATES_HZ[1] else None


def _split(line: str) -> list[str]:
    text = line[:1000]
    delimiter = ";" if ";" in text and "," not in text.partition(";")[0] else ","
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [""])]
    except csv.Error:
        return text.split(delimiter)


def recognise_empatica(head: Sequence[str]) -> Layout | None:
    """Empatica E4 (BVP.csv, ACC.csv, EDA.csv, TEMP.csv): a row with the start, one with the sampling rate, then the values.

    Times are seconds since 1970. Of the sensors with one column, only the pulse wave (BVP) has 64 Hz.
    Source: "E4 connect: data export" of Empatica; eda-explorer#4.
    """
    if len(head) < 4:
        return None
    starts, rates, values = ([cell.strip() for cell in line.split(",")] for line in head[:3])
    start_us = moment_of_number(to_number(starts[0])) if len(set(starts)) == 1 else None
    rate_hz = to_number(rates[0]) if len(set(rates)) == 1 else 0.0
    if start_us is None or not 1 <= rate_hz <= 1024 or not len(starts) == len(rates) == len(values) <= 3:
        return None
    single = "BVP" if rate_hz == _BVP_HZ else "EDA, temperature or heart rate"
    names = ("acc x", "acc y", "acc z") if len(starts) == 3 else (single,)
    columns = tuple(Column(number, name) for number, name in enumerate(names, 1))
    return Layout("Empatica E4", 2, ",", columns, rate_hz=rate_hz, start_us=start_us) if len(columns) == len(starts) else None


def recognise_polar_logger(head: Sequence[str]) -> Layout | None:
    """Polar Sensor Logger (Android): `Phone timestamp;sensor timestamp [ns];timestamp [ms];ecg [uV]`.

    The phone's times are local and those of packets; the sensor's are nanoseconds since 2000 and exact. So the start is taken
    from the phone, and the times from the sensor.
    Source: the app's ECG files as public loaders quote them; polar-ble-sdk, documentation/TimeSystemExplained.md.
    """
    if len(head) < 2:
        return None
    titles = [title.strip() for title in head[0].split(";")]
    names = [title.casefold() for title in titles]
    time = next((names.index(name) for name in ("sensor timestamp [ns]", "timestamp [ms]") if name in names), None)
    if time is None or "phone timestamp" not in names:
        return None
    columns = tuple(read_column(number, title) for number, title in enumerate(titles, 1))
    cells = head[1].split(";")
    place = names.index("phone timestamp")
    start_us = parse_moment(cells[place]) if place < len(cells) else None
    return Layout("Polar Sensor Logger", 1, ";", columns, time=columns[time], start_us=start_us)

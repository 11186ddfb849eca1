"""Recognises the texts of laboratory programs: OpenSignals, BioSPPy, OpenBCI, LabChart, AcqKnowledge, and WFDB's rdsamp."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from captures.leads import is_ecg_name
from captures.moments import parse_moment
from captures.table.layout import Column, Layout
from captures.table.preamble import RATES_HZ, add_trailing, find_rate, first_row, has_decimal_comma, is_number, to_number
from captures.table.titles import read_column

_PLUX: Final = ("bitalino", "biosignalsplux", "channeller")
_OTHER_SENSORS: Final = frozenset(("", "RAW", "CUSTOM", "CUSTOM/0.5/1.0/V"))
_SECONDS: Final = {
    "s": 1.0,
    "sec": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "µs": 1e-6,
    "us": 1e-6,
    "usec": 1e-6,
    "min": 60.0,
    "hr": 3600.0,
}
_EXCEL_1970: Final = 25_569
"""Days from Excel's day 0 to 1970."""
_DAY_US: Final = 86_400e6
_MSEC_A_SAMPLE: Final = re.compile(r"\s*(\d{1,9}(?:[.,]\d{1,9})?)\s*(msec|usec|sec|µsec|min)\s*/\s*sample", re.IGNORECASE)
_TITLES: Final = 60
"""Characters at the start of a row of titles that are compared."""
_CHANNELS: Final = re.compile(r"\s*(\d{1,3})\s+channels?\s*", re.IGNORECASE)
_RECORDED: Final = re.compile(r"\s*recording on:?\s*(.{1,40})", re.IGNORECASE)
_INTERVAL: Final = re.compile(r"\(?\s*(\d{1,6}(?:\.\d{1,12})?)\s*(s|sec|seconds|ms|msec|milliseconds)\s*\)?", re.IGNORECASE)


def recognise_opensignals(head: Sequence[str]) -> Layout | None:
    """OpenSignals of PLUX (BITalino, biosignalsplux, RespiBAN): three comment lines, the second with the header as JSON.

    The header has an entry for each device: `sensor` and `resolution` of each analog channel, `column`, `sampling rate`,
    `date` and `time`. Rows end with a tab. An ECG is `(count / 2^resolution - 1/2) * VCC / gain`, with 3.3 V and 1100
    (BITalino) or 3 V and 1000 (biosignalsplux), so a millivolt has 2^resolution / 3 counts in both. With `convertedValues` 1,
    it is in mV. Sources: "BITalino ECG Sensor Data Sheet", "biosignalsplux ECG Sensor Data Sheet", biosignalsnotebooks.
    """
    if not head or not head[0].lstrip("# ").startswith("OpenSignals Text File Format"):
        return None
    end = next((number for number, line in enumerate(head) if line.lstrip("# ").startswith("EndOfHeader")), None)
    devices = [device for line in head[1:end] for device in _parse_devices(line)]
    begin = first_row(head, end + 1) if end is not None else None
    if not devices or begin is None:
        return None
    titles = [title for device in devices for title in _read_opensignals_columns(device)]
    ecg = [name for name, _ in titles if is_ecg_name(name)]
    columns = [
        Column(number, f"{name} {number}" if len(ecg) > 1 and name in ecg else name, unit)
        for number, (name, unit) in enumerate(titles, 1)
    ]
    clock = ":".join(part.zfill(2) if part.isdigit() else part for part in str(devices[0].get("time", ""))[:20].split(":"))
    date = str(devices[0].get("date", ""))[:20]
    return Layout(
        "OpenSignals",
        begin,
        "\t",
        add_trailing(columns, head[begin], "\t"),
        rate_hz=_positive(devices[0].get("sampling rate")),
        start_us=parse_moment(f"{date} {_pad_seconds(clock)}"),
    )


def _parse_devices(line: str) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(line.lstrip("# "), parse_int=float)
    except (ValueError, RecursionError):
        return []
    return [device for device in found.values() if isinstance(device, dict)] if isinstance(found, dict) else []


def _read_opensignals_columns(device: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and unit of each column of a device. The analog channels are the last ones."""
    columns, sensors, resolutions = (_texts(device.get(key)) for key in ("column", "sensor", "resolution"))
    digital = max(0, len(columns) - len(sensors))
    bits = resolutions[digital:] if len(resolutions) == len(columns) else resolutions
    known = str(device.get("device", ""))[:40].casefold().startswith(_PLUX)
    titles = [(column, "") for column in columns[:digital]]
    for place, (column, sensor) in enumerate(zip(columns[digital:], sensors, strict=False)):
        unit = ""
        resolution = to_number(bits[place]) if place < len(bits) else 0.0
        if device.get("convertedValues") == 1:
            unit = "mV"
        elif known and 4 <= resolution <= 24:
            unit = f"{2**resolution / 3:.6f}/mV"
        if sensor.upper().startswith("ECG"):  # also ECGBIT, the sensor of the BITalino
            titles.append(("ECG", unit))
        else:
            titles.append((sensor if sensor not in _OTHER_SENSORS else column, ""))
    return titles


def _texts(value: object) -> list[str]:
    return [str(item)[:40] for item in value[:200]] if isinstance(value, list) else []


def _positive(value: object) -> float | None:
    number = to_number(str(value)[:40])
    return number if RATES_HZ[0] <= number <= RATES_HZ[1] else None


def _pad_seconds(clock: str) -> str:
    """A time of day whose seconds have one digit, such as 09:39:1.0, with two."""
    return re.sub(r":(\d)(?=$|\.)", r":0\1", clock)


def recognise_biosppy(head: Sequence[str]) -> Layout | None:
    """BioSPPy: comments `Simple Text Format`, `Sampling Rate (Hz):= 1000.00`, `Labels:= ECG` and others; columns by tab.

    Also other texts of numbers below comments that state the sampling rate. The unit is not stated.
    Source: storage.store_txt of BioSPPy, and its examples/*.txt.
    """
    comments = list(takewhile(lambda line: line.lstrip().startswith(("#", "%", "//")) or not line.strip(), head))
    rate_hz = find_rate(comments)
    begin = len(comments)
    if rate_hz is None or begin >= len(head) or head[0].startswith("%OpenBCI"):
        return None
    delimiter = next((mark for mark in ("\t", ";", ",") if mark in head[begin]), None)
    cells = head[begin].strip().split(delimiter)
    if not all(is_number(cell) for cell in cells):
        return None
    labels = next((line.split("=", 1)[1] for line in comments if "labels" in line.casefold() and "=" in line), "")
    names = [name for name in labels.strip().split("\t" if "\t" in labels else None) if name]
    if len(names) != len(cells):
        return Layout("", begin, delimiter, tuple(Column(number, "") for number in range(1, len(cells) + 1)), rate_hz=rate_hz)
    columns = [read_column(number, name) for number, name in enumerate(names, 1)]
    simple = any("Simple Text Format" in line for line in comments)
    return Layout("BioSPPy" if simple else "", begin, delimiter, tuple(columns), rate_hz=rate_hz)


def recognise_openbci(head: Sequence[str]) -> Layout | None:
    """OpenBCI GUI: lines with %, `%Sample Rate = 250 Hz`, then rows by comma.

    Version 4 and before have no titles: a sample number from 0 to 255, channels in µV, auxiliary values and the time of the
    burst. Version 5 has a row of titles (`Sample Index, EXG Channel 0, …`) below the comments. The times are those of bursts,
    so they are not used and the samples count as evenly spaced.
    Sources: OpenBCI_GUI (DataWriterODF), OpenBCI/OpenBCI_GUI#119 and #606.
    """
    if not head or not head[0].startswith("%OpenBCI Raw"):
        return None
    comments = list(takewhile(lambda line: line.startswith("%"), head))
    begin = first_row(head, len(comments))
    rate_hz = find_rate(comments)
    if begin is None or rate_hz is None:
        return None
    titles = [cell.strip() for cell in head[begin].split(",")]
    if is_number(titles[0]):
        last = len(titles)
        timed = any("Last Column = Timestamp" in line for line in comments)
        columns = [
            Column(1, "Sample Index"),
            *(Column(number, f"channel {number - 1}", "uV") for number in range(2, last + (not timed))),
            *((Column(last, "Timestamp"),) if timed and last > 1 else ()),
        ]
    else:
        columns = [Column(number, title[:40], "uV" if "EXG" in title else "") for number, title in enumerate(titles, 1)]
        begin += 1
    return Layout("OpenBCI", begin, ",", tuple(columns), rate_hz=rate_hz)


def recognise_labchart(head: Sequence[str]) -> Layout | None:
    """LabChart of ADInstruments: lines `Key=` with values by tab, then the time in s and the channels by tab.

    `Interval=` is the time from sample to sample, `ExcelDateTime=` the start in days, `ChannelTitle=` and `UnitName=` have a
    value for each channel. The column of times may be missing.
    Sources: LabChart help ("Export as text"), Neures-1158/labchart_txt_parser, phys2bids (interfaces/txt.py).
    """
    if not head or not head[0].startswith("Interval="):
        return None
    lines = list(takewhile(lambda line: re.match(r"\w{1,30}=", line), head))
    known = {key: [cell.strip() for cell in rest.split("\t")[1:]] for key, rest in (line.split("=", 1) for line in lines)}
    begin = first_row(head, len(lines))
    names, units = known.get("ChannelTitle", []), known.get("UnitName", [])
    if begin is None or not names:
        return None
    cells = head[begin].split("\t")
    timed = len([cell for cell in cells if not cell.startswith("#")]) > len(names)
    channels = [
        Column(number, name[:40], units[number - 1 - timed] if number - 1 - timed < len(units) else "")
        for number, name in enumerate(names, 1 + timed)
    ]
    period_s = _parse_interval(" ".join(known.get("Interval", [])))
    days = to_number("".join(known.get("ExcelDateTime", [])[:1]))
    return Layout(
        "LabChart",
        begin,
        "\t",
        (*((Column(1, "Time", "s" if is_number(cells[0]) else ""),) if timed else ()), *channels),
        decimal_comma=has_decimal_comma(head[begin:], "\t"),
        time=Column(1, "Time", "s" if is_number(cells[0]) else "") if timed else None,
        rate_hz=1 / period_s if period_s else None,
        start_us=round((days - _EXCEL_1970) * _DAY_US) if _EXCEL_1970 < days < 3 * _EXCEL_1970 else None,
    )


def _parse_interval(text: str) -> float | None:
    """The seconds of an interval such as `0.001 s`."""
    number, _, unit = text.strip().partition(" ")
    seconds = to_number(number) * _SECONDS.get(unit.strip().lower() or "s", 0.0)
    return seconds if 1 / RATES_HZ[1] <= seconds <= 1 / RATES_HZ[0] else None


def recognise_acqknowledge(head: Sequence[str]) -> Layout | None:
    """AcqKnowledge of BIOPAC: the file's name, `0.5 msec/sample`, `2 channels`, then title and unit of each channel.

    Then come titles (`milliSec`, `CH1`, …; the times may be left out), and below them the number of samples of each channel.
    Sources: AcqKnowledge Software Guide ("Save as text"), resurfemg and ampdlib users' loaders.
    """
    at = next((number for number, line in enumerate(head[:6]) if _MSEC_A_SAMPLE.match(line[:80])), None)
    rate = _MSEC_A_SAMPLE.match(head[at][:80]) if at is not None else None
    channels = _CHANNELS.fullmatch(head[at + 1][:40]) if at is not None and at + 1 < len(head) else None
    if at is None or rate is None or channels is None:
        return None
    count, first = int(channels[1]), at + 2
    titles = next(
        (number for number in range(first, min(len(head), first + 2 * count + 2)) if _is_channel_row(head[number])), None
    )
    if titles is None or titles != first + 2 * count:
        return None
    delimiter = next((mark for mark in ("\t", ",") if mark in head[titles]), None)
    names = [cell.strip() for cell in head[titles].strip("\r\n").split(delimiter)]
    timed = int(not names[0].upper().startswith("CH"))
    begin = titles + 1 + _is_count_row(head, titles + 1, delimiter)
    columns = [
        Column(number + timed, head[first + 2 * number - 2].strip()[:80], head[first + 2 * number - 1].strip()[:40])
        for number in range(1, count + 1)
    ]
    time = Column(1, names[0], {"millisec": "ms", "sec": "s", "min": "min"}.get(names[0].casefold(), "")) if timed else None
    start = next((found[1] for line in head[:at] if (found := _RECORDED.match(line[:80]))), "")
    return Layout(
        "AcqKnowledge",
        begin,
        delimiter,
        add_trailing((*((time,) if time else ()), *columns), head[begin] if begin < len(head) else "", delimiter or " "),
        decimal_comma=has_decimal_comma(head[begin:], delimiter),
        time=time,
        rate_hz=1 / (to_number(rate[1]) * _SECONDS[rate[2].lower()]) if to_number(rate[1]) > 0 else None,
        start_us=parse_moment(start),
    )


def _is_channel_row(line: str) -> bool:
    return re.match(r"(?:\w{1,12}[\t, ]{1,3})?CH\d", line[:_TITLES], re.IGNORECASE) is not None


def _is_count_row(head: Sequence[str], at: int, delimiter: str | None) -> bool:
    """Whether a line holds the number of samples of each channel: whole numbers, and an empty cell for the times."""
    if at + 1 >= len(head):
        return False
    cells, below = (line.rstrip("\r\n").split(delimiter) for line in head[at : at + 2])
    whole = all(not cell.strip() or cell.strip().isdigit() for cell in cells) and any(cell.strip() for cell in cells)
    return whole and (not cells[0].strip() or not all(cell.strip().isdigit() for cell in below if cell.strip()))


def recognise_wfdb_text(head: Sequence[str]) -> Layout | None:
    """PhysioBank ATM and `rdsamp -c` where the first column counts samples: `'sample interval','MLII'` over `'0.004 sec','mV'`.

    Titles and cells stand in single quotes. The unit of the first column is the time from sample to sample.
    Source: PhysioBank ATM (samples.csv), rdsamp(1).
    """
    if len(head) < 3 or not head[0].casefold().startswith(("'sample interval'", "'sample #'")):
        return None
    titles, units = ([cell.strip().strip("'") for cell in line.split(",")] for line in head[:2])
    period = _INTERVAL.fullmatch(units[0][:40])
    if period is None or len(units) != len(titles):
        return None
    seconds = float(period[1]) * (1e-3 if period[2].casefold().startswith("m") else 1.0)
    columns = [Column(number, title[:40], unit[:40]) for number, (title, unit) in enumerate(zip(titles, units, strict=True), 1)]
    columns[0] = Column(1, titles[0])
    return Layout("rdsamp", 2, ",", tuple(columns), rate_hz=1 / seconds) if 1e-5 <= seconds <= 1 else None

"""Recognises the keys of JSON exports: sampling rate, unit, start, and the times and values of single samples.

The keys are those of public exports and interfaces (see `captures.exports.signals`), and the usual words of loggers.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from captures.leads import is_ecg_name, millivolts_per_unit, split_words
from captures.moments import moment_of_number, parse_moment

LONGEST_KEY: Final = 100
LARGEST: Final = 1e30
"""Larger than any value in any unit; a larger one marks no measurement."""
_RATE_KEYS: Final = frozenset(
    ("samplingfrequency", "samplefrequency", "samplingrate", "samplerate", "samplespersecond", "frequency", "freq", "rate")
) | {"fs", "sfreq", "sps", "hz"}
_RATE_SUFFIX: Final = re.compile(r"(?<=.)(?:hz|hertz)$")
_RATES_HZ: Final = (10.0, 100_000.0)
_UNIT_KEYS: Final = frozenset(("unit", "units", "voltageunit", "voltageunits", "amplitudeunit", "sampleunit", "ecgunit"))
_START_KEYS: Final = (
    *("starttime", "startdate", "startdatetime", "startedat", "start", "recordedat", "recordingstart", "recordingtime"),
    *("recordeddate", "effectivedatetime", "timestart", "physicaltime", "begin", "datetime", "date", "timestamp", "time"),
)
"""In order of preference."""
_TIME_KEYS: Final = frozenset(
    (
        *("timestamp", "date", "datetime", "time", "t", "ts", "seconds", "timesincesamplestart", "offset", "elapsed"),
        *("timestampms", "timems", "millis", "ms", "timestampus", "timestampns", "timens", "timeus", "sensortimestamp"),
    )
)
_VALUE_KEYS: Final = frozenset(
    ("voltage", "microvolts", "millivolts", "uv", "mv", "value", "amplitude", "v", "ecgvalue", "microvolt", "millivolt")
)
_KIND_KEYS: Final = frozenset(
    ("datatype", "type", "lead", "name", "label", "sensor", "signaltype", "channel", "display", "text")
)
_NUMBER: Final = re.compile(r"\s*([-+]?\d{1,12}(?:[.,]\d{1,12})?)\s*([^\d\s]*)\s*")


def normalize(key: str) -> str:
    """A key without case, blanks and punctuation."""
    return "".join(character for character in key[:LONGEST_KEY].casefold() if character.isalnum())


def split_key(key: str) -> str:
    """A key as words: `leadI` is "lead I"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key[:LONGEST_KEY]).replace("_", " ").strip()


def to_number(value: object) -> float:
    """A number, also as text; NaN for anything else."""
    if isinstance(value, str):
        try:
            value = float(value[:LONGEST_KEY])
        except ValueError:
            return math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    return math.nan


def find_rate(objects: Sequence[Mapping[str, Any]]) -> float | None:
    """The sampling rate in Hz that the innermost of these objects states; None if none does. The innermost one comes first."""
    for found in objects:
        for key, value in found.items():
            if _RATE_SUFFIX.sub("", normalize(key).removeprefix("ecg")) in _RATE_KEYS:
                rate_hz = _parse_rate(value)
                if rate_hz is not None:
                    return rate_hz
    return None


def _parse_rate(value: object) -> float | None:
    if isinstance(value, dict):
        return _parse_rate(value.get("value"))
    if isinstance(value, str):
        parts = _NUMBER.fullmatch(value[:LONGEST_KEY])
        if not parts or parts[2].casefold() not in ("", "hz", "hertz", "sps"):
            return None
        value = parts[1].replace(",", ".")
    rate_hz = to_number(value)
    return rate_hz if _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1] else None


def find_unit(objects: Sequence[Mapping[str, Any]]) -> str:
    """The unit of voltage that the innermost of these objects states; empty if none does."""
    for found in objects:
        for key, value in found.items():
            if normalize(key) in _UNIT_KEYS and isinstance(value, str) and millivolts_per_unit(value):
                return value.strip()
    return ""


def unit_of_key(key: str) -> str:
    """The unit of voltage at the end of a key, such as `ecg_uv` or `microvolts`; empty if there is none."""
    words = split_words(key[:LONGEST_KEY])
    return words[-1] if words and words[-1] != "v" and millivolts_per_unit(words[-1]) else ""


def find_start(objects: Sequence[Mapping[str, Any]]) -> int | None:
    """The start that the innermost of these objects states, in microseconds since 1970; None if none does."""
    for found in objects:
        known = {normalize(key): value for key, value in found.items() if isinstance(value, (str, float))}
        for key in _START_KEYS:
            moment = _parse_start(known.get(key))
            if moment is not None:
                return moment
    return None


def _parse_start(value: object) -> int | None:
    if isinstance(value, str):
        return parse_moment(value)
    return moment_of_number(value) if isinstance(value, float) else None


def find_kind(found: Mapping[str, Any]) -> str:
    """The name that an object gives itself, such as "ECG" in `{"dataType": "ECG", …}`; empty if it gives none.

    FHIR names it in a code: `{"code": {"text": …, "coding": [{"display": "MDC_ECG_ELEC_POTL_I"}]}}`.
    """
    names = (value for key, value in found.items() if normalize(key) in _KIND_KEYS and isinstance(value, str))
    code = found.get("code")
    coding = code.get("coding") if isinstance(code, dict) else None
    coded = (code, *(coding if isinstance(coding, list) else ())) if isinstance(code, dict) else ()
    displays = (item.get(key) for item in coded if isinstance(item, dict) for key in ("text", "display"))
    return next(iter((*names, *(text for text in displays if isinstance(text, str)))), "")[:LONGEST_KEY]


def find_value_key(point: Mapping[str, Any]) -> str | None:
    """The key of the value of a single sample, such as `{"voltage": 31.3, "date": …}`; None if the object is not a sample."""
    keys = [key for key in point if not math.isnan(to_number(point[key]))]
    named = next((key for key in keys if is_ecg_name(split_key(key))), None)
    return named or next((key for key in keys if normalize(key) in _VALUE_KEYS), None)


def find_time_key(point: Mapping[str, Any]) -> str | None:
    """The key of the time of a single sample; None if it has no time."""
    return next((key for key in point if normalize(key) in _TIME_KEYS), None)

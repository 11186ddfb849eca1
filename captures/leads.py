"""Recognises ECG leads and pulse waves by their names, and reads units of voltage."""

import re
from typing import Final

NAME_LIMIT: Final = 200
"""Characters of a name that are compared. The longest name of a public export has 60."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
"""A word of a title: `EcgWaveform`, `ecg_value` and `ECG1` have two each."""
_ECG_WORDS: Final = frozenset(
    (
        *(name + lead for name in ("ecg", "ekg") for lead in ("", "l", "r", "i", "ii", "iii")),
        *("electrocardiogram", "elektrokardiogramm", "electrocardiograma", "elettrocardiogramma"),
        *("心电图", "心電図", "экг"),
    )
)
_PPG_WORDS: Final = frozenset(
    (
        *("ppg", "pleth", "plethysmogram", "plethysmograph", "photoplethysmogram", "bvp", "pulsewave"),
        *("ir", "infrared", "red", "green"),
    )
)
_OTHER_WORDS: Final = frozenset(
    (
        *("hr", "bpm", "rate", "resp", "rsp", "respiration", "rr", "ibi", "interval", "intervals"),
        *("time", "timestamp", "date", "datetime", "index", "counter", "label", "annotation", "event", "events", "marker"),
        *("off", "lo", "status", "state", "quality", "sqi", "flag", "imp", "impedance"),
        *("battery", "temp", "temperature", "acc", "gyro"),
    )
)
"""A title with one of these words is not an ECG even if it names one, such as `ECG_RESP` and `lead off`. EEG is not among
them, because recorders of the EEG name the ECG `EEG EKG-REF`."""
_LEAD: Final = re.compile(
    r"\W*(?:lead\W.*|(?:i|d?iii?|av[rlf]|v\d*r?|v[xyz]|mcl\d?|c[lmc]\d|ml\s?(?:i{1,3}|\d)|mv\d)\W*)", re.IGNORECASE
)
"""Matching takes time proportional to the length of the name: no two adjacent repetitions match the same text."""
_MV: Final = {
    **dict.fromkeys(("v", "volt", "volts"), 1e3),
    **dict.fromkeys(("mv", "mvolt", "mvolts", "milliv", "millivolt", "millivolts"), 1.0),
    **dict.fromkeys(("uv", "µv", "μv", "mcv", "uvolt", "uvolts", "µvolt", "μvolt", "microv", "microvolt", "microvolts"), 1e-3),
    **dict.fromkeys(("nv", "nvolt", "nvolts", "nanovolt", "nanovolts"), 1e-6),
}
_GAIN: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*/\s*mv", re.IGNORECASE)
_MULTIPLE: Final = re.compile(
    r"(\d{1,12}(?:\.\d{1,12})?)\s*([nuµμm]?v)(?:\s*(?:/|per)\s*(?:bit|lsb|count|digit|adu|unit))?", re.IGNORECASE
)


def split_words(name: str) -> list[str]:
    """The words of a title, in lower case."""
    return [word.lower() for word in _WORD.findall(name[:NAME_LIMIT])]


def is_ecg_name(name: str) -> bool:
    """Whether a signal or column of this name (without its unit) is an ECG lead."""
    return ecg_rank(name) > 0


def ecg_rank(name: str) -> int:
    """2 for a name that says ECG, 1 for the name of a lead, 0 for all others. `V` may also be a voltage."""
    words = split_words(name)
    if not _OTHER_WORDS.isdisjoint(words):
        return 0
    if not _ECG_WORDS.isdisjoint(words):
        return 2
    return 1 if _LEAD.fullmatch(name[:NAME_LIMIT].replace("_", " ").strip()) else 0


def is_ppg_name(name: str) -> bool:
    """Whether a signal or column of this name is a pulse wave."""
    words = split_words(name)
    return not _PPG_WORDS.isdisjoint(words) and _OTHER_WORDS.isdisjoint(words)


def millivolts_per_unit(unit: str) -> float:
    """The millivolts in one such unit, also in a multiple of it such as `2.5 uV/bit`; 0 if it is not a unit of voltage.

    `200/mV` means 200 counts per millivolt.
    """
    text = unit.strip()[:NAME_LIMIT]
    gain = _GAIN.fullmatch(text)
    if gain:
        return 1.0 / float(gain[1]) if float(gain[1]) > 0 else 0.0
    multiple = _MULTIPLE.fullmatch(text)
    if multiple:
        return float(multiple[1]) * _MV.get(multiple[2].lower(), 0.0)
    return _MV.get(text.lower(), 0.0)


def may_be_supply(name: str) -> bool:
    """Whether a name is that of a lead, and also that of a battery's voltage."""
    return name.strip().upper() == "V"

"""Recognises the names of ECG leads and the units of voltage."""

import re
from typing import Final

ACCEPTED_ECG: Final = "ecg, ekg, or a lead (I, II, III, aVR, aVL, aVF, V, V1 … V6, MLII, MCL1)"

_ECG_WORD: Final = re.compile(r"(?:^|[\W_])e[ck]g(?:\d*\W*\Z|[\W_])", re.IGNORECASE)
_LEAD: Final = re.compile(r"\W*(?:lead\W.*|(?:i{1,3}|av[rlf]|v\d*|m?cl\d|ml\s?i{1,3}|mv\d)\W*)", re.IGNORECASE)
"""A name may be of any length. Both take time in proportion to it: no two repetitions side by side match the same text."""
_MV: Final = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6, "millivolts": 1.0, "microvolts": 1e-3}


def is_ecg_name(name: str) -> bool:
    """Whether a signal or column of this name (without its unit) is an ECG lead."""
    return bool(_ECG_WORD.search(name) or _LEAD.fullmatch(name))


def millivolts_per_unit(unit: str) -> float:
    """Returns the millivolts in one such unit; 0 if it is not a unit of voltage."""
    return _MV.get(unit.strip().lower(), 0.0)

"""Named sets of limits other than those of a patient."""

from collections.abc import Mapping
from typing import Final

from config.limits import DEFAULT_LIMITS, Limits

CINC2015: Final[Mapping[str, float]] = {
    "pause": 4.0,
    "asystole": 4.0,
    "bradycardia_rate": 40.0,
    "tachycardia_rate": 140.0,
    "rate_persistence": 3.0,
    "exertion_persistence": 3.0,
    "exertion_moving_persistence": 3.0,
    "exertion_fast_persistence": 3.0,
    "v_run_beats": 5.0,
    "vt_rate": 100.0,
    "vt_high_beats": 5.0,
}
"""The alarm definitions of the PhysioNet/CinC Challenge 2015 (Clifford et al. 2015): no QRS for 4 s; below 40/min for 5 beats;
above 140/min for 17 beats, which last 4.2 s at 230/min: 3 s, because the agent knows a beat 0.3 s later, and data come each
second; 5 ventricular beats above 100/min; fibrillation or flutter for 4 s. A monitor at the bedside knows no exertion."""


def cinc2015_limits() -> Limits:
    """Returns the limits of the profile `cinc2015`."""
    return DEFAULT_LIMITS.with_values(CINC2015)

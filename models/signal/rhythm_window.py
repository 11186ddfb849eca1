"""The window of ECG in which the rhythm of the ventricles is classified, and the classes."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.signal.chain import remove_baseline
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ

CLASSES: Final = ("organised", "vt", "vf", "asystole", "noise")
"""organised: QRS complexes of any shape and rate that are not ventricular tachycardia; vt: a wide fast regular rhythm; vf:
fibrillation or flutter of the ventricles; asystole: a signal without QRS complexes; noise: nothing can be stated."""

ORGANISED, VT, VF, ASYSTOLE, NOISE = range(5)

WINDOW_S: Final = 4.0
"""The criterion of asystole and of fibrillation in the PhysioNet/CinC Challenge 2015 is four seconds."""

CONTEXT_S: Final = 1.0
"""Signal before the window from which the baseline at its start is estimated."""

JUDGED_S: Final = 3.0
"""The class is that of the last three seconds of the window: five beats at 100/min."""

WINDOW_SAMPLES: Final = round(WINDOW_S * RATE_HZ)
INPUT_SAMPLES: Final = round((WINDOW_S + CONTEXT_S) * RATE_HZ)

MIN_KNOWN_SHARE: Final = 0.75
"""A window of which less was received is not classified: a second is missing."""


def prepare(mv: NDArray[np.floating[Any]]) -> Samples:
    """Return the window (500,) without its baseline; training and inference share this function.

    Args:
        mv: (625,) at 125 Hz as resampled, NaN where samples are missing: the window and one second before it.
    """
    window: Samples = remove_baseline(np.asarray(mv, np.float64))[-WINDOW_SAMPLES:]
    return window

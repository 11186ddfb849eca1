"""Beats that the detector finds at the beginning of a few records, computed once for each."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from captures import open_recording
from evaluation.detection import detect

END_S = 600.0
"""Length of the beginning: ten minutes, of which the first five do not count."""


@pytest.fixture(scope="session")
def detected(data: Path) -> Callable[[str], np.ndarray]:
    """Returns the detected beats in the first ten minutes of a record of mitdb, in seconds, rounded to whole samples."""

    @cache
    def of_record(name: str) -> np.ndarray:
        mv = open_recording(data / "mitdb" / f"{name}.hea").mv[: round(END_S * 360)]
        return np.round(detect(mv, 360.0) * 360) / 360

    return of_record

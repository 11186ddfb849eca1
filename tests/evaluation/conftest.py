"""The beginning of a few records, each looked through once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from captures import open_recording
from evaluation.detection import detect

END_S = 600.0
"""Ten minutes, of which the first five do not count."""


@pytest.fixture(scope="session")
def detected(data: Path) -> Callable[[str], np.ndarray]:
    """The detector's beats in the first ten minutes of a record of mitdb, on whole samples, in seconds."""

    @cache
    def of_record(name: str) -> np.ndarray:
        mv = open_recording(data / "mitdb" / f"{name}.hea").mv[: round(END_S * 360)]
        return np.round(detect(mv, 360.0) * 360) / 360

    return of_record

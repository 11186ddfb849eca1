"""What every test may use."""

import os
from pathlib import Path

import pytest


def _recordings() -> Path | None:
    candidates = [os.environ.get("PULSEGATE_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of recordings: `$PULSEGATE_DATA`, or `../shared/data` beside the checkout."""
    folder = _recordings()
    if folder is None:
        reason = "no recordings: set PULSEGATE_DATA to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder

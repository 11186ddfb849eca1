"""Types and numbers of the interface's JSON."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]

MV_DECIMALS: Final = 3
"""1 microvolt: the finest step of the supported sensors."""


def to_millivolts(samples: NDArray[np.int32], scale: float) -> list[float]:
    """Return the samples in mV."""
    return [round(value, MV_DECIMALS) for value in (samples * scale).tolist()]

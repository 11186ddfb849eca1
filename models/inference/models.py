"""The set of models that an analysis runs with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a hub without a model need not load its code
    from models.inference.ecg_beat import EcgBeat
    from models.inference.ecg_organised import EcgOrganised
    from models.inference.ecg_qrs import EcgQrs
    from models.inference.ecg_quality import EcgQuality
    from models.inference.ecg_rhythm import EcgRhythm
    from models.inference.ppg_quality import PpgQuality
    from models.inference.rr_af import RrAf


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded models, each None where it is not available.

    Rules that need a missing model report nothing; all other rules run as usual.
    """

    rr_af: "RrAf | None" = None
    ecg_rhythm: "EcgRhythm | None" = None
    ecg_beat: "EcgBeat | None" = None
    ecg_quality: "EcgQuality | None" = None
    ppg_quality: "PpgQuality | None" = None
    ecg_qrs: "EcgQrs | None" = None
    ecg_organised: "EcgOrganised | None" = None

    @property
    def names(self) -> tuple[str, ...]:
        """Name and version of each available model, such as `rr_af 5`."""
        known = (
            self.rr_af,
            self.ecg_rhythm,
            self.ecg_beat,
            self.ecg_quality,
            self.ppg_quality,
            self.ecg_qrs,
            self.ecg_organised,
        )
        return tuple(f"{model.name} {model.version}" for model in known if model is not None)

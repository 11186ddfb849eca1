"""The top-level packages have plain names; this refuses to run with one that belongs to somebody else."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("config", "drivers", "models", "sync", "captures", "reporting", "evaluation", "gateway", "cloud")


class OriginError(RuntimeError):
    """Two of our packages come from different places."""


def check_origin() -> None:
    """Raises OriginError unless all our packages lie side by side.

    `config` and `models` are names that other projects use too: one of theirs, found first, would run in place of ours.
    """
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parents[1] if spec and spec.origin else None
        if found != home:
            raise OriginError(
                f"package {name!r} comes from {found}, the others from {home}: run pulsegate in its own environment"
            )

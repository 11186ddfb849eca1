"""Start-up guard: refuse to run when a foreign package hides one of ours.

The top-level packages have common names such as `config` and `models`. Another project's package of the same name, found
first on the import path, would run in place of ours.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("config", "drivers", "models", "sync", "captures", "reporting", "evaluation", "gateway", "cloud")


class OriginError(RuntimeError):
    """Two of our packages come from different folders."""


def check_package_folders() -> None:
    """Check that all our packages lie in the same folder.

    Raises:
        OriginError: a package is missing or lies elsewhere.
    """
    expected = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        found = Path(spec.origin).resolve().parents[1] if spec and spec.origin else None
        if found != expected:
            raise OriginError(
                f"package {name!r} comes from {found}, the others from {expected}: run pulsegate in its own environment"
            )

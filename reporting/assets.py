"""Access to the package's style sheets, scripts and page template."""

from pathlib import Path
from typing import Final

SHARED: Final = Path(__file__).parent / "static"
"""theme.css and paper.js, which the report and the clinic's page share; the clinic serves this folder."""


def read_asset(name: str) -> str:
    """Returns the text of one file, by its path within this package."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")

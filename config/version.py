"""The version of this pulsegate, as in `pyproject.toml`."""

from typing import Final

VERSION: Final = "0.1.0"
"""Repeated here because reading it from the installed package's metadata costs a running agent 2 MB."""

BUILT_S: Final = 1_767_225_600
"""2026-01-01, in seconds since 1970: this version cannot run before it, so a clock that shows less is wrong. Set it to the date
of the release whenever `VERSION` is raised."""

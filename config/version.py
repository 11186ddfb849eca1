"""The version of this pulsegate, as in `pyproject.toml`."""

from typing import Final

VERSION: Final = "0.1.0"
"""Repeated here because reading it from the installed package's metadata costs a running agent 2 MB."""

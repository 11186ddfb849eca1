"""Whose data a viewer may see. Every query of the page takes a scope and applies it in SQL."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, true


@dataclass(frozen=True, slots=True)
class Scope:
    """The subjects whose data a viewer may see; None means every subject."""

    subjects: frozenset[str] | None

    def allows(self, subject: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the SQL condition that a row belongs to this scope; `subject` is the row's column."""
        return true() if self.subjects is None else subject.in_(sorted(self.subjects))


EVERY_SUBJECT: Final = Scope(None)
"""The whole clinic, what belongs to no subject included."""

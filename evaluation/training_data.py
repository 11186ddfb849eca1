"""Finds the evaluated records that the evaluated models were trained on, from the models' cards.

A card lists the databases under `data`, names those used for training there, and gives for most of them the records of each
fold under `splits`. The released networks were trained on all folds, so every record of a fold counts as training data. Where
a card names no record of a database, the whole database counts.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.inference.release import read_release_file

_NAMED: Final = 12
"""Names listed in the sentence; it gives the number of the others."""


@dataclass(frozen=True, slots=True)
class EvaluatedRecord:
    """The name of a record and those of its folders, innermost first. One of them may be the name of the database."""

    name: str
    folders: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What one card says of its databases: all that it lists, those used for training, and the records that it names.

    A name is `database/record`, or `record` where the card does not repeat the database.
    """

    listed: tuple[str, ...]
    databases: tuple[str, ...]
    records: frozenset[str]

    def find(self, record: EvaluatedRecord) -> str | None:
        """Returns `database/record`, or `database` where the card does not name its records; None for unseen data."""
        database = self._database(record.folders)
        if database is None:
            return self._find_by_name(record.name)
        if database not in self.databases:
            return None
        if record.name in self.records or f"{database}/{record.name}" in self.records:
            return f"{database}/{record.name}"
        names_records = any(other.startswith(f"{database}/") or _shape(other) == _shape(record.name) for other in self.records)
        return None if names_records else database

    def _find_by_name(self, name: str) -> str | None:
        """Finds a record whose folders are not named after a listed database."""
        if name in self.records:
            prefixed = next((database for database in self.databases if name.startswith(database)), None)
            return f"{prefixed or self.databases[0]}/{name}"
        return next((other for other in sorted(self.records) if other.endswith(f"/{name}")), None)

    def _database(self, folders: Iterable[str]) -> str | None:
        for folder in folders:
            if found := [database for database in self.listed if folder.lower().startswith(database)]:
                return max(found, key=len)
        return None


def read_card(card: Mapping[str, Any]) -> TrainingData:
    """Reads `data` and `splits` of a model's card."""
    data: Mapping[str, Any] = card["data"]
    return TrainingData(tuple(data), tuple(data["used_for_training"]), frozenset(_record_names(card["splits"])))


def find_trained_on(models: Iterable[str], records: Sequence[EvaluatedRecord]) -> list[str]:
    """Returns what the released cards of `models` say was used of these records: sorted, each once.

    Raises:
        ModelError: a card is missing from the release or damaged.
    """
    cards = [read_card(json.loads(read_release_file(f"{model}.json"))) for model in models]
    return sorted({found for card in cards for record in records if (found := card.find(record)) is not None})


def record_in(header: Path) -> EvaluatedRecord:
    """Returns the record of a header, with the names of its folder and of the folder above."""
    return EvaluatedRecord(header.stem, tuple(folder.name for folder in header.absolute().parents[:2]))


def describe_trained_on(names: Sequence[str]) -> str:
    """Returns `trained_on` as a sentence for people."""
    if not names:
        return "The cards of the evaluated models name none of these records as training data."
    listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"The evaluated models were trained on {listed}. Figures on training data are better than on new patients."


def _record_names(splits: Any) -> Iterator[str]:
    """Yields the names in lists of records. A text in which a word has no digit is a sentence, not a list."""
    match splits:
        case Mapping():
            for part in splits.values():
                yield from _record_names(part)
        case list():
            for part in splits:
                yield from _record_names(part)
        case str():
            words = splits.replace(",", " ").split()
            if all(any(letter.isdigit() for letter in word) for word in words):
                yield from words
        case _:
            pass


def _shape(name: str) -> str:
    """Returns the form of a name; the records of a database have names of one form, such as 101 and 234."""
    return re.sub(r"[a-z]", "a", re.sub(r"\d", "9", name.lower()))

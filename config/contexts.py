"""What is known of a patient's heart, so that rules judge the same signal by other limits."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

MAX_AGE_YEARS: Final = 130
"""Nobody has become older: the oldest verified age is 122 years (Gerontology Research Group)."""


class ContextError(ValueError):
    """An unknown context, or a value that it cannot have."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The clinical contexts of one patient; nothing is known by default.

    Attributes:
        known_af: atrial fibrillation is known: its burden and mean rate matter, not each episode.
        paced: the patient has a pacemaker.
        bundle_branch_block: wide QRS complexes are known to be conducted. A wide fast rhythm is a high alert all the same.
        age_years: None where it is not known.
    """

    known_af: bool = False
    paced: bool = False
    bundle_branch_block: bool = False
    age_years: int | None = None


NO_CONTEXTS: Final = Contexts()


def make_contexts(values: Mapping[str, Any]) -> Contexts:
    """Return the contexts with these values by name; what is absent is not known.

    Raises:
        ContextError: an unknown name or a wrong value. The message has the form `contexts.NAME ...: what to do`.
    """
    known = [field.name for field in fields(Contexts)]
    for name, value in values.items():
        if name not in known:
            raise ContextError(f"unknown setting contexts.{name}: use one of {', '.join(known)}")
        if name == "age_years":
            is_allowed = type(value) is int and 0 <= value <= MAX_AGE_YEARS
            allowed = f"a whole number of years from 0 to {MAX_AGE_YEARS}, or leave it out"
        else:
            is_allowed, allowed = isinstance(value, bool), "true or false"
        if not is_allowed:
            raise ContextError(f"contexts.{name} = {value!r} is not allowed: set it to {allowed}")
    return Contexts(**values)


def parse_contexts(words: Iterable[str]) -> dict[str, Any]:
    """Return the values that words such as `paced` and `age_years=71` name. `make_contexts` checks them."""
    values: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        values[name] = (int(text) if re.fullmatch("[0-9]{1,3}", text) else text) if separator else True
    return values

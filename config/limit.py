"""One clinical limit: a threshold of a rule, with its unit, bands, source and requirement."""

from dataclasses import dataclass, replace


class LimitError(ValueError):
    """An unknown limit, a value outside its absolute band, or two limits in the wrong order."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One threshold with two bands: a value outside `typical` is unusual but allowed, one outside `absolute` is rejected."""

    value: float
    unit: str
    typical: tuple[float, float]
    absolute: tuple[float, float]
    source: str
    requirement: str

    def with_value(self, value: float, name: str) -> "Limit":
        """The same limit with another value; `name` is used in the error.

        Raises:
            LimitError: the value is outside the absolute band.
        """
        low, high = self.absolute
        if not low <= value <= high:
            raise LimitError(
                f"limit {name} = {value:g} {self.unit} is not allowed: set it between {low:g} and {high:g} {self.unit}"
            )
        return replace(self, value=value)

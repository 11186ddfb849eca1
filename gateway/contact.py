"""What a sensor says of its skin contact."""

from typing import Final

from drivers.readings import Reading, Status

VALID_US: Final = 10_000_000
"""A sensor says it with every heart rate, once a second (`drivers.heart_rate`). What it said longer ago counts no more."""


class Contact:
    """Whether the sensor has skin contact. One that does not say so has contact.

    Attributes:
        is_off: whether the sensor said last that it has none.
    """

    def __init__(self) -> None:
        self.is_off = False
        self._said_us = 0

    def note(self, reading: Reading, at_us: int) -> bool | None:
        """Note a reading that arrived at `at_us`; return what it says, None if it is about something else."""
        match reading:
            case Status("skin_contact", bool(value)):
                self.is_off, self._said_us = not value, at_us
                return value
            case _:
                return None

    def is_there(self, at_us: int) -> bool:
        """Return whether the sensor has contact at a time, as far as it says so of that time."""
        return not self.is_off or abs(at_us - self._said_us) > VALID_US

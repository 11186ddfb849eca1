"""Which problems of one sensor were said already: a sensor that fails the same way every few seconds must not fill the log."""

import logging
from dataclasses import dataclass, field
from typing import Final

TEXTS_PER_TOPIC: Final = 3
"""A sensor can word its refusals differently each time; after so many texts, further ones are repetitions."""


@dataclass(slots=True)
class SaidProblems:
    """The texts that were said, by topic: a class of failure or a driver. `clear` when the sensor works again."""

    _texts: dict[str, set[str]] = field(default_factory=dict)

    def is_new(self, topic: str, text: str) -> bool:
        """Return whether this is to be said, and note that it was."""
        texts = self._texts.setdefault(topic, set())
        if text in texts or len(texts) >= TEXTS_PER_TOPIC:
            return False
        texts.add(text)
        return True

    def level(self, topic: str, text: str) -> int:
        """Return the level at which to log it: a warning the first time."""
        return logging.WARNING if self.is_new(topic, text) else logging.DEBUG

    def clear(self) -> None:
        self._texts.clear()

"""Shows the progress of a long replay on a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from config.terminal import escape_controls
from gateway.replay.sources import Source, Step
from reporting.text import format_clock

FIRST_S: Final = 1.0
"""A replay that is done by then shows nothing."""
INTERVAL_S: Final = 0.2
"""Time between two changes of the line; more often, they could not be read."""


@dataclass(slots=True)
class Progress:
    """One line that changes: the file, and how much of it has been replayed. Without `show`, nothing is written."""

    files: int
    show: Callable[[str], None] | None = None
    now: Callable[[], float] = time.monotonic
    _number: int = 0
    _next_s: float = field(default=0.0)

    def watch(self, source: Source) -> Source:
        """Returns the source, whose steps now also move the line."""
        self._number += 1
        return replace(source, steps=self._watch(source)) if self.show else source

    def _watch(self, source: Source) -> Iterator[Step]:
        name = escape_controls(source.path.name)
        number = f" ({self._number} of {self.files})" if self.files > 1 else ""
        self._next_s = self.now() + FIRST_S if self._number == 1 else self._next_s
        for step in source.steps:
            if self.show and self.now() >= self._next_s:
                self._next_s = self.now() + INTERVAL_S
                replayed = format_clock((step.arrival.wall_us - source.start_us) / 1e6)
                self.show(f"{name}{number}: {replayed} replayed")
            yield step


@contextmanager
def show_progress(files: int, *, json_output: bool) -> Iterator[Progress]:
    """Yields the progress of a number of files. It is shown on stderr if that is a terminal and no JSON goes to a terminal."""
    if not sys.stderr.isatty() or (json_output and sys.stdout.isatty()):
        yield Progress(files)
        return
    from rich.console import Console  # noqa: PLC0415  only a terminal needs it
    from rich.live import Live  # noqa: PLC0415  as above
    from rich.text import Text  # noqa: PLC0415  as above

    # Live writes to stderr only: by default it would also send there what is written to stdout.
    live = Live(console=Console(stderr=True), auto_refresh=False, transient=True, redirect_stdout=False)

    def show(line: str) -> None:
        live.start()
        live.update(Text(line, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)

    try:
        yield Progress(files, show)
    finally:
        live.stop()

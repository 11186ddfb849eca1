"""Text of foreign origin on a terminal: names in advertisements, files and messages may hold escape sequences."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from config.crashes import format_error


def escape_controls(text: str) -> str:
    r"""Return the text with every character that does not print as an escape: ESC becomes `\x1b`, a line end `\n`."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class LineFormatter(logging.Formatter):
    """Writes each message as one line without control characters. A traceback, without values, follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escape_controls(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return format_error(ei[1]).rstrip("\n")


def log_to_terminal(level: str, levels: Mapping[str, str]) -> None:
    """Write logs with their time (UTC) to standard error, from this level on; `levels` are those of single loggers."""
    formatter = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name, of_logger in levels.items():
        logging.getLogger(name).setLevel(of_logger)

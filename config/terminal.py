"""Text of foreign origin on a terminal: names in advertisements, files and messages may hold escape sequences."""

import logging


def escape_controls(text: str) -> str:
    r"""Return the text with every character that does not print as an escape: ESC becomes `\x1b`, a line end `\n`."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class LineFormatter(logging.Formatter):
    """Writes each message as one line without control characters. A traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escape_controls(super().formatMessage(record))

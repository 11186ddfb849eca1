"""Names from advertisements, files and messages cannot control the terminal."""

import logging
import sys

import pytest

from config.terminal import LineFormatter, escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 1 µV – ok", "Größe 1 µV – ok"),
        ("\x1b[2Jstrap", r"\x1b[2Jstrap"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202eevil", r"\u202eevil"),
        ("f\udcff", r"f\udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_escapes_what_does_not_print(text: str, shown: str) -> None:
    assert escape_controls(text) == shown
    assert escape_controls(shown) == shown


def test_a_log_message_is_one_line_and_a_traceback_keeps_its_lines() -> None:
    try:
        int("broken")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "name %s", ("\x1b[2J\nstrap",), sys.exc_info())
    first, *trace = LineFormatter("%(levelname)s %(message)s").format(record).splitlines()
    assert first == r"ERROR name \x1b[2J\nstrap"
    assert trace[0].startswith("Traceback")
    assert trace[-1].startswith("ValueError (its message is not shown")

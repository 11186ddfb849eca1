"""Types of command-line arguments that both ends have."""

import argparse
from datetime import datetime


def parse_time(text: str) -> datetime:
    """Parse a time with a zone, such as 2026-11-30T08:00:00Z.

    Raises:
        argparse.ArgumentTypeError: it is not such a time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give one such as 2026-11-30T08:00:00Z") from error
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone: give a time such as 2026-11-30T08:00:00Z")
    return time

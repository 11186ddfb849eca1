"""Converts the texts of command-line arguments."""

import argparse


def parse_positive_seconds(text: str) -> float:
    """Return a positive number of seconds. Raises ArgumentTypeError for any other text."""
    seconds = _parse_positive_number(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return seconds


def parse_speed(text: str) -> float | None:
    """Return a speed above 0, as a multiple of real time; None for "max". Raises ArgumentTypeError for any other text."""
    if text == "max":
        return None
    speed = _parse_positive_number(text)
    if speed is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither max nor a number above 0")
    return speed


def parse_rate(text: str) -> float:
    """Return a number of samples per second above 0. Raises ArgumentTypeError for any other text."""
    rate_hz = _parse_positive_number(text)
    if rate_hz is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of samples per second above 0")
    return rate_hz


def _parse_positive_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def parse_port(text: str) -> int:
    """Return a port from 0 to 65535. Raises ArgumentTypeError for any other text."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: use a number from 0 (any free port) to 65535")
    return int(text)

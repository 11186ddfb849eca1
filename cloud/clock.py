"""The clinic's clock."""

import time


def now_us() -> int:
    """Return the server's clock, microseconds since 1970."""
    return time.time_ns() // 1000

"""What every program of ours does first."""

from config.crashes import report_without_values
from config.egress import guard_connections


def protect_process() -> None:
    """From now on no connection goes but to servers of the settings, and no crash report holds a value."""
    guard_connections()
    report_without_values()

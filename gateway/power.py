"""Reads the state of the hub's own battery, as Linux reports it (Documentation/ABI/testing/sysfs-class-power)."""

from pathlib import Path
from typing import Final

from sync.status import Battery

POWER_SUPPLIES: Final = Path("/sys/class/power_supply")
_ON_MAINS: Final = frozenset({"Charging", "Full", "Not charging"})
"""States of a battery that does not discharge. A battery that is full enough may be `Not charging` on mains."""


def read_battery(folder: Path = POWER_SUPPLIES) -> Battery | None:
    """Return the first battery that supplies the hub; None if it has none, or its state cannot be read.

    Batteries of connected devices, such as a mouse, have the scope `Device`.
    """
    try:
        supplies = sorted(folder.iterdir())
    except OSError:
        return None
    for supply in supplies:
        if _read(supply / "type") != "Battery" or _read(supply / "scope") == "Device":
            continue
        percent = _read(supply / "capacity")
        if percent.isdecimal():
            return Battery(min(int(percent), 100), _read(supply / "status") in _ON_MAINS)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""

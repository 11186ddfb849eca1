"""Activity data service of the open Movesense firmware: 0x1859. Its ECG is that of `movesense_open_ecg`.

The service also has a characteristic of motion, which is not subscribed to: it needs the same radio and battery as the ECG.
"""

from typing import Final

from drivers.movesense_open_ecg import make_driver
from drivers.spec import uuid16

DRIVER: Final = make_driver("movesense_open_activity", uuid16(0x1859), uuid16(0x2BE3))

"""Bluetooth radios that bleak can use: the machine's adapter, or a virtual radio.

Modules from the bottom up: `radio`; `central`, `bumble_scanner`, `bumble_client`, `bumble_backend` (bleak on a Bumble device);
`virtual` (a link in this process); `virtual_radio_server` (a link between processes); `factory` (opens a radio by its name).
Only `radio` and `factory` load without Bumble, which a patient's hub does not have.
"""

from gateway.radio.factory import bleak_radio, open_radio
from gateway.radio.radio import Radio

__all__ = ["Radio", "bleak_radio", "open_radio"]

"""Bluetooth radios that bleak can use: the machine's adapter, or a virtual radio.

Modules from the bottom up: `pairing`, `stale_bonds`, `health`, `subscriptions`, `radio`; `bluez_bus`, `bluez_agent`,
`bluez_subscriptions`, `bluez_adapter` (a Linux machine's adapter, beside bleak's own backend); `bumble_address`,
`bumble_subscriptions`, `central`, `bumble_scanner`, `bumble_client`, `bumble_adapter`, `bumble_backend` (bleak on a Bumble
device); `virtual` (a link in this process); `virtual_radio_server` (a link between processes); `factory` (opens a radio by its
name). The modules of Bumble and of the virtual radio need Bumble, which a patient's hub does not have.
"""

from gateway.radio.factory import is_radio_present, open_radio
from gateway.radio.health import is_radio_busy
from gateway.radio.pairing import Bond, PairingAnswers, PairingError, StaleBondError
from gateway.radio.radio import CONNECT_TIMEOUT_S, Radio
from gateway.radio.subscriptions import OnValue, Subscriptions

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Bond",
    "OnValue",
    "PairingAnswers",
    "PairingError",
    "Radio",
    "StaleBondError",
    "Subscriptions",
    "is_radio_busy",
    "is_radio_present",
    "open_radio",
]

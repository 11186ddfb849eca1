"""Bluetooth: the real stack and a virtual one behind the same bleak calls."""

from gateway.radio.radio import Radio, RadioError, bleak_radio, open_radio

__all__ = ["Radio", "RadioError", "bleak_radio", "open_radio"]

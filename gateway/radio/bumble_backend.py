"""bleak on a Bumble device."""

from bumble.device import Device

from gateway.radio.bumble_client import BumbleClient
from gateway.radio.bumble_scanner import BumbleScanner
from gateway.radio.central import Central
from gateway.radio.radio import Radio


def radio_on(device: Device, name: str) -> Radio:
    """A radio on a powered Bumble device. bleak wants classes, so the device is bound to two made for it."""
    central = Central(device)

    class Client(BumbleClient):
        pass

    class Scanner(BumbleScanner):
        pass

    Client.central = central
    Scanner.central = central
    return Radio(Client, Scanner, name, central.lost)

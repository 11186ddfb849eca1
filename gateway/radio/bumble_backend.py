"""Makes a radio from a Bumble device."""

from bumble.device import Device

from gateway.radio.bumble_adapter import BumbleAdapter
from gateway.radio.bumble_client import BumbleClient
from gateway.radio.bumble_scanner import BumbleScanner
from gateway.radio.bumble_subscriptions import BumbleSubscriptions
from gateway.radio.central import Central
from gateway.radio.radio import Radio


def make_bumble_radio(device: Device, name: str) -> Radio:
    """Return a radio that uses a powered Bumble device.

    bleak takes backend classes, not objects, so each radio gets two subclasses that hold its device.
    """
    central = Central(device)

    class Client(BumbleClient):
        pass

    class Scanner(BumbleScanner):
        pass

    Client.central = central
    Scanner.central = central
    return Radio(Client, Scanner, name, central.lost, BumbleAdapter(central), BumbleSubscriptions(central.early))

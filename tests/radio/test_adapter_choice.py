"""Which adapter is opened where a machine has several."""

from typing import Any

import pytest

from gateway.errors import RadioError
from gateway.radio.bluez_bus import ADAPTER, choose_adapter


def make_objects(**powered: bool) -> Any:
    adapters = {f"/org/bluez/{name}": {ADAPTER: {"Powered": is_on}} for name, is_on in powered.items()}
    return adapters | {"/org/bluez": {"org.bluez.AgentManager1": {}}}


def test_the_first_adapter_that_is_on_is_chosen() -> None:
    assert choose_adapter(make_objects(hci1=True, hci0=True), None) == "/org/bluez/hci0"
    assert choose_adapter(make_objects(hci0=False, hci1=True), None) == "/org/bluez/hci1"
    assert choose_adapter(make_objects(hci0=False, hci1=False), None) == "/org/bluez/hci0"


def test_a_named_adapter_is_chosen_even_if_it_is_off() -> None:
    assert choose_adapter(make_objects(hci0=True, hci1=False), "hci1") == "/org/bluez/hci1"


def test_a_missing_adapter_is_named() -> None:
    with pytest.raises(RadioError, match="no Bluetooth adapter hci2, but hci0, hci1: plug it in, or set `radio`"):
        choose_adapter(make_objects(hci0=True, hci1=True), "hci2")
    with pytest.raises(RadioError, match="no Bluetooth adapter: plug one in"):
        choose_adapter({}, None)

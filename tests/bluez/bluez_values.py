"""Converts values and errors of Bumble and bleak to the form that BlueZ uses on D-Bus."""

from collections.abc import Mapping
from typing import Any, Final

from bleak.backends.scanner import AdvertisementData
from bumble.att import ErrorCode
from dbus_fast import Variant

from gateway.radio.bumble_scanner import format_uuid
from tests.bluez.dbus_objects import Properties

NEEDS_SECURITY: Final = frozenset(
    {ErrorCode.INSUFFICIENT_AUTHENTICATION, ErrorCode.INSUFFICIENT_ENCRYPTION, ErrorCode.INSUFFICIENT_ENCRYPTION_KEY_SIZE}
)
DBUS_ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    ErrorCode.READ_NOT_PERMITTED: ("org.bluez.Error.NotPermitted", "Read not permitted"),
    ErrorCode.WRITE_NOT_PERMITTED: ("org.bluez.Error.NotPermitted", "Write not permitted"),
    **dict.fromkeys(NEEDS_SECURITY, ("org.bluez.Error.NotPermitted", "Not paired")),
    ErrorCode.INVALID_OFFSET: ("org.bluez.Error.InvalidArguments", "Invalid offset"),
    ErrorCode.INVALID_ATTRIBUTE_LENGTH: ("org.bluez.Error.InvalidArguments", "Invalid Length"),
    ErrorCode.INSUFFICIENT_AUTHORIZATION: ("org.bluez.Error.NotAuthorized", "Operation Not Authorized"),
    ErrorCode.REQUEST_NOT_SUPPORTED: ("org.bluez.Error.NotSupported", "Operation is not supported"),
}
"""D-Bus error name and text by ATT error, from `create_gatt_dbus_error` in `src/gatt-client.c`. Others become `Failed`."""


def device_properties(advertisement: AdvertisementData) -> Properties:
    properties: Properties = {"RSSI": Variant("n", advertisement.rssi), "UUIDs": Variant("as", advertisement.service_uuids)}
    if advertisement.local_name is not None:
        properties |= dict.fromkeys(("Name", "Alias"), Variant("s", advertisement.local_name))
    if advertisement.tx_power is not None:
        properties["TxPower"] = Variant("n", advertisement.tx_power)
    if advertisement.manufacturer_data:
        data = {company: Variant("ay", value) for company, value in advertisement.manufacturer_data.items()}
        properties["ManufacturerData"] = Variant("a{qv}", data)
    if advertisement.service_data:
        properties["ServiceData"] = Variant("a{sv}", {uuid: Variant("ay", v) for uuid, v in advertisement.service_data.items()})
    return properties


def uuid_variant(uuid: Any) -> Variant:
    return Variant("s", format_uuid(uuid))

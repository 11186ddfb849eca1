"""What Bumble and bleak say, as BlueZ says it on the bus."""

from collections.abc import Mapping
from typing import Any, Final

from bleak.backends.scanner import AdvertisementData
from bumble.att import ErrorCode
from dbus_fast import Variant

from gateway.radio.bumble_scanner import uuid_text
from tests.bluez.objects import Properties

NEEDS_SECURITY: Final = frozenset(
    {ErrorCode.INSUFFICIENT_AUTHENTICATION, ErrorCode.INSUFFICIENT_ENCRYPTION, ErrorCode.INSUFFICIENT_ENCRYPTION_KEY_SIZE}
)
ATT_ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    ErrorCode.READ_NOT_PERMITTED: ("org.bluez.Error.NotPermitted", "Read not permitted"),
    ErrorCode.WRITE_NOT_PERMITTED: ("org.bluez.Error.NotPermitted", "Write not permitted"),
    **dict.fromkeys(NEEDS_SECURITY, ("org.bluez.Error.NotPermitted", "Not paired")),
    ErrorCode.INVALID_OFFSET: ("org.bluez.Error.InvalidArguments", "Invalid offset"),
    ErrorCode.INVALID_ATTRIBUTE_LENGTH: ("org.bluez.Error.InvalidArguments", "Invalid Length"),
    ErrorCode.INSUFFICIENT_AUTHORIZATION: ("org.bluez.Error.NotAuthorized", "Operation Not Authorized"),
    ErrorCode.REQUEST_NOT_SUPPORTED: ("org.bluez.Error.NotSupported", "Operation is not supported"),
}
"""`create_gatt_dbus_error` in `src/gatt-client.c`; all others become `Failed` with the number in its text."""


def device_properties(heard: AdvertisementData) -> Properties:
    properties: Properties = {"RSSI": Variant("n", heard.rssi), "UUIDs": Variant("as", heard.service_uuids)}
    if heard.local_name is not None:
        properties |= dict.fromkeys(("Name", "Alias"), Variant("s", heard.local_name))
    if heard.tx_power is not None:
        properties["TxPower"] = Variant("n", heard.tx_power)
    if heard.manufacturer_data:
        data = {company: Variant("ay", value) for company, value in heard.manufacturer_data.items()}
        properties["ManufacturerData"] = Variant("a{qv}", data)
    if heard.service_data:
        properties["ServiceData"] = Variant("a{sv}", {uuid: Variant("ay", v) for uuid, v in heard.service_data.items()})
    return properties


def uuid_variant(uuid: Any) -> Variant:
    return Variant("s", uuid_text(uuid))

"""bleak's scanner on a Bumble device."""

from contextlib import AsyncExitStack
from typing import Any, ClassVar, Final, Literal

from bleak.backends.scanner import AdvertisementData, AdvertisementDataCallback, BaseBleakScanner
from bleak.uuids import normalize_uuid_str
from bumble.core import UUID, AdvertisingData
from bumble.device import Advertisement

from gateway.radio.bumble_address import format_address
from gateway.radio.central import Central

_NAMES: Final = (AdvertisingData.COMPLETE_LOCAL_NAME, AdvertisingData.SHORTENED_LOCAL_NAME)
_UUID_LISTS: Final = {
    AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS: 2,
    AdvertisingData.INCOMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS: 2,
    AdvertisingData.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS: 16,
    AdvertisingData.INCOMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS: 16,
}
_SERVICE_DATA: Final = {AdvertisingData.SERVICE_DATA_16_BIT_UUID: 2, AdvertisingData.SERVICE_DATA_128_BIT_UUID: 16}


def format_uuid(uuid: UUID) -> str:
    """Return a UUID in bleak's form: 128 bits, lower case, hyphens."""
    return normalize_uuid_str(uuid.to_hex_str("-"))


def parse_advertisement(advertisement: Advertisement) -> AdvertisementData:
    """Convert an advertisement to bleak's form (Core Specification Supplement 11, Part A)."""
    name: str | None = None
    tx_power: int | None = None
    manufacturer_data: dict[int, bytes] = {}
    service_data: dict[str, bytes] = {}
    service_uuids: dict[str, None] = {}  # an ordered set: a scan response may repeat UUIDs of the advertisement
    for kind, value in advertisement.data.ad_structures:
        if kind in _NAMES:
            name = value.decode("utf-8", "replace")
        elif kind in _UUID_LISTS:
            size = _UUID_LISTS[kind]
            uuids = [value[i : i + size] for i in range(0, len(value) - size + 1, size)]
            service_uuids |= {format_uuid(UUID.from_bytes(uuid)): None for uuid in uuids}
        elif kind in _SERVICE_DATA and len(value) >= _SERVICE_DATA[kind]:
            size = _SERVICE_DATA[kind]
            service_data[format_uuid(UUID.from_bytes(value[:size]))] = bytes(value[size:])
        elif kind == AdvertisingData.MANUFACTURER_SPECIFIC_DATA:
            manufacturer_data[int.from_bytes(value[:2], "little")] = bytes(value[2:])
        elif kind == AdvertisingData.TX_POWER_LEVEL:
            tx_power = int.from_bytes(value, "little", signed=True)
    return AdvertisementData(
        name, manufacturer_data, service_data, list(service_uuids), tx_power, advertisement.rssi, (advertisement,)
    )


class BumbleScanner(BaseBleakScanner):
    """A bleak scanner backend. `bumble_backend.make_bumble_radio` creates it and sets `central`."""

    central: ClassVar[Central]

    def __init__(
        self,
        detection_callback: AdvertisementDataCallback | None,
        service_uuids: list[str] | None,
        _scanning_mode: Literal["active", "passive"],
        **_platform_arguments: Any,
    ) -> None:
        super().__init__(detection_callback, service_uuids)
        self._scan = AsyncExitStack()

    async def start(self) -> None:
        self.seen_devices.clear()
        with self.central.convert_errors("start scanning"):
            await self._scan.enter_async_context(self.central.scanning(self._on_advertisement))

    async def stop(self) -> None:
        with self.central.convert_errors("stop scanning"):
            await self._scan.aclose()

    def _on_advertisement(self, advertisement: Advertisement) -> None:
        data = parse_advertisement(advertisement)
        if self.is_allowed_uuid(data.service_uuids):
            address = format_address(advertisement.address)
            device = self.create_or_update_device(address, address, data.local_name, advertisement.address, data)
            self.call_detection_callbacks(device, data)

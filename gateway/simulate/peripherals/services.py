"""Parts of a GATT server that several emulated sensors have: characteristics, device information, battery, the clock."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from bumble import att
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection, Device
from bumble.gatt import (
    GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
    Characteristic,
    CharacteristicValue,
    Descriptor,
    Service,
)

from gateway.simulate.peripherals.encoding import decode_date, encode_date

CCCD_IMPROPERLY_CONFIGURED: Final = 0xFD
PROCEDURE_IN_PROGRESS: Final = 0xFE
"""ATT errors of the Core Specification Supplement, Part B, 1.2."""
INVALID_LENGTH: Final = 0x0D
DATA_FIELD_IGNORED: Final = 0x80
"""An ATT error of the Current Time Service 1.1, 3.1.2.1."""

MANUAL_TIME_UPDATE: Final = 1
"""A value of Adjust Reason: Current Time Service 1.1, 3.1.2.1."""
FACTORY_DATE: Final = datetime(2019, 1, 1)  # noqa: DTZ001  sensors count local time
"""The date of a clock that was never set, as an H10 has it."""

ReadValue = bytes | Callable[[], bytes]
OnWrite = Callable[[Connection, bytes], None]


class DeviceClock:
    """A sensor's clock, in its local time. `true_time` returns the time that a right clock shows."""

    def __init__(self, true_time: Callable[[], datetime]) -> None:
        self._true_time = true_time
        self._offset: timedelta | None = timedelta()
        self.is_set = True

    def now(self) -> datetime | None:
        """Return the time that the sensor shows, to the second; None while it shows none."""
        return None if self._offset is None else (self._true_time() + self._offset).replace(microsecond=0)

    def set_to(self, time: datetime) -> None:
        self._offset = time - self._true_time()
        self.is_set = True

    def jump(self, seconds: float) -> None:
        """Let the clock go wrong by so much, without the sensor noticing."""
        if self._offset is not None:
            self._offset += timedelta(seconds=seconds)

    def reset(self, factory_date: datetime | None = FACTORY_DATE) -> None:
        """Restart at the factory's date, or show none (None), until it is set again, as after a change of the battery."""
        self._offset = None if factory_date is None else factory_date - self._true_time()
        self.is_set = False


def follow_loop(start: datetime) -> Callable[[], datetime]:
    """Return a true time that shows `start` when the event loop's time is 0."""
    return lambda: start + timedelta(seconds=asyncio.get_running_loop().time())


def make_uuid(uuid: int | str) -> UUID:
    return UUID.from_16_bits(uuid) if isinstance(uuid, int) else UUID(uuid)


def make_characteristic(
    device: Device,
    uuid: int | str,
    *,
    read: ReadValue | None = None,
    write: OnWrite | None = None,
    notify: bool = False,
    indicate: bool = False,
    encrypted: bool = False,
) -> Characteristic[bytes]:
    """Return a characteristic with the properties that its arguments imply.

    With `encrypted`, reads, writes and subscriptions need an encrypted link. `write` may raise `att.ATT_Error`.
    """
    properties, permissions = Characteristic.Properties(0), att.Attribute.Permissions(0)
    if read is not None:
        properties |= Characteristic.Properties.READ
        permissions |= att.Attribute.READABLE | (att.Attribute.READ_REQUIRES_ENCRYPTION if encrypted else 0)
    if write is not None:
        properties |= Characteristic.Properties.WRITE
        permissions |= att.Attribute.WRITEABLE | (att.Attribute.WRITE_REQUIRES_ENCRYPTION if encrypted else 0)
    properties |= (Characteristic.Properties.NOTIFY if notify else 0) | (Characteristic.Properties.INDICATE if indicate else 0)
    on_write = write or (lambda _connection, _value: None)
    value = CharacteristicValue(
        read=lambda _connection: read() if callable(read) else read or b"",
        write=lambda connection, value: on_write(connection, bytes(value)),
    )
    made: Characteristic[bytes] = Characteristic(make_uuid(uuid), properties, permissions, value)
    if encrypted and (notify or indicate):
        needs_encryption = att.Attribute.READABLE | att.Attribute.WRITEABLE | att.Attribute.WRITE_REQUIRES_ENCRYPTION
        configuration = device.gatt_server.make_descriptor_value(made)
        made.descriptors = [Descriptor(GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR, needs_encryption, configuration)]
    return made


def make_service(uuid: int | str, characteristics: Sequence[Characteristic[bytes]]) -> Service:
    return Service(make_uuid(uuid), list(characteristics))


def make_device_information(device: Device, *, manufacturer: str, model: str, serial: str, firmware: str = "1.0") -> Service:
    """Return a Device Information service (0x180A)."""
    texts = {0x2A29: manufacturer, 0x2A24: model, 0x2A25: serial, 0x2A26: firmware}
    return make_service(0x180A, [make_characteristic(device, uuid, read=text.encode()) for uuid, text in texts.items()])


def make_battery(device: Device, percent: int) -> Service:
    """Return a Battery service (0x180F) with a constant level, which notifies nothing."""
    return make_service(0x180F, [make_characteristic(device, 0x2A19, read=bytes((percent,)), notify=True)])


def queue_request(requests: asyncio.Queue[bytes], request: bytes, *, is_subscribed: bool) -> None:
    """Queue a write to a control point. It is refused unless the hub subscribed to the answers, and while the queue is full.

    Raises:
        att.ATT_Error: it is refused.
    """
    if not is_subscribed:
        raise att.ATT_Error(att.ErrorCode(CCCD_IMPROPERLY_CONFIGURED))
    try:
        requests.put_nowait(request)
    except asyncio.QueueFull:
        raise att.ATT_Error(att.ErrorCode(PROCEDURE_IN_PROGRESS)) from None


def make_current_time(device: Device, clock: DeviceClock, *, encrypted: bool = False) -> Service:
    """Return a Current Time service (0x1805) that shows and sets a clock. A write has exactly 10 octets."""

    def read() -> bytes:
        now = clock.now()
        return encode_date(now) + bytes((now.isoweekday() if now else 0, 0, 0))

    def write(_connection: Connection, value: bytes) -> None:
        if len(value) != 10:
            raise att.ATT_Error(att.ErrorCode(INVALID_LENGTH))
        _set_clock(clock, value)

    return make_service(0x1805, [make_characteristic(device, 0x2A2B, read=read, write=write, notify=True, encrypted=encrypted)])


def make_date_time(device: Device, clock: DeviceClock) -> Characteristic[bytes]:
    """Return a Date Time characteristic (0x2A08) that shows and sets a clock, as A&D has it inside a measuring service."""

    def write(_connection: Connection, value: bytes) -> None:
        if len(value) != 7:
            raise att.ATT_Error(att.ErrorCode(INVALID_LENGTH))
        _set_clock(clock, value)

    return make_characteristic(device, 0x2A08, read=lambda: encode_date(clock.now()), write=write, encrypted=True)


def _set_clock(clock: DeviceClock, value: bytes) -> None:
    try:
        clock.set_to(decode_date(value))
    except ValueError:
        raise att.ATT_Error(att.ErrorCode(DATA_FIELD_IGNORED)) from None


def encode_advertising_data(
    name: str,
    services: Sequence[int] = (),
    *,
    manufacturer: tuple[int, bytes] | None = None,
    service_data: Mapping[int, bytes] | None = None,
    is_pairing: bool = False,
) -> bytes:
    """Encode an advertisement (Core Specification Supplement 11, Part A), at most 31 octets.

    `is_pairing` sets "limited discoverable" in the flags, as A&D's pairing mode does, instead of "general discoverable".
    """
    limited, general, le_only = 0x01, 0x02, 0x04
    fields = [(AdvertisingData.Type.FLAGS, bytes(((limited if is_pairing else general) | le_only,)))]
    if services:
        uuids = b"".join(number.to_bytes(2, "little") for number in services)
        fields.append((AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, uuids))
    if name:
        fields.append((AdvertisingData.Type.COMPLETE_LOCAL_NAME, name.encode()))
    if manufacturer is not None:
        company, data = manufacturer
        fields.append((AdvertisingData.Type.MANUFACTURER_SPECIFIC_DATA, company.to_bytes(2, "little") + data))
    for number, data in (service_data or {}).items():
        fields.append((AdvertisingData.Type.SERVICE_DATA_16_BIT_UUID, number.to_bytes(2, "little") + data))
    encoded = bytes(AdvertisingData(fields))
    if len(encoded) > 31:
        raise ValueError(f"the advertisement of {name!r} has {len(encoded)} octets: 31 fit")
    return encoded

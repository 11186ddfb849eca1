"""Device Information Service 1.1 (Bluetooth SIG): manufacturer, model, serial number and revisions."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from drivers.codec import Reader
from drivers.readings import Reading, Status
from drivers.spec import Characteristic, DriverSpec, uuid16

_TEXTS: Final[Mapping[int, str]] = {
    0x2A29: "manufacturer",
    0x2A24: "model",
    0x2A25: "serial",
    0x2A27: "hardware",
    0x2A26: "firmware",
    0x2A28: "software",
}


def decode_text(kind: str, payload: bytes) -> tuple[Reading, ...]:
    """A UTF-8 string (sections 3.1 to 3.6). An empty string, which the service allows, yields no reading."""
    text = Reader(payload).utf8(kind)
    return (Status(kind, text),) if text else ()


def decode_system_id(payload: bytes) -> tuple[Reading, ...]:
    """System ID, 0x2A23 (section 3.7): an EUI-64, sent last byte first. Yields its 16 hexadecimal digits in written order.

    Many sensors send a pattern of one or two bytes instead. It identifies nothing and has the kind `system_id_filler`.
    """
    reader = Reader(payload)
    eui64 = reader.u64("system id")
    reader.expect_end()
    is_filler = payload == payload[:2] * 4
    return (Status("system_id_filler" if is_filler else "system_id", f"{eui64:016X}"),)


def decode_pnp_id(payload: bytes) -> tuple[Reading, ...]:
    """PnP ID, 0x2A50 (section 3.9): who numbers the vendor (1 is the Bluetooth SIG, 2 USB), vendor, product, version."""
    reader = Reader(payload)
    source, vendor = reader.u8("vendor ID source"), reader.u16("vendor ID")
    product, version = reader.u16("product ID"), reader.u16("product version")
    reader.expect_end()
    text = f"vendor_id_source={source} vendor_id={vendor} product_id={product} product_version={version}"
    return (Status("pnp_id", text),)


DRIVER: Final = DriverSpec(
    name="device_information",
    service=uuid16(0x180A),
    reads=(
        *(Characteristic(uuid16(number), "read", partial(decode_text, kind)) for number, kind in _TEXTS.items()),
        Characteristic(uuid16(0x2A23), "read", decode_system_id),
    ),
    others=(Characteristic(uuid16(0x2A50), "read", decode_pnp_id),),
    identifies=True,
)

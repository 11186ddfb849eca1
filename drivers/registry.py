"""All drivers there are, found by listing the package: every module in it that defines `DRIVER`."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import drivers
from drivers.readings import DecodeError, Quarantined, Reading
from drivers.spec import Decode, DeviceInformation, DriverSpec


class DriverConflictError(Exception):
    """Two drivers claim the same characteristic; which one should decode it would be chance."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The drivers, in order of their names, and who decodes what. Built by `registry_of` or `load_drivers`."""

    drivers: tuple[DriverSpec, ...]
    _owners: Mapping[str, DriverSpec]
    _decoders: Mapping[str, Decode]

    def for_services(self, uuids: Iterable[str]) -> tuple[DriverSpec, ...]:
        """The drivers for the services that a sensor offers (128-bit UUIDs)."""
        offered = {uuid.lower() for uuid in uuids}
        return tuple(driver for driver in self.drivers if driver.service in offered)

    def decode(self, characteristic: str, payload: bytes, device: DeviceInformation | None = None) -> tuple[Reading, ...]:
        """What `payload` says, as the declared quirks of `device` correct it; `Quarantined` where it cannot be decoded."""
        characteristic = characteristic.lower()
        decoder = self._decoders.get(characteristic)
        if decoder is None:
            return (Quarantined(characteristic, payload, "no driver decodes this characteristic"),)
        try:
            readings = decoder(payload)
        except DecodeError as error:
            return (Quarantined(characteristic, payload, str(error)),)
        for quirk in self._owners[characteristic].quirks:
            if device is not None and quirk.applies_to(device):
                readings = quirk.correct(readings)
        return readings


def load_drivers() -> Registry:
    """The registry of every driver in the package.

    Raises:
        DriverConflictError: two drivers claim the same characteristic.
        TypeError: a module's `DRIVER` is no `DriverSpec`.
    """
    modules = (
        importlib.import_module(f"{drivers.__name__}.{module.name}") for module in pkgutil.iter_modules(drivers.__path__)
    )
    return registry_of(module.DRIVER for module in modules if hasattr(module, "DRIVER"))


def registry_of(specs: Iterable[DriverSpec]) -> Registry:
    """A registry of these drivers; raises as `load_drivers` does."""
    ordered = tuple(sorted(specs, key=_name))
    owners: dict[str, DriverSpec] = {}
    for driver in ordered:
        for characteristic in driver.characteristics:
            other = owners.setdefault(characteristic, driver)
            if other is not driver:
                raise DriverConflictError(
                    f"drivers {other.name!r} and {driver.name!r} both claim characteristic {characteristic}: remove it from one"
                )
    decoders = {s.characteristic: s.decode for driver in ordered for s in driver.streams + driver.reads}
    return Registry(ordered, owners, decoders)


def _name(driver: object) -> str:
    if not isinstance(driver, DriverSpec):
        raise TypeError(f"DRIVER is a {type(driver).__name__}: it must be a drivers.spec.DriverSpec")
    return driver.name

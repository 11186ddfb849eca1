"""The registry of all drivers: every module of this package that defines `DRIVER`."""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import drivers
from drivers.conversation import Context
from drivers.decoding import ServiceDecoder
from drivers.device import DeviceInformation
from drivers.readings import DecodeError, Quarantined, Reading, check_reading
from drivers.spec import Broadcast, BroadcastField, DriverSpec


class DriverConflictError(Exception):
    """Two drivers claim the same service, or the same field of an advertisement, and nothing decides which one decodes it."""


@dataclass(frozen=True)
class Registry:
    """All drivers, ordered by name. See `load_drivers` and `build_registry`."""

    drivers: tuple[DriverSpec, ...]

    def for_services(self, uuids: Iterable[str]) -> tuple[DriverSpec, ...]:
        """The drivers for the services that a sensor offers (128-bit UUIDs)."""
        offered = {uuid.lower() for uuid in uuids}
        return tuple(driver for driver in self.drivers if driver.service in offered)

    def find(self, characteristic: str, service: str | None = None) -> DriverSpec | None:
        """The driver that decodes a characteristic of a service; None if there is none, or if several could.

        The service may be unknown, or one without a driver: a characteristic then has the layout that it has elsewhere, as
        record access in a glucose meter.
        """
        found = self._owners.get(characteristic.lower(), ())
        if service is not None and service.lower() in self._services:
            found = tuple(driver for driver in found if driver.service == service.lower())
        return found[0] if len(found) == 1 else None

    def decode(
        self, characteristic: str, payload: bytes, device: DeviceInformation | None = None, service: str | None = None
    ) -> tuple[Reading, ...]:
        """Decode one payload by itself, as if a connection began with it.

        Yields `Quarantined` where no driver decodes it, where decoding fails or gives a value that the stages after it cannot
        represent.
        """
        driver = self.find(characteristic, service)
        if driver is None:
            return (Quarantined(characteristic, payload, "no driver decodes this characteristic"),)
        decoder = ServiceDecoder(driver, Context(device or DeviceInformation()))
        return decoder.decode(characteristic.lower(), payload).readings

    def bonds_first(self, device: DeviceInformation) -> bool:
        """Whether this sensor must be bonded before its services are discovered."""
        return any(quirk.bonds_first and quirk.applies_to(device) for driver in self.drivers for quirk in driver.quirks)

    def reads_broadcast(self, field: BroadcastField, key: str | int) -> bool:
        """Whether a driver decodes this field of advertisements."""
        return (field, key) in self._broadcasts

    def decode_broadcast(self, field: BroadcastField, key: str | int, payload: bytes) -> tuple[Reading, ...]:
        """Decode a field of an advertisement; no readings where no driver decodes it, because most concern other devices."""
        broadcast = self._broadcasts.get((field, key))
        if broadcast is None:
            return ()
        name = f"{field} {key if isinstance(key, str) else f'{key:04X}'}"
        try:
            readings = broadcast.decode(payload)
            for reading in readings:
                check_reading(reading)
        except DecodeError as error:
            return (Quarantined(name, payload, str(error)),)
        return readings

    @cached_property
    def _broadcasts(self) -> Mapping[tuple[BroadcastField, str | int], Broadcast]:
        return {(broadcast.field, broadcast.key): broadcast for driver in self.drivers for broadcast in driver.broadcasts}

    @cached_property
    def _services(self) -> frozenset[str]:
        return frozenset(driver.service for driver in self.drivers if driver.service)

    @cached_property
    def _owners(self) -> Mapping[str, tuple[DriverSpec, ...]]:
        owners: dict[str, tuple[DriverSpec, ...]] = {}
        for driver in self.drivers:
            for characteristic in driver.characteristics:
                owners[characteristic] = (*owners.get(characteristic, ()), driver)
        return owners


def load_drivers() -> Registry:
    """A registry of every driver in the package.

    Raises:
        DriverConflictError: two drivers claim the same service or the same field of an advertisement.
        TypeError: a module's `DRIVER` is not a `DriverSpec`.
    """
    modules = (
        importlib.import_module(f"{drivers.__name__}.{module.name}") for module in pkgutil.iter_modules(drivers.__path__)
    )
    return build_registry(module.DRIVER for module in modules if hasattr(module, "DRIVER"))


def build_registry(specs: Iterable[DriverSpec]) -> Registry:
    """A registry of the given drivers. Raises the same errors as `load_drivers`."""
    ordered = tuple(sorted(specs, key=_checked_name))
    owners: dict[str, DriverSpec] = {}
    for driver in ordered:
        for claim in _claims(driver):
            other = owners.setdefault(claim, driver)
            if other is not driver:
                raise DriverConflictError(f"drivers {other.name!r} and {driver.name!r} both claim {claim}: remove it from one")
    return Registry(ordered)


def _claims(driver: DriverSpec) -> Iterable[str]:
    if driver.service:
        yield f"service {driver.service}"
    yield from (f"{broadcast.field} {broadcast.key}" for broadcast in driver.broadcasts)


def _checked_name(driver: object) -> str:
    if not isinstance(driver, DriverSpec):
        raise TypeError(f"DRIVER is a {type(driver).__name__}: it must be a drivers.spec.DriverSpec")
    return driver.name

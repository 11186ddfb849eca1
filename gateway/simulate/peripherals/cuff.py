"""An emulated blood-pressure cuff: Blood Pressure service 1.1.1 (0x1810), and what cuffs on the market make of it.

It wakes by measuring, wants an encrypted link and a subscription at once, indicates, and disconnects by itself.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Unpack

from bumble import att
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service

from gateway.simulate.peripherals.encoding import encode_date, encode_sfloat
from gateway.simulate.peripherals.peripheral import PeripheralOptions
from gateway.simulate.peripherals.services import (
    DeviceClock,
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_current_time,
    make_date_time,
    make_device_information,
    make_service,
)
from gateway.simulate.peripherals.spot import ADVERTISING_WINDOW_S, SpotPeripheral, StoredResult

AND_SERVICE: Final = "233BF000-5A34-1B6D-975C-000D5690ABE4"
AND_CONTROL: Final = "233BF001-5A34-1B6D-975C-000D5690ABE4"
AND_SEND_ALL: Final = bytes.fromhex("0200E1")
AND_DISCONNECT: Final = bytes.fromhex("020103")

KPA_PER_MMHG: Final = 0.133322
"""Conventional millimetre of mercury: ISO 80000-4."""

BODY_MOVEMENT: Final = 1 << 0
CUFF_TOO_LOOSE: Final = 1 << 1
IRREGULAR_PULSE: Final = 1 << 2
IMPROPER_POSITION: Final = 1 << 5
"""Bits of Measurement Status."""

_KPA, _DATE, _PULSE, _USER, _STATUS = 1, 2, 4, 8, 16
_UNKNOWN_USER: Final = 255
_FEATURES: Final = 0x0017
"""Body movement, cuff fit, irregular pulse and position are detected."""
_INFLATION_STEPS_MMHG: Final = (40, 90, 150)
"""Pressures that a cuff shows while it inflates, where it notifies intermediate values."""


@dataclass(frozen=True, slots=True)
class CuffModel:
    """How a make of cuffs behaves.

    Attributes:
        clock: whether its clock is set by Current Time (0x2A2B), by Date Time (0x2A08) inside 0x1810, or not at all.
        sends: what it indicates to a hub that connects: results that no hub confirmed, or all that it has stored.
        newest_first: whether it sends the newest result first.
        has_users: whether a result carries the number of the user.
        needs_bond: whether it wants encryption before anything else.
        has_intermediate: whether it notifies cuff pressures during a measurement.
        pairs_when_asked: whether it accepts a new hub in its pairing mode only, and switches itself off when an unbonded hub
            discovers its services.
    """

    manufacturer: str
    model: str
    name: str
    clock: Literal["current_time", "date_time"] | None = "current_time"
    sends: Literal["unconfirmed", "all"] = "unconfirmed"
    newest_first: bool = False
    has_users: bool = True
    needs_bond: bool = True
    in_kpa: bool = False
    has_intermediate: bool = False
    pairs_when_asked: bool = False


STANDARD_CUFF: Final = CuffModel("pulsegate", "Virtual BP", "Virtual BP 0001", has_intermediate=True)
AND_CUFF: Final = CuffModel(
    "A&D Medical", "UA-651BLE", "A&D_UA-651BLE_ABCDEF", clock="date_time", has_users=False, pairs_when_asked=True
)
MEDISANA_CUFF: Final = CuffModel("Medisana", "BU 530", "1872B", sends="all", newest_first=True, needs_bond=False)


@dataclass(frozen=True, slots=True)
class Pressure:
    """A result in mm[Hg] and 1/min; without values, of a failed measurement. `user` None is sent as unknown."""

    systolic: float | None = None
    diastolic: float | None = None
    pulse: float | None = None
    user: int | None = 1
    status: int = 0

    @property
    def mean(self) -> float | None:
        if self.systolic is None or self.diastolic is None:
            return None
        return round(self.diastolic + (self.systolic - self.diastolic) / 3)


class Cuff(SpotPeripheral):
    """A cuff with a memory. `clock` is its clock, which the hub may set."""

    def __init__(
        self,
        device: Device,
        true_time: Callable[[], datetime],
        model: CuffModel = STANDARD_CUFF,
        **options: Unpack[PeripheralOptions],
    ) -> None:
        super().__init__(device, **options)
        self.model, self.clock, self.needs_encryption = model, DeviceClock(true_time), model.needs_bond
        self._measurement = make_characteristic(device, 0x2A35, indicate=True, encrypted=model.needs_bond)
        self._intermediate = make_characteristic(device, 0x2A36, notify=True, encrypted=model.needs_bond)
        self.add_services(self._make_services(), encode_advertising_data(model.name, (0x1810,)))
        if model.pairs_when_asked:
            self.pairing.is_allowed = False
            self._guard_discovery()

    async def enter_pairing_mode(self) -> None:
        """Advertise as limited discoverable, and accept a new hub, as after a long press of the button ("Pr")."""
        self.pairing.is_allowed = True
        await self.advertise_data(encode_advertising_data(self.model.name, (0x1810,), is_pairing=True))
        self.press_button()

    async def leave_pairing_mode(self) -> None:
        """Accept bonded hubs only."""
        self.pairing.is_allowed = False
        await self.advertise_data(encode_advertising_data(self.model.name, (0x1810,)))

    async def measure(
        self,
        systolic: float | None = None,
        diastolic: float | None = None,
        pulse: float | None = None,
        *,
        at: datetime | None = None,
        user: int | None = 1,
        status: int = 0,
    ) -> StoredResult:
        """Measure, store the result, and advertise. Without values the measurement fails; see `Pressure`.

        `at` is the time that the clock showed, where it is not its present time.
        """
        if self.model.has_intermediate:
            for step_mmhg in _INFLATION_STEPS_MMHG:
                await self.notify(self._intermediate, encode_pressure(Pressure(step_mmhg, user=user), self.model))
        pressure, date = Pressure(systolic, diastolic, pulse, user, status), encode_date(at or self.clock.now())
        result = self.keep([(self._measurement, encode_pressure(pressure, self.model, date))])
        self.wake(ADVERTISING_WINDOW_S)
        return result

    def results_to_send(self) -> list[StoredResult]:
        """Return the unconfirmed results, or the whole memory, in the model's order."""
        results = list(self.memory) if self.model.sends == "all" else super().results_to_send()
        return results[::-1] if self.model.newest_first else results

    def _make_services(self) -> list[Service]:
        device, model = self.device, self.model
        pressure = [self._measurement, make_characteristic(device, 0x2A49, read=_FEATURES.to_bytes(2, "little"))]
        if model.has_intermediate:
            pressure.append(self._intermediate)
        if model.clock == "date_time":
            pressure.append(make_date_time(device, self.clock))
        services = [
            make_service(0x1810, pressure),
            make_device_information(
                device, manufacturer=model.manufacturer, model=model.model, serial=re.split("[ _]", model.name)[-1]
            ),
            make_battery(device, 80),
        ]
        if model.clock == "current_time":
            services.append(make_current_time(device, self.clock, encrypted=model.needs_bond))
        if model.clock == "date_time":
            services.append(make_service(AND_SERVICE, [_make_and_control(device)]))
        return services

    def _guard_discovery(self) -> None:
        """Switch off when services are discovered over a link that is not encrypted (A&D: "E10")."""
        server: Any = self.device.gatt_server
        discover = server.on_att_read_by_group_type_request

        def on_discovery(bearer: object, request: object) -> None:
            if self.is_encrypted:
                discover(bearer, request)
            else:
                self.switch_off()

        server.on_att_read_by_group_type_request = on_discovery


def encode_pressure(pressure: Pressure, model: CuffModel, date: bytes = b"") -> bytes:
    """Encode a Blood Pressure Measurement, or without a date an Intermediate Cuff Pressure, which has the same fields."""
    values_mmhg = (pressure.systolic, pressure.diastolic, pressure.mean)
    if model.in_kpa:
        values = [encode_sfloat(None if value is None else value * KPA_PER_MMHG, 1) for value in values_mmhg]
    else:
        values = [encode_sfloat(value) for value in values_mmhg]
    user = b""
    if model.has_users:
        user = bytes((_UNKNOWN_USER if pressure.user is None else pressure.user,))
    flags = _PULSE | _STATUS | (_KPA if model.in_kpa else 0) | (_DATE if date else 0) | (_USER if user else 0)
    return b"".join(
        (bytes((flags,)), *values, date, encode_sfloat(pressure.pulse), user, pressure.status.to_bytes(2, "little"))
    )


def _make_and_control(device: Device) -> Characteristic[bytes]:
    """A&D's own control point: "send what is stored" and "disconnect". The cuff does both anyway."""

    def write(_connection: Connection, request: bytes) -> None:
        if request not in (AND_SEND_ALL, AND_DISCONNECT):
            raise att.ATT_Error(att.ErrorCode.UNLIKELY_ERROR)

    return make_characteristic(device, AND_CONTROL, read=b"", write=write, encrypted=True)

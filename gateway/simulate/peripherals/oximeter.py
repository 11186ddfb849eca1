"""An emulated finger oximeter: Pulse Oximeter service 1.0.1 (0x1822).

It advertises while a finger is in it. A connected hub gets continuous values every second, and the spot check when the finger
leaves. Without a hub the spot check is stored, and reported on request through the Record Access Control Point.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn, Unpack

from bumble import att
from bumble.device import Connection, Device
from bumble.gatt import Service

from gateway.simulate.peripherals import record_access
from gateway.simulate.peripherals.encoding import encode_date, encode_sfloat
from gateway.simulate.peripherals.peripheral import Peripheral, PeripheralOptions, now_s, sleep_until
from gateway.simulate.peripherals.services import (
    CCCD_IMPROPERLY_CONFIGURED,
    PROCEDURE_IN_PROGRESS,
    DeviceClock,
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_current_time,
    make_device_information,
    make_service,
)

NAME: Final = "Virtual Oxim 0001"
IDLE_S: Final = 10.0
"""How long it stays on after the finger has left."""
RECORD_INTERVAL_S: Final = 0.05
"""Time between two stored records on the air."""

VALIDATED: Final = 1 << 7
FROM_STORAGE: Final = 1 << 9
"""Bits of Measurement Status."""
POOR_SIGNAL: Final = 1 << 4
LOW_PERFUSION: Final = 1 << 5
SENSOR_UNCONNECTED: Final = 1 << 11
"""Bits of Device and Sensor Status."""

_SPOT_DATE, _SPOT_STATUS, _SPOT_DEVICE, _SPOT_AMPLITUDE, _SPOT_CLOCK_NOT_SET = 1, 2, 4, 8, 16
_CONTINUOUS_STATUS, _CONTINUOUS_DEVICE, _CONTINUOUS_AMPLITUDE = 4, 8, 16
_FEATURES: Final = bytes.fromhex("4f00 a002 300800")
"""Measurement status, device status, storage, date and amplitude are supported; then which bits of the two statuses."""


@dataclass(frozen=True, slots=True)
class Oximetry:
    """What the oximeter shows: saturation and amplitude in %, pulse in 1/min. Without values there is no signal."""

    spo2: float | None = None
    pulse: float | None = None
    amplitude: float | None = None
    device_status: int = 0


class Oximeter(Peripheral):
    """An oximeter with a memory. `clock` is its clock, which the hub may set."""

    def __init__(
        self,
        device: Device,
        true_time: Callable[[], datetime],
        *,
        operators: tuple[int, ...] = (record_access.ALL,),
        **options: Unpack[PeripheralOptions],
    ) -> None:
        """`operators` are those that its record access supports. Others are refused."""
        super().__init__(device, **options)
        self.clock = DeviceClock(true_time)
        self.records: dict[int, bytes] = {}
        """The stored spot checks by number."""
        self.shown: Oximetry | None = None
        """What it measures now; None without a finger."""
        self.ignores_abort = False
        """Fault: it goes on reporting after an abort."""
        self.fails_after: int | None = None
        """Fault: it ends a report with "procedure not completed" after so many records."""
        self._operators, self._next_number = operators, 1
        self._requests: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._is_reporting = self._abort_requested = False
        self._spot = make_characteristic(device, 0x2A5E, indicate=True)
        self._continuous = make_characteristic(device, 0x2A5F, notify=True)
        self._control_point = make_characteristic(device, 0x2A52, write=self._on_request, indicate=True)
        self.add_services(self._make_services(), encode_advertising_data(NAME, (0x1822,)))

    def insert_finger(self, spo2: float, pulse: float, amplitude: float | None = 4.2, *, device_status: int = 0) -> None:
        """Begin to measure, or measure other values from now on."""
        self.shown = Oximetry(spo2, pulse, amplitude, device_status)
        self.wake()

    def lose_signal(self) -> None:
        """Keep measuring, without a value."""
        self.shown = Oximetry(device_status=SENSOR_UNCONNECTED)

    async def remove_finger(self, *, at: datetime | None = None) -> None:
        """End the measurement: the spot check is indicated to a subscribed hub, else stored. Then it switches off soon."""
        if self.shown is None:
            return
        shown, self.shown = self.shown, None
        date = encode_date(at or self.clock.now())
        if not await self.indicate(self._spot, encode_spot(shown, date, VALIDATED, clock_is_set=self.clock.is_set)):
            stored = encode_spot(shown, date, VALIDATED | FROM_STORAGE, clock_is_set=self.clock.is_set)
            self.records[self._next_number] = stored
            self._next_number += 1
        self.sleep()
        self.wake(IDLE_S)

    async def measure(self, spo2: float, pulse: float, seconds: float = 10.0, *, at: datetime | None = None) -> None:
        """Measure for so long: finger in, finger out."""
        self.insert_finger(spo2, pulse)
        await asyncio.sleep(seconds)
        await self.remove_finger(at=at)

    async def serve(self) -> None:
        """Answer requests for records. Leave when the finger has been out for a while."""
        self._requests, self._is_reporting, self._abort_requested = asyncio.Queue(1), False, False
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leave_when_idle())
            while True:
                request = await self._requests.get()
                self._is_reporting = True
                await self._answer(request)
                self._is_reporting = self._abort_requested = False
                self.notice_change()

    async def work(self) -> NoReturn:
        """Notify what is shown, every second from the insertion of the finger on."""
        while True:
            await self.wait_until(lambda: self.shown is not None)
            next_s = now_s() + 1.0
            await sleep_until(next_s)
            while self.shown is not None:
                await self.notify(self._continuous, encode_continuous(self.shown))
                next_s += 1.0
                await sleep_until(next_s)

    def _make_services(self) -> list[Service]:
        device = self.device
        features = make_characteristic(device, 0x2A60, read=_FEATURES)
        return [
            make_service(0x1822, [self._spot, self._continuous, features, self._control_point]),
            make_device_information(device, manufacturer="pulsegate", model="Virtual Oximeter", serial="0001"),
            make_battery(device, 90),
            make_current_time(device, self.clock),
        ]

    async def _leave_when_idle(self) -> None:
        await self.wait_until(lambda: self.shown is None and not (self.is_awake or self._is_reporting))
        await self.hang_up()

    def _on_request(self, _connection: Connection, request: bytes) -> None:
        if not (self.is_subscribed(self._control_point) and self.is_subscribed(self._spot)):
            raise att.ATT_Error(att.ErrorCode(CCCD_IMPROPERLY_CONFIGURED))
        if self._is_reporting and request == bytes((record_access.ABORT, record_access.NULL)):
            self._abort_requested = True
        elif self._is_reporting or self._requests.full():
            raise att.ATT_Error(att.ErrorCode(PROCEDURE_IN_PROGRESS))
        else:
            self._requests.put_nowait(request)

    async def _answer(self, request: bytes) -> None:
        """Report or count records, and end the procedure with its response."""
        op = request[0] if request else 0
        try:
            parsed = record_access.parse_request(request, self._operators)
        except record_access.RequestError as error:
            await self._respond(op, error.code)
            return
        numbers = parsed.select(self.records)
        match op:
            case record_access.REPORT:
                await self._report(numbers)
            case record_access.NUMBER:
                await self.indicate(self._control_point, record_access.encode_number(len(numbers)))
            case record_access.ABORT:
                await self._respond(op, record_access.ABORT_UNSUCCESSFUL)
            case _:
                await self._respond(op, record_access.OP_CODE_NOT_SUPPORTED)

    async def _report(self, numbers: list[int]) -> None:
        """Indicate records and the response that ends the report. Between two records it may be aborted."""
        for count, number in enumerate(numbers):
            await asyncio.sleep(RECORD_INTERVAL_S)
            if self._abort_requested:
                self._abort_requested = False
                if not self.ignores_abort:
                    await self._respond(record_access.ABORT, record_access.SUCCESS)
                    return
                await self._respond(record_access.ABORT, record_access.ABORT_UNSUCCESSFUL)
            if count == self.fails_after:
                await self._respond(record_access.REPORT, record_access.NOT_COMPLETED)
                return
            await self.indicate(self._spot, self.records[number])
        await self._respond(record_access.REPORT, record_access.SUCCESS if numbers else record_access.NO_RECORDS)

    async def _respond(self, op: int, code: int) -> None:
        await self.indicate(self._control_point, record_access.encode_response(op, code))


def encode_spot(shown: Oximetry, date: bytes, status: int, *, clock_is_set: bool) -> bytes:
    """Encode a PLX Spot-Check Measurement (0x2A5E) with date, both statuses, and the amplitude if there is one."""
    flags = _SPOT_DATE | _SPOT_STATUS | _SPOT_DEVICE | (0 if shown.amplitude is None else _SPOT_AMPLITUDE)
    return b"".join(
        (
            bytes((flags | (0 if clock_is_set else _SPOT_CLOCK_NOT_SET),)),
            encode_sfloat(shown.spo2),
            encode_sfloat(shown.pulse),
            date,
            status.to_bytes(2, "little"),
            shown.device_status.to_bytes(3, "little"),
            b"" if shown.amplitude is None else encode_sfloat(shown.amplitude, 1),
        )
    )


def encode_continuous(shown: Oximetry) -> bytes:
    """Encode a PLX Continuous Measurement (0x2A5F) with both statuses, and the amplitude if there is one."""
    measurement_ongoing = 1 << 5
    flags = _CONTINUOUS_STATUS | _CONTINUOUS_DEVICE | (0 if shown.amplitude is None else _CONTINUOUS_AMPLITUDE)
    return b"".join(
        (
            bytes((flags,)),
            encode_sfloat(shown.spo2),
            encode_sfloat(shown.pulse),
            measurement_ongoing.to_bytes(2, "little"),
            shown.device_status.to_bytes(3, "little"),
            b"" if shown.amplitude is None else encode_sfloat(shown.amplitude, 1),
        )
    )

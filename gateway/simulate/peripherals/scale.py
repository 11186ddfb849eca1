"""An emulated diagnostic scale: Weight (0x181D), Body Composition (0x181B) and User Data (0x181C), as Beurer's scales do it.

It sends nothing before the hub has named a user and this user's consent code. It then sends stored weighings first, oldest
first, with stubs in place of body values, and the new one last. Only a hub that has written the user's profile counter gets the
body values.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn, Unpack

from bumble import att
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, Service

from gateway.simulate.peripherals.encoding import encode_date
from gateway.simulate.peripherals.peripheral import PeripheralOptions, now_s
from gateway.simulate.peripherals.services import (
    DeviceClock,
    encode_advertising_data,
    make_battery,
    make_characteristic,
    make_current_time,
    make_device_information,
    make_service,
    queue_request,
)
from gateway.simulate.peripherals.spot import ADVERTISING_WINDOW_S, SpotPeripheral, StoredResult

NAME: Final = "BF720"
COMPANY: Final = 0x0611
"""Beurer's company number in its advertisements."""

REGISTER, CONSENT, DELETE = 1, 2, 3
RESPONSE: Final = 0x20
SUCCESS, OP_NOT_SUPPORTED, INVALID_PARAMETER, OPERATION_FAILED, NOT_AUTHORIZED = 1, 2, 3, 4, 5
"""Op codes and response values of the User Control Point: User Data Service 1.1, 3.8."""
ACCESS_NOT_PERMITTED: Final = 0x80
"""An ATT error: user data were read or written without the user's consent."""

UNKNOWN_USER: Final = 255
MAX_USERS: Final = 8
LIVE_S: Final = 60.0
"""The last weighing counts as live for so long. It is sent with its body values, older ones with stubs."""

_DATE, _USER = 2, 4
_UNSUCCESSFUL: Final = 0xFFFF
_BODY_FLAGS: Final = 0x0398
"""Basal metabolism, muscle percentage, soft lean mass, body water mass and impedance, besides body fat percentage."""


@dataclass(frozen=True, slots=True)
class Body:
    """Body values in %, kJ, kg and Ω."""

    fat_percent: float = 19.4
    metabolism_kj: int = 6879
    muscle_percent: float = 40.7
    lean_mass_kg: float = 61.18
    water_kg: float = 43.25
    impedance_ohm: float = 452.0


STUB: Final = Body(0.0, 9110, 0.0, 0.0, 0.0, 0.0)
"""What the scale sends where it has not computed a body: zeros, and the metabolism that follows from the profile."""


@dataclass(slots=True)
class Weighing(StoredResult):
    """A weighing of one of the scale's users, or of an unknown person (255)."""

    user: int = UNKNOWN_USER
    weighed_s: float = 0.0
    body: bytes = b""


class Scale(SpotPeripheral):
    """A scale. `users` are the consent codes by user number; `clock` is its clock, which the hub may set."""

    patience_s = 15.0

    def __init__(
        self,
        device: Device,
        true_time: Callable[[], datetime],
        users: dict[int, int],
        **options: Unpack[PeripheralOptions],
    ) -> None:
        super().__init__(device, **options)
        self.users, self.clock = users, DeviceClock(true_time)
        self.consented: int | None = None
        """The user that the connected hub has named."""
        self._is_profile_current = False
        self._requests: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._weight = make_characteristic(device, 0x2A9D, indicate=True, encrypted=True)
        self._composition = make_characteristic(device, 0x2A9C, indicate=True, encrypted=True)
        self._control_point = make_characteristic(device, 0x2A9F, write=self._on_request, indicate=True, encrypted=True)
        advertisement = encode_advertising_data(NAME, (0x181D,), manufacturer=(COMPANY, b"\x00"))
        self.add_services(self._make_services(), advertisement)

    async def weigh(
        self, kg: float | None, *, user: int | None = 1, body: Body | None = None, at: datetime | None = None
    ) -> StoredResult:
        """Weigh someone, store the weighing, and advertise. None: the person stepped off too early. `user` None: unknown."""
        number = UNKNOWN_USER if user is None else user
        weight = encode_weight(kg, encode_date(at or self.clock.now()), number)
        weighing = Weighing([(self._weight, weight)], user=number, weighed_s=now_s(), body=encode_body(body or Body()))
        self.memory.append(weighing)
        self.notice_change()
        self.wake(ADVERTISING_WINDOW_S)
        return weighing

    def change_battery(self) -> None:
        """Fault: the scale loses its users and its clock. Consent is refused until a user is registered again."""
        self.users.clear()
        self.clock.reset()

    def is_ready(self) -> bool:
        return self.is_encrypted and self.consented is not None and self.is_subscribed(self._weight)

    def unconfirmed(self) -> list[StoredResult]:
        """Return the weighings of the consented user and of unknown persons."""
        allowed = (self.consented, UNKNOWN_USER)
        return [each for each in super().unconfirmed() if isinstance(each, Weighing) and each.user in allowed]

    def values_of(self, result: StoredResult) -> Sequence[tuple[Characteristic[bytes], bytes]]:
        """Return weight and body values: stubs, unless it is the live weighing and the profile counter was written."""
        assert isinstance(result, Weighing)
        is_live = result is self.memory[-1] and now_s() - result.weighed_s < LIVE_S
        body = result.body if is_live and self._is_profile_current else encode_body(STUB)
        return [*result.values, (self._composition, body)]

    async def serve(self) -> None:
        """Answer requests to the control point, and send weighings after consent."""
        self.consented, self._is_profile_current, self._requests = None, False, asyncio.Queue(1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._answer_requests())
            await super().serve()

    async def prepare(self) -> None:
        """Give the hub a moment after consent to write the profile counter."""
        await self.wait_until(lambda: self._is_profile_current, 1.0)

    def _make_services(self) -> list[Service]:
        device = self.device
        timestamps_users_bmi_resolution = bytes.fromhex("bf010000")
        body_features = bytes.fromhex("ff1f0000")
        counter = make_characteristic(
            device, 0x2A99, read=self._guard(bytes(4)), write=self._on_counter, notify=True, encrypted=True
        )
        profile = {0x2A85: "bf070808", 0x2A8C: "00", 0x2A8E: "c000"}
        user_data = [
            make_characteristic(device, uuid, read=self._guard(bytes.fromhex(value)), write=self._on_profile, encrypted=True)
            for uuid, value in profile.items()
        ]
        index = make_characteristic(
            device, 0x2A9A, read=lambda: bytes((UNKNOWN_USER if self.consented is None else self.consented,))
        )
        return [
            make_service(0x181D, [self._weight, make_characteristic(device, 0x2A9E, read=timestamps_users_bmi_resolution)]),
            make_service(0x181B, [self._composition, make_characteristic(device, 0x2A9B, read=body_features)]),
            make_service(0x181C, [self._control_point, counter, index, *user_data]),
            make_current_time(device, self.clock, encrypted=True),
            make_device_information(device, manufacturer="Beurer", model=NAME, serial="0001"),
            make_battery(device, 70),
        ]

    def _guard(self, value: bytes) -> Callable[[], bytes]:
        """Return a read function that refuses without consent."""

        def read() -> bytes:
            self._require_consent()
            return value

        return read

    def _require_consent(self) -> None:
        if self.consented is None:
            raise att.ATT_Error(att.ErrorCode(ACCESS_NOT_PERMITTED))

    def _on_profile(self, _connection: Connection, _value: bytes) -> None:
        self._require_consent()

    def _on_counter(self, _connection: Connection, _value: bytes) -> None:
        self._require_consent()
        self._is_profile_current = True
        self.notice_change()

    def _on_request(self, _connection: Connection, request: bytes) -> None:
        queue_request(self._requests, request, is_subscribed=self.is_subscribed(self._control_point))

    async def _answer_requests(self) -> NoReturn:
        while True:
            request = await self._requests.get()
            await self.indicate(self._control_point, self._answer(request))
            self.notice_change()

    def _answer(self, request: bytes) -> bytes:
        """Handle a request: register a user in a free place, or accept the consent code of one."""
        op = request[0] if request else 0
        match op, len(request):
            case (1, 3):
                free = [number for number in range(1, MAX_USERS + 1) if number not in self.users]
                if not free:
                    return bytes((RESPONSE, op, OPERATION_FAILED))
                self.users[free[0]] = int.from_bytes(request[1:], "little")
                return bytes((RESPONSE, op, SUCCESS, free[0]))
            case (2, 4):
                user, code = request[1], int.from_bytes(request[2:], "little")
                if self.users.get(user) != code:
                    return bytes((RESPONSE, op, NOT_AUTHORIZED))
                self.consented = user
                return bytes((RESPONSE, op, SUCCESS))
            case (1 | 2, _):
                return bytes((RESPONSE, op, INVALID_PARAMETER))
            case _:
                return bytes((RESPONSE, op, OP_NOT_SUPPORTED))


def encode_weight(kg: float | None, date: bytes, user: int) -> bytes:
    """Encode a Weight Measurement (0x2A9D) in steps of 5 g; None is an unsuccessful measurement."""
    steps = _UNSUCCESSFUL if kg is None else round(kg * 200)
    return bytes((_DATE | _USER,)) + steps.to_bytes(2, "little") + date + bytes((user,))


def encode_body(body: Body) -> bytes:
    """Encode a Body Composition Measurement (0x2A9C) without date and user, as Beurer's scales send it."""
    values = (
        round(body.fat_percent * 10),
        body.metabolism_kj,
        round(body.muscle_percent * 10),
        round(body.lean_mass_kg * 200),
        round(body.water_kg * 200),
        round(body.impedance_ohm * 10),
    )
    return _BODY_FLAGS.to_bytes(2, "little") + b"".join(value.to_bytes(2, "little") for value in values)

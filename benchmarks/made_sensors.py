"""A radio with made-up sensors in the agent's own process, so that no Bluetooth stack is measured with the agent.

Each sensor has the services that its name lists, as in "hr-3", "ecg-7" (ECG and heart rate) or "cuff-1".
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from drivers.polar_pmd import CONTROL_POINT, DATA, SERVICE
from drivers.spec import uuid16

HEART_RATE: Final = uuid16(0x180D)
PRESSURE: Final = uuid16(0x1810)
_CHARACTERISTICS: Final = {
    HEART_RATE: (uuid16(0x2A37),),
    SERVICE: (CONTROL_POINT, DATA),
    PRESSURE: (uuid16(0x2A35),),
}
_SERVICES: Final = {"hr": (HEART_RATE,), "ecg": (HEART_RATE, SERVICE), "cuff": (PRESSURE,)}
RATE_HZ, FRAME_SAMPLES = 130.0, 73
"""A strap's ECG; a frame fills an MTU of 232 bytes."""
BEAT: Final = (0, 20, 60, 90, 60, 20, 0, -80, 900, -220, 0, 20, 60, 120, 160, 120, 60, 20)
"""A beat in µV, before the isoelectric line."""
RESULT: Final = bytes.fromhex("1678005000 5D00E907051408 1E00 4800 0000".replace(" ", ""))


class _Services(list[Any]):
    """The services of a client, as bleak lists them."""


class MadeClient:
    """The part of bleak's client that a connection uses."""

    def __init__(self, name: str, radio: "MadeRadio") -> None:
        self.name, self._radio = name, radio
        self._handlers: dict[str, Callable[[object, bytearray], None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        kind = name.split("-", maxsplit=1)[0]
        self.services = _Services(
            SimpleNamespace(
                uuid=service,
                handle=16 * number,
                characteristics=[
                    SimpleNamespace(uuid=uuid, handle=16 * number + index)
                    for index, uuid in enumerate(_CHARACTERISTICS[service], 1)
                ],
            )
            for number, service in enumerate(_SERVICES[kind], 1)
        )

    async def connect(self) -> None: ...

    async def disconnect(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def start_notify(self, found: Any, handler: Callable[[object, bytearray], None]) -> None:
        self._handlers[found.uuid] = handler
        if found.uuid == uuid16(0x2A37):
            self._tasks.append(
                asyncio.create_task(self._send(found.uuid, 1.0, lambda count: bytes((0x10, 60 + count % 40, 0, 4))))
            )
        if found.uuid == uuid16(0x2A35):
            self._tasks.append(asyncio.create_task(self._send(found.uuid, 10.0, self._result)))

    async def read_gatt_char(self, _found: Any) -> bytes:
        return b"\x0f\x01" + bytes(15)  # the strap's features: it offers an ECG

    async def write_gatt_char(self, found: Any, payload: bytes, *, response: bool) -> None:
        del response
        answer = bytearray((0xF0, *payload[:2], 0, 0))
        self._handlers[found.uuid](None, answer)
        if payload[:1] == b"\x02":
            self._tasks.append(asyncio.create_task(self._send(DATA, FRAME_SAMPLES / RATE_HZ, self._frame)))

    def _frame(self, count: int) -> bytes:
        first = count * FRAME_SAMPLES
        last_ns = 10**18 + round((first + FRAME_SAMPLES) / RATE_HZ * 1e9)
        period = round(RATE_HZ)
        beat = BEAT + (0,) * (period - len(BEAT))
        samples = (beat[(first + index) % period] for index in range(FRAME_SAMPLES))
        return b"\0" + last_ns.to_bytes(8, "little") + b"\0" + b"".join(s.to_bytes(3, "little", signed=True) for s in samples)

    def _result(self, count: int) -> bytes:
        return RESULT[:1] + bytes((110 + count % 40,)) + RESULT[2:]

    async def _send(self, uuid: str, interval_s: float, payload_of: Callable[[int], bytes]) -> None:
        loop = asyncio.get_running_loop()
        start_s = loop.time() + interval_s * (hash(self.name) % 97) / 97
        for count in range(10**9):
            await asyncio.sleep(start_s + count * interval_s - loop.time())
            await self._radio.may_send.wait()
            self._radio.sent += 1
            self._handlers[uuid](None, bytearray(payload_of(count)))


class MadeRadio:
    """The part of a radio that sessions use. `may_send` is cleared to keep every sensor silent; `sent` counts notifications."""

    def __init__(self) -> None:
        self.sent = 0
        self.name, self.lost, self.connecting = "made", asyncio.Event(), asyncio.Lock()
        self.may_send = asyncio.Event()
        self.names: list[str] = []

    async def find(self, match: Callable[[Any, Any], bool], _timeout_s: float) -> Any:
        devices = (SimpleNamespace(address="00", name=name) for name in self.names)
        return next(device for device in devices if match(device, SimpleNamespace(local_name=device.name)))

    def client(self, device: Any, _on_disconnect: object, _timeout_s: float) -> MadeClient:
        return MadeClient(device.name, self)

    @asynccontextmanager
    async def opened(self, _spec: str, _keys: Path) -> AsyncIterator["MadeRadio"]:
        yield self

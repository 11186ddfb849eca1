"""A radio with made-up sensors in the agent's own process, so that no Bluetooth stack is measured with the agent.

A sensor's name says what it is: "hr-3", "ecg-7" (ECG and heart rate), "oximeter-1" (a spot reading every ten seconds, every
second one so low that it is an alert of high priority), or "idle-2", whose payloads are made as for "hr-2" and not delivered.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from drivers.polar_pmd import CONTROL_POINT, DATA, SERVICE
from drivers.spec import uuid16

HEART_RATE: Final = uuid16(0x180D)
OXIMETER: Final = uuid16(0x1822)
BATTERY: Final = uuid16(0x180F)
_CHARACTERISTICS: Final = {
    HEART_RATE: (uuid16(0x2A37),),
    SERVICE: (CONTROL_POINT, DATA),
    OXIMETER: (uuid16(0x2A5E),),
    BATTERY: (uuid16(0x2A19),),
}
_SERVICES: Final = {"hr": (HEART_RATE,), "ecg": (HEART_RATE, SERVICE), "oximeter": (OXIMETER,), "idle": (BATTERY,)}
RATE_HZ, FRAME_SAMPLES = 130.0, 73
"""A strap's ECG; a frame fills an MTU of 232 bytes."""
BEAT: Final = (0, 20, 60, 90, 60, 20, 0, -80, 900, -220, 0, 20, 60, 120, 160, 120, 60, 20)
"""A beat in µV, before the isoelectric line."""
TICK_S: Final = 0.02


class _Services(list[Any]):
    """The services of a client, as bleak lists them."""


class MadeClient:
    """The part of bleak's client that a connection uses."""

    def __init__(self, name: str, radio: "MadeRadio") -> None:
        self.name, self._radio = name, radio
        self._handlers: dict[str, Callable[[object, bytearray], None]] = {}
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

    async def disconnect(self) -> None: ...

    async def start_notify(self, found: Any, handler: Callable[[object, bytearray], None]) -> None:
        self._handlers[found.uuid] = handler
        if found.uuid == uuid16(0x2A37):
            self._send(found.uuid, 1.0, self._rate)
        if found.uuid == uuid16(0x2A5E):
            self._send(found.uuid, 10.0, self._saturation)
        if found.uuid == uuid16(0x2A19):
            self._handlers[found.uuid] = lambda *_: None
            self._send(found.uuid, 1.0, self._rate)

    async def read_gatt_char(self, found: Any) -> bytes:
        if found.uuid == uuid16(0x2A19):
            return b"\x64"
        return b"\x0f\x01" + bytes(15)  # the strap's features: it offers an ECG

    async def write_gatt_char(self, found: Any, payload: bytes, *, response: bool) -> None:
        del response
        answer = bytearray((0xF0, *payload[:2], 0, 0))
        self._handlers[found.uuid](None, answer)
        if payload[:1] == b"\x02":
            self._send(DATA, FRAME_SAMPLES / RATE_HZ, self._frame)

    def _frame(self, count: int) -> bytes:
        first = count * FRAME_SAMPLES
        last_ns = 10**18 + round((first + FRAME_SAMPLES) / RATE_HZ * 1e9)
        period = round(RATE_HZ)
        beat = BEAT + (0,) * (period - len(BEAT))
        samples = (beat[(first + index) % period] for index in range(FRAME_SAMPLES))
        return b"\0" + last_ns.to_bytes(8, "little") + b"\0" + b"".join(s.to_bytes(3, "little", signed=True) for s in samples)

    def _rate(self, count: int) -> bytes:
        return bytes((0x10, 60 + count % 40, 0, 4))

    def _saturation(self, count: int) -> bytes:
        return bytes((0, 97 if count % 2 else 75, 0, 60 + count % 60, 0))

    def _send(self, uuid: str, interval_s: float, payload_of: Callable[[int], bytes]) -> None:
        """Notify at this interval from now on."""
        handler = self._handlers[uuid]
        phase = random.random()
        self._radio.add(Signal(interval_s, phase * interval_s, lambda count: handler(None, bytearray(payload_of(count)))))


@dataclass(slots=True)
class Signal:
    """What a sensor notifies, and how often it has."""

    interval_s: float
    phase_s: float
    notify: Callable[[int], None]
    count: int = 0


class MadeRadio:
    """The part of a radio that sessions use. `sent` counts notifications.

    It wakes 50 times a second, however many sensors there are, as a controller reports to its host. An agent whose sensors send
    nothing is woken as often, so the difference is what the notifications cost.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._signals: list[Signal] = []
        self.name, self.lost, self.connecting = "made", asyncio.Event(), asyncio.Lock()
        self.names: list[str] = []

    def add(self, signal: Signal) -> None:
        self._signals.append(signal)

    async def run(self) -> None:
        """Notify what is due, until cancelled."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for tick in range(10**9):
            await asyncio.sleep(start_s + tick * TICK_S - loop.time())
            now_s = tick * TICK_S
            for signal in self._signals:
                while signal.phase_s + signal.count * signal.interval_s <= now_s:
                    signal.notify(signal.count)
                    signal.count += 1
                    self.sent += 1

    async def find(self, match: Callable[[Any, Any], bool], _timeout_s: float) -> Any:
        devices = (SimpleNamespace(address="00", name=name) for name in self.names)
        return next(device for device in devices if match(device, SimpleNamespace(local_name=device.name, rssi=-50)))

    async def connect(
        self, device: Any, _on_disconnect: object, _timeout_s: float, _rssi_dbm: int | None, *, pair: bool
    ) -> MadeClient:
        assert not pair
        return MadeClient(device.name, self)

    @asynccontextmanager
    async def opened(self, _spec: str, _keys: Path) -> AsyncIterator["MadeRadio"]:
        running = asyncio.create_task(self.run())
        try:
            yield self
        finally:
            running.cancel()

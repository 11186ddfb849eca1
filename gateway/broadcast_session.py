"""Listens to one sensor that sends its values in advertisements, such as a scale, and is never connected to."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from config.settings import SensorSettings
from drivers.readings import Vital
from drivers.registry import Registry
from drivers.spec import BroadcastField
from gateway.backoff import choose_pause_s, classify_failure
from gateway.clock import Clock
from gateway.link_states import TRANSITIONS, LinkEvent, LinkState
from gateway.pairings import Pairings
from gateway.radio import Radio
from gateway.said import SaidProblems
from gateway.sensor_events import EventQueue, LinkStateChange, Notification
from gateway.sensor_limits import Allowance, cost_of
from gateway.sensor_match import SensorMatch
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

CHECK_INTERVAL_S: Final = 30.0
"""How often the scan is checked. A dead scanner is noticed within a minute and this."""
ABSENT_AFTER_S: Final = 60.0
"""A sensor that has not advertised for this long is absent: those that broadcast do it every few seconds while in use."""


@dataclass(slots=True)
class BroadcastSession:
    """Decodes the advertisements of one sensor. One that repeats the last of its field is left out.

    The application reads `events`. `on_state` is called with the sensor's name and the new state at every change of state.
    """

    sensor: SensorSettings
    radio: Radio
    registry: Registry
    clock: Clock
    on_state: Callable[[str, LinkState], None]
    events: EventQueue = field(default_factory=EventQueue)
    pairings: Pairings = field(default_factory=Pairings)
    state: LinkState = "stopped"
    _last_payloads: dict[tuple[BroadcastField, str | int], bytes] = field(default_factory=dict)
    _last_seen_s: float = 0.0
    _said: SaidProblems = field(default_factory=SaidProblems)
    _allowance: Allowance = field(default_factory=Allowance)
    _match: SensorMatch = field(init=False)

    def __post_init__(self) -> None:
        self._match = SensorMatch(self.sensor, self.pairings)

    async def run(self) -> None:
        """Listen until cancelled; listen again after any failure of the scan.

        Raises:
            RadioError: the Bluetooth stack cannot be used.
        """
        failures = 0
        self._on_event("search")
        try:
            while True:
                try:
                    await self._listen()
                except (BleakError, TimeoutError) as error:
                    failures += 1
                    failure = classify_failure(error, was_connected=False)
                    log.log(self._said.level(failure, str(error)), "%s: cannot listen: %s", self.sensor.name, error)
                    await self.radio.recover()
                    await asyncio.sleep(choose_pause_s(failure, failures))
        finally:
            self._on_event("stop")

    async def _listen(self) -> NoReturn:
        """Listen until the scan fails.

        Raises:
            BleakError: scanning failed.
            RadioError: the Bluetooth stack cannot be used.
        """
        async with self.radio.scanner.listening(self._on_detection):
            while True:
                await asyncio.sleep(CHECK_INTERVAL_S)
                await self.radio.scanner.restart_if_dead()
                if self.state == "seen" and asyncio.get_running_loop().time() - self._last_seen_s > ABSENT_AFTER_S:
                    self._on_event("silence")

    def _on_detection(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        if not self._match(device, advertisement):
            return
        self._last_seen_s = asyncio.get_running_loop().time()
        if self.state == "absent":
            self._on_event("advertised")
        for uuid, payload in advertisement.service_data.items():
            self._on_field("service_data", uuid, bytes(payload))
        for company, payload in advertisement.manufacturer_data.items():
            self._on_field("manufacturer_data", company, bytes(payload))

    def _on_field(self, name: BroadcastField, key: str | int, payload: bytes) -> None:
        if not self.registry.reads_broadcast(name, key) or self._last_payloads.get((name, key)) == payload:
            return
        self._last_payloads[name, key] = payload
        now_s = asyncio.get_running_loop().time()
        readings = self.registry.decode_broadcast(name, key, payload)
        if not self._allowance.take(cost_of(payload, readings)[0], now_s):
            message = "what it broadcasts is left out, because it sends more than any healthy sensor: have it checked"
            log.log(self._said.level("over_limits", message), "%s: %s", self.sensor.name, message)
        elif readings:
            is_spot = any(isinstance(reading, Vital) and reading.origin is not None for reading in readings)
            self.events.put(Notification(f"{name} {key}", payload, readings, Arrival.now(self.clock), is_spot))

    def _on_event(self, event: LinkEvent) -> None:
        self.state = TRANSITIONS[self.state, event]
        self.events.put(LinkStateChange(self.state, Arrival.now(self.clock)))
        self.on_state(self.sensor.name, self.state)

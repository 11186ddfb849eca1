"""The hub on virtual time: an agent that is restarted where a person must pair a sensor again, and an adapter to unplug."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NoReturn

from bumble.core import BaseBumbleError
from bumble.device import Device

from benchmarks.in_process_clinic import HUB, SUBJECT, InProcessClinic
from config.endpoint import Endpoint
from config.limits import DEFAULT_LIMITS
from config.settings import ClinicSettings, SensorSettings, Settings
from gateway.app import Agent
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.paired_sensors import load_paired, store_paired
from gateway.radio import Radio
from gateway.radio.bumble_backend import make_bumble_radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device

PAIRING_DELAY_S: Final = 60.0
"""How long a sensor that forgot its bond waits until the patient pairs it again."""
TEARDOWN_S: Final = 2.0
"""Time limit of switching off a virtual controller that may be gone."""


@dataclass(slots=True)
class VirtualHub:
    """Keeps an agent running for `sensors`. `absences` are the stretches of time in which no agent listened."""

    link: VirtualLink
    clinic: InProcessClinic
    data: Path
    sensors: tuple[SensorSettings, ...]
    start_us: int
    models: LoadedModels
    restarts: int = 0
    absences: list[tuple[float, float]] = field(default_factory=list)
    _device: Device | None = None

    async def run(self) -> NoReturn:
        """Run agents until cancelled. The last is stopped cleanly."""
        while True:
            stop = asyncio.Event()
            running = asyncio.create_task(self._make_agent().run(stop), name="agent")
            try:
                await self._wait_forgotten(running)
            finally:
                stopped_s = asyncio.get_running_loop().time()
                stop.set()
                await asyncio.wait([running])
                running.result()
            self._pair_again()
            self.restarts += 1
            self.absences.append((stopped_s, asyncio.get_running_loop().time()))

    def unplug_adapter(self) -> None:
        """Remove the hub's controller, as when a dongle is unplugged. The agent finds another one when it opens its radio."""
        if self._device is not None:
            now_s = asyncio.get_running_loop().time()
            self.absences.append((now_s, now_s))
            self.link.remove_device(VIRTUAL_HUB_ADDRESS)
            self._device.host.on_transport_lost()
            self._device = None

    async def _wait_forgotten(self, agent: asyncio.Task[None]) -> None:
        """Return some time after a sensor has forgotten its bond. Raises what an agent fails with."""
        while True:
            done, _ = await asyncio.wait([agent], timeout=PAIRING_DELAY_S)
            if done:
                agent.result()
                raise RuntimeError("the agent ended by itself: see its log")
            if any(sensor.is_forgotten for sensor in load_paired(self.data).values()):
                return

    def _pair_again(self) -> None:
        paired = load_paired(self.data)
        store_paired(self.data, {name: replace(sensor, is_forgotten=False) for name, sensor in paired.items()})

    def _make_agent(self) -> Agent:
        clinic = ClinicSettings(Endpoint("127.0.0.1", 1883), self.clinic.registration)
        settings = Settings(HUB, SUBJECT, self.data, "virtual:in-process", clinic, self.sensors, DEFAULT_LIMITS, upload="all")
        clock = VirtualClock(asyncio.get_running_loop(), self.start_us)
        return Agent(settings, clock, self._open_radio, lambda _: self.clinic.transport(), self.models)

    @asynccontextmanager
    async def _open_radio(self, _spec: str, keys: Path) -> AsyncIterator[Radio]:
        device = make_device(self.link, VIRTUAL_HUB_ADDRESS, "pulsegate", keys)
        await device.power_on()
        self._device = device
        try:
            yield make_bumble_radio(device, "virtual")
        finally:
            self._device = None
            self.link.remove_device(VIRTUAL_HUB_ADDRESS)
            with suppress(BaseBumbleError, TimeoutError):
                async with asyncio.timeout(TEARDOWN_S):
                    await device.power_off()


def make_settings(addresses: Mapping[str, str], families: Mapping[str, str], consent: Path) -> tuple[SensorSettings, ...]:
    """Return the settings of sensors by their names. `consent` is the file of the scale's consent code."""
    return tuple(
        SensorSettings(
            name,
            address=address,
            is_broadcast=families[name] == "scale-broadcast",
            user=1 if families[name] in {"cuff", "cuff-medisana", "scale"} else None,
            consent_code_file=consent if families[name] == "scale" else None,
        )
        for name, address in addresses.items()
    )

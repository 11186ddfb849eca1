"""Opens a radio and runs the sensors over it; opens it again, or the next one of the settings, whenever it is lost."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from config.process import leaf_errors
from gateway.errors import RadioError
from gateway.radio import Radio

log = logging.getLogger(__name__)

RADIO_RETRY_S: Final = 2.0
"""Pause before a radio is opened again: an unplugged dongle or a restarting Bluetooth service is back within seconds."""
RETURN_CHECK_S: Final = 2.0
"""How often the hub looks whether an earlier radio is back."""
RETURN_CHECKS: Final = 5
"""It must be there so many times in a row: BlueZ needs a few seconds to take it up, and a loose plug flickers."""


class RunsOverRadio(Protocol):
    """A sensor, as far as this module knows it (`gateway.sensor_runner.SensorRunner`)."""

    async def run(self, radio: Radio) -> None:
        """Run over this radio until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class RadioSource:
    """A radio of the settings: its name, how it is opened, and whether the machine has it now."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Radio]]
    is_present: Callable[[], bool]


class RadioFailover:
    """Runs sensors over the first radio that works. The radios are in order of preference, and there is at least one.

    A later one is used while those before it cannot be opened, or hang although they were switched off and on.
    """

    def __init__(self, sources: Sequence[RadioSource], sensors: Sequence[RunsOverRadio]) -> None:
        self._sources = sources
        self._sensors = sensors
        self._problems: dict[str, str] = {}
        """The last problem of each radio, so that it is said once."""
        self._in_use = ""

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        number = 0
        while True:
            can_be_used = await self._run_source(number)
            number = 0 if can_be_used else (number + 1) % len(self._sources)
            if number == 0:
                await asyncio.sleep(RADIO_RETRY_S)

    async def _run_source(self, number: int) -> bool:
        """Run over one radio until it is lost. Return False if it cannot be opened or hangs, so that the next one is tried."""
        source = self._sources[number]
        try:
            async with source.open() as radio:
                self._say_opened(number)
                await self._run_until_lost(radio, number)
                return not radio.hung.is_set()
        except* RadioError as group:
            message = str(leaf_errors(group)[0])
            if message != self._problems.get(source.name):
                log.warning("radio: %s", message)
            self._problems[source.name] = message
        return False

    def _say_opened(self, number: int) -> None:
        name, preferred = self._sources[number].name, self._sources[0].name
        if number and self._in_use != name:
            log.warning("radio: %s is used until %s is back", name, preferred)
        elif name in self._problems or self._in_use not in ("", name):
            log.warning("radio: %s works again", name)
        self._problems.pop(name, None)
        self._in_use = name

    async def _run_until_lost(self, radio: Radio, number: int) -> None:
        """Run the sensors until the radio is lost, or an earlier one is back."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sensor.run(radio)) for sensor in self._sensors]
            returning = group.create_task(self._wait_return(number))
            losing = group.create_task(radio.lost.wait())
            await asyncio.wait({returning, losing}, return_when=asyncio.FIRST_COMPLETED)
            if losing.done():
                log.warning("radio: %s was lost", radio.name)
            for task in (*tasks, returning, losing):
                task.cancel()

    async def _wait_return(self, number: int) -> None:
        """Wait until a radio that is preferred to this one was gone and is back."""
        preferred = {source.name: source for source in self._sources[:number]}
        checks: Counter[str] = Counter()
        """For each that was gone, for how many checks in a row it has been there."""
        while True:
            for name, source in preferred.items():
                if not source.is_present():
                    checks[name] = 0
                elif name in checks:
                    checks[name] += 1
            if checks and max(checks.values()) >= RETURN_CHECKS:
                log.warning("radio: %s is back", max(checks, key=lambda name: checks[name]))
                return
            await asyncio.sleep(RETURN_CHECK_S)

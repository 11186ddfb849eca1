"""One connection to a sensor: its subscriptions, the conversations of its drivers, and its silence.

The steps are in this order: listen to every driver's streams; subscribe to them; read the device information; read and set the
clock; open a conversation for each service; decode the values that came meanwhile; read the other values; run the set-ups. A
sensor may send from the first moment and sleep seconds later, so nothing slow comes before the subscriptions. No value is
decoded before the model is known, and no result before the sensor's clock is.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from bleak.backends.service import BleakGATTService

from drivers.device import DeviceInformation
from drivers.registry import Registry
from drivers.spec import DriverSpec
from gateway.link_states import LinkEvent
from gateway.radio import StaleBondError
from gateway.sensor_limits import SET_UP_LIMIT_S, SensorLimitError
from gateway.sensor_link import SETUP_ERRORS, SensorLink, describe_error
from gateway.service_link import ServiceLink

log = logging.getLogger(__name__)


SETTLE_S: Final = 0.1
"""Between discovery and the first subscription: Beurer's BM85 stays silent if that comes sooner (blood-pressure-monitor-fl,
pull 737)."""
_NEEDS_SETTLING: Final = ("BM85",)
"""The models that must not be subscribed to at once."""


def early_characteristics(registry: Registry, device: DeviceInformation) -> frozenset[str]:
    """Return those whose indications are taken from the first moment of a connection with this sensor."""
    if any(device.is_model(model) for model in _NEEDS_SETTLING):
        return frozenset()
    streams = (stream for driver in registry.drivers for stream in driver.streams)
    return frozenset(stream.uuid for stream in streams if stream.mode == "indicate")


class SensorSilentError(Exception):
    """A characteristic that should notify regularly sent nothing before its deadline."""


@dataclass(slots=True)
class Connection:
    """One connection. `on_progress` is called when the link is secured, and when the set-ups have been run."""

    link: SensorLink
    registry: Registry
    on_progress: Callable[[LinkEvent], None]
    advertised_name: str = ""
    _services: list[ServiceLink] = field(default_factory=list)

    async def run(self) -> None:
        """Prepare the connection, and return when the link is lost.

        Raises:
            SensorSilentError: a stream missed its deadline.
            SensorLimitError: the preparation does not end.
            BleakError: the link failed while it was prepared.
        """
        limit = asyncio.timeout(SET_UP_LIMIT_S)
        try:
            async with limit:
                await self._prepare()
        except TimeoutError:
            if limit.expired():
                raise SensorLimitError(f"disconnected, because its set-up did not end within {SET_UP_LIMIT_S:g} s") from None
            raise
        self.on_progress("subscribed")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.serve()) for service in self._services]
            silent = await self._wait_link_lost()
            for task in tasks:
                task.cancel()
        if silent is not None:
            raise SensorSilentError(f"connected, but its stream {silent} fell silent")

    async def _prepare(self) -> None:
        """Secure the link, subscribe, identify the sensor, set its clock, and run the set-ups."""
        self._services = [ServiceLink(self.link, driver, found) for driver, found in self._match_drivers()]
        device = self.link.memory.device
        self.link.memory.device = replace(device, name=self.advertised_name or device.name)
        for service in self._services:
            service.listen()
        try:
            await self._secure()
            self.on_progress("secured")
            await asyncio.sleep(SETTLE_S)
            for service in self._services:
                await service.subscribe()
            await self._identify()
            for service in self._services:
                await service.set_clock()
        finally:  # a cuff that is already asleep has sent its result
            for service in self._services:
                service.open()
        for service in self._services:
            await service.set_up()

    async def stop(self) -> None:
        """Run the drivers' stop procedures, each as far as the sensor answers; none after it exceeded its limits."""
        is_reachable = not (self.link.lost.is_set() or self.link.limit.is_exceeded)
        for service in self._services if is_reachable else ():
            if service.decoder is not None and service.decoder.conversation is not None:
                try:
                    await service.run(service.decoder.conversation.stop())
                except SETUP_ERRORS as error:
                    log.debug("%s: %s did not stop: %s", self.link.name, service.driver.name, error)

    def _match_drivers(self) -> Iterator[tuple[DriverSpec, BleakGATTService]]:
        """Yield each driver whose service the sensor offers, in order of rank, with the first instance of that service.

        A second instance, as in a watch with two batteries, would measure the same kinds again under the same name.
        """
        for driver in sorted(self.registry.drivers, key=lambda driver: driver.setup_rank):
            offered = [service for service in self.link.client.services if service.uuid == driver.service]
            if offered:
                yield driver, min(offered, key=lambda service: service.handle)

    async def _secure(self) -> None:
        """Bond where a driver needs it; without permission, leave these drivers out.

        If the sensor refuses, those of its characteristics that need a bond will refuse too.
        """
        bonding = [service for service in self._services if service.driver.bonding]
        if bonding and not self.link.may_bond:
            names = ", ".join(service.driver.name for service in bonding)
            level = self.link.said.level("pairing", names)
            log.log(level, "%s: %s needs a pairing: run `pulsegate pair %s`", self.link.name, names, self.link.name)
            self._services = [service for service in self._services if not service.driver.bonding]
        elif bonding:
            try:
                await self.link.client.pair()
            except StaleBondError:
                raise
            except SETUP_ERRORS as error:
                failure = describe_error(error)
                log.log(self.link.said.level("pairing", failure), "%s: cannot pair: %s", self.link.name, failure)
                if self.link.lost.is_set():
                    raise

    async def _identify(self) -> None:
        """Read the device information, which decides on the quirks of every driver."""
        for service in self._services:
            if service.driver.identifies:
                service.open()
                await service.read_values()

    async def _wait_link_lost(self) -> str | None:
        """Return None when the link is lost, or the name of what missed its deadline: a signal, or a characteristic."""
        loop = asyncio.get_running_loop()
        streams = [stream for service in self._services for stream in service.driver.streams]
        # No deadline that is set while this waits can be nearer than the shortest limit.
        shortest_s = min((stream.silent_after_s for stream in streams if stream.silent_after_s), default=None)
        while not self.link.lost.is_set():
            now_s = loop.time()
            deadlines = [(at_s, uuid) for service in self._services for uuid, at_s in service.deadlines.items()]
            at_s, uuid = min(deadlines, default=(math.inf, ""))
            if at_s <= now_s:
                return uuid
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if shortest_s is None else min(at_s - now_s, shortest_s)):
                    await self.link.lost.wait()
        return None

"""A program: a virtual radio with a strap and a thermometer that measure the canary. The end of its input ends it."""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gateway.radio.virtual_radio_server import VirtualRadioServer, open_device
from gateway.simulate.families import FAMILIES
from gateway.simulate.heart import RepeatingEcg
from gateway.simulate.peripherals.encoding import encode_float
from gateway.simulate.peripherals.thermometer import Thermometer
from gateway.simulate.strap import run_strap
from tests.site.canary import SAMPLES, TEMPERATURE

EVERY_S = 5.0
DECIMALS = 5


class MarkedThermometer(Thermometer):
    """It sends more decimals than others."""

    def _encode(self, celsius: float | None, date: bytes) -> bytes:
        return super()._encode(celsius, date)[:1] + encode_float(celsius, DECIMALS) + super()._encode(celsius, date)[5:]


async def run_thermometer(socket: Path) -> None:
    family = FAMILIES["thermometer"]
    async with open_device(socket, family.address, family.name) as device:
        sensor = MarkedThermometer(device, lambda: datetime.now(UTC))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sensor.run())
            while True:
                await sensor.measure(TEMPERATURE)
                await asyncio.sleep(EVERY_S)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pulsegate-air-") as folder:
        ecg = RepeatingEcg(np.array(SAMPLES * 20, np.int32), ())
        async with VirtualRadioServer(Path(folder)) as server, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(run_strap(server.path, ecg, Path(folder) / "strap.journal", lambda _event: None)),
                tasks.create_task(run_thermometer(server.path)),
            ]
            sys.stdout.write(f"{server.path}\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
            for task in running:
                task.cancel()


if __name__ == "__main__":
    asyncio.run(main())

"""Radios that are lost, gone, or hang: the hub goes on over another one, comes back, and says so."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from bleak.exc import BleakDBusError, BleakError

from gateway import virtual_time
from gateway.errors import RadioError
from gateway.radio import Radio
from gateway.radio.factory import is_radio_present
from gateway.radio.health import MIN_FAILURES, STUCK_AFTER_S, STUCK_WITH_LINKS_AFTER_S, RadioHealth
from gateway.radio_failover import RadioFailover, RadioSource

IN_PROGRESS = BleakDBusError("org.bluez.Error.InProgress", ["Operation already in progress"])


@dataclass
class FakeAdapter:
    """An adapter that can be unplugged, and can hang."""

    name: str
    is_present: bool = True
    hangs: bool = False
    cycles: int = 0
    opened: list[float] = field(default_factory=list)
    radio: Radio | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Radio]:
        if not self.is_present:
            raise RadioError(f"this machine has no Bluetooth adapter {self.name}")
        self.opened.append(asyncio.get_running_loop().time())
        self.radio = Radio(None, None, self.name, adapter=self)  # type: ignore[arg-type]  only power_cycle is called
        yield self.radio

    async def power_cycle(self) -> None:
        assert self.radio is not None
        self.cycles += 1
        self.radio.lost.set()

    def unplug(self) -> None:
        self.is_present = False
        if self.radio is not None:
            self.radio.lost.set()

    def source(self) -> RadioSource:
        return RadioSource(self.name, self.open, lambda: self.is_present)


@dataclass
class FakeSensor:
    """A sensor that connects every ten seconds; over an adapter that hangs, every connect fails."""

    adapters: dict[str, FakeAdapter]
    used: list[str] = field(default_factory=list)
    running: int = 0

    async def run(self, radio: Radio) -> None:
        self.used.append(radio.name)
        self.running += 1
        try:
            while True:
                now_s = asyncio.get_running_loop().time()
                if self.adapters[radio.name].hangs:
                    radio.connects.note_failure(IN_PROGRESS, now_s)
                else:
                    radio.connects.note_success()
                await radio.recover()
                await asyncio.sleep(10)
        finally:
            self.running -= 1


@dataclass
class Hub:
    first: FakeAdapter = field(default_factory=lambda: FakeAdapter("hci0"))
    second: FakeAdapter = field(default_factory=lambda: FakeAdapter("hci1"))

    def __post_init__(self) -> None:
        self.sensor = FakeSensor({"hci0": self.first, "hci1": self.second})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        failover = RadioFailover([self.first.source(), self.second.source()], [self.sensor])
        task = asyncio.ensure_future(failover.run())
        try:
            yield
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
            assert self.sensor.running == 0


def messages(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


def test_the_second_radio_is_used_while_the_first_is_unplugged(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()

    async def main() -> None:
        async with hub.running():
            await asyncio.sleep(60)
            hub.first.unplug()
            await asyncio.sleep(600)
            assert hub.sensor.used == ["hci0", "hci1"]
            hub.first.is_present = True
            await asyncio.sleep(60)
            assert hub.sensor.used == ["hci0", "hci1", "hci0"]

    virtual_time.run(main())
    assert messages(caplog) == [
        "radio: hci0 was lost",
        "radio: this machine has no Bluetooth adapter hci0",
        "radio: hci1 is used until hci0 is back",
        "radio: hci0 is back",
        "radio: hci0 works again",
    ]


def test_an_adapter_that_flickers_does_not_take_the_sensors_back() -> None:
    hub = Hub()

    async def main() -> None:
        async with hub.running():
            hub.first.unplug()
            for _ in range(20):
                await asyncio.sleep(9)
                hub.first.is_present = True
                await asyncio.sleep(2)
                hub.first.is_present = False
            assert hub.sensor.used[-1] == "hci1"
            assert len(hub.second.opened) == 1

    virtual_time.run(main())


def test_without_any_radio_the_hub_tries_for_ever_and_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(FakeAdapter("hci0", is_present=False), FakeAdapter("hci1", is_present=False))

    async def main() -> None:
        async with hub.running():
            await asyncio.sleep(3600)
            assert len(messages(caplog)) == 2
            hub.second.is_present = True
            await asyncio.sleep(10)
            assert hub.sensor.used == ["hci1"]

    virtual_time.run(main())


def test_an_adapter_that_hangs_is_power_cycled_and_then_replaced(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub(FakeAdapter("hci0", hangs=True))

    async def main() -> None:
        async with hub.running():
            await asyncio.sleep(STUCK_AFTER_S + 60)
            assert hub.sensor.used == ["hci0", "hci1"]
            assert hub.first.cycles == 1

    virtual_time.run(main())
    assert any("hci0 refuses everything" in text and "switched off and on" in text for text in messages(caplog))


def test_an_adapter_that_a_power_cycle_cures_is_kept() -> None:
    hub = Hub()

    async def main() -> None:
        async with hub.running():
            await asyncio.sleep(60)
            hub.first.hangs = True
            await asyncio.sleep(STUCK_AFTER_S + 20)
            hub.first.hangs = False
            await asyncio.sleep(60)
            assert hub.sensor.used == ["hci0", "hci0"]

    virtual_time.run(main())


def test_only_a_busy_adapter_counts_as_stuck_and_a_success_ends_it() -> None:
    health = RadioHealth()
    for second in range(0, 600, 10):
        health.note_failure(BleakError("le-connection-abort-by-local"), second)
        health.note_failure(TimeoutError(), second)
    assert not health.is_stuck(600, links=0)
    for number in range(MIN_FAILURES):
        health.note_failure(IN_PROGRESS, 600 + number)
    assert not health.is_stuck(600 + STUCK_AFTER_S - 1, links=0)
    assert health.is_stuck(600 + STUCK_AFTER_S, links=0)
    assert not health.is_stuck(600 + STUCK_AFTER_S, links=1), "others keep their links for now"
    assert health.is_stuck(600 + STUCK_WITH_LINKS_AFTER_S, links=1)
    health.note_success()
    assert not health.is_stuck(10_000, links=0)


def test_a_power_cycle_that_fails_is_said_and_the_hub_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class DeadAdapter(FakeAdapter):
        async def power_cycle(self) -> None:
            raise BleakError("no answer")

    hub = Hub(DeadAdapter("hci0", hangs=True), FakeAdapter("hci1", is_present=False))

    async def main() -> None:
        async with hub.running():
            await asyncio.sleep(2 * STUCK_AFTER_S + 60)
            assert hub.sensor.used == ["hci0"]

    virtual_time.run(main())
    assert [text for text in messages(caplog) if "could not be switched off and on (no answer)" in text]


def test_the_machine_is_asked_for_its_adapters_without_opening_them(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("gateway.radio.factory.SYSTEM_ADAPTERS", tmp_path)
    assert not is_radio_present("bluetooth")
    (tmp_path / "hci1").mkdir()
    assert is_radio_present("bluetooth")
    assert is_radio_present("bluetooth:hci1")
    assert not is_radio_present("bluetooth:hci0")
    assert not is_radio_present(f"virtual:{tmp_path / 'socket'}")
    assert is_radio_present(f"virtual:{tmp_path}")

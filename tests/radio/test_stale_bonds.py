"""A forgotten bond is told from a bad link by what a client reports while it connects."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from bleak.exc import BleakDBusError, BleakError

from gateway import virtual_time
from gateway.radio import StaleBondError
from gateway.radio.stale_bonds import LinkDrops, connect_client

SENSOR, OTHER = "C0:DE:00:00:00:01", "C0:DE:00:00:00:02"
STRONG, WEAK = -80, -81
TIMEOUT_S = 20.0
REFUSED = BleakDBusError("org.bluez.Error.AuthenticationFailed", ["Authentication Failed"])


class ScriptedClient:
    """A client whose link drops `drops` times, one a second, before the connect succeeds or fails with `error`."""

    def __init__(self, on_drop: Callable[[Any], None], drops: int, error: Exception | None) -> None:
        self._on_drop, self._drops, self._error = on_drop, drops, error
        self.address = SENSOR
        self.is_connected = False

    async def connect(self) -> None:
        for _ in range(self._drops):
            await asyncio.sleep(1)
            self._on_drop(self)
        await asyncio.sleep(1)
        if self._error is not None:
            raise self._error
        self.is_connected = True

    async def disconnect(self) -> None:
        self.is_connected = False
        self._on_drop(self)


class Hub:
    def __init__(self, *, bonded: bool = True) -> None:
        self.drops = LinkDrops()
        self.bonded = bonded
        self.losses: list[Any] = []
        self.clients: list[ScriptedClient] = []

    async def connect(self, drops: int = 0, error: Exception | None = None, rssi_dbm: int | None = STRONG) -> Any:
        def make_client(on_drop: Callable[[Any], None]) -> Any:
            self.clients.append(ScriptedClient(on_drop, drops, error))
            return self.clients[-1]

        async def is_bonded() -> bool:
            return self.bonded

        return await connect_client(make_client, SENSOR, rssi_dbm, self.drops, is_bonded, self.losses.append, TIMEOUT_S)


def test_two_drops_with_a_strong_signal_end_the_connect_at_once() -> None:
    async def main() -> None:
        hub = Hub()
        with pytest.raises(StaleBondError, match=SENSOR):
            await hub.connect(drops=9)
        assert asyncio.get_running_loop().time() == pytest.approx(2, abs=0.1)
        assert hub.losses == []
        assert (await hub.connect()).is_connected  # the count begins again

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("bonded", "drops", "rssi_dbm"), [(False, 3, STRONG), (True, 1, STRONG), (True, 3, WEAK), (True, 3, None)]
)
def test_a_bad_link_connects_in_the_end(bonded: bool, drops: int, rssi_dbm: int | None) -> None:
    async def main() -> None:
        hub = Hub(bonded=bonded)
        client = await hub.connect(drops, rssi_dbm=rssi_dbm)
        assert client.is_connected
        assert hub.losses == []
        await client.disconnect()
        assert hub.losses == [client]

    virtual_time.run(main())


def test_drops_are_counted_over_connects_until_one_succeeds() -> None:
    async def main() -> None:
        hub, lost = Hub(), BleakError("device disconnected")
        for _ in range(2):
            with pytest.raises(BleakError, match="device disconnected"):
                await hub.connect(1, lost)
            await hub.connect()
        with pytest.raises(BleakError, match="device disconnected"):
            await hub.connect(1, lost)
        with pytest.raises(StaleBondError):
            await hub.connect(1, lost)

    virtual_time.run(main())


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        BleakDBusError("org.bluez.Error.Failed", ["le-connection-key-missing"]),
        BleakDBusError("org.bluez.Error.Failed", ["br-connection-key-missing"]),
    ],
)
def test_an_error_that_names_the_key_needs_no_second_drop(error: BleakDBusError) -> None:
    async def main() -> None:
        with pytest.raises(StaleBondError):
            await Hub().connect(0, error, WEAK)
        with pytest.raises(BleakDBusError):  # refused, but there is no bond that could be stale
            await Hub(bonded=False).connect(0, error, STRONG)

    virtual_time.run(main())


@pytest.mark.parametrize(
    "error",
    [TimeoutError(), BleakError("not found"), BleakDBusError("org.bluez.Error.Failed", ["le-connection-abort-by-local"])],
)
def test_another_error_stays_what_it_is(error: Exception) -> None:
    async def main() -> None:
        with pytest.raises(type(error)) as raised:
            await Hub().connect(1, error)
        assert raised.value is error

    virtual_time.run(main())


def test_a_cancelled_connect_leaves_no_connection() -> None:
    async def main() -> None:
        for seconds in (0.5, 1.0):
            hub = Hub()
            connecting = asyncio.create_task(hub.connect())
            await asyncio.sleep(seconds)
            connecting.cancel()
            await asyncio.wait({connecting})
            assert connecting.cancelled()
            assert not hub.clients[0].is_connected
            assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(main())


def test_drops_of_one_sensor_say_nothing_of_another() -> None:
    drops = LinkDrops()
    drops.add(SENSOR, STRONG)
    drops.add(OTHER, STRONG)
    assert not drops.are_suspicious(SENSOR)
    drops.add(SENSOR, STRONG)
    assert (drops.are_suspicious(SENSOR), drops.are_suspicious(OTHER)) == (True, False)


class LostAtOnce(ScriptedClient):
    """A client whose link is lost just as its connect succeeds. bleak's keeps its D-Bus connection until it is disconnected."""

    is_open = False

    async def connect(self) -> None:
        self.is_open = True

    async def disconnect(self) -> None:
        self.is_open = False


def test_a_client_whose_link_is_lost_at_once_is_closed() -> None:
    async def main() -> None:
        client: Any = LostAtOnce(lambda _: None, 0, None)

        async def is_bonded() -> bool:
            return True

        with pytest.raises(BleakError, match="lost as soon as it was established"):
            await connect_client(lambda _: client, SENSOR, STRONG, LinkDrops(), is_bonded, print, TIMEOUT_S)
        assert not client.is_open

    virtual_time.run(main())


def test_a_client_that_gives_up_by_itself_is_not_a_drop() -> None:
    """A sensor whose stack hangs lets every connect run into its time limit, after which the client closes the link."""

    class GivingUp(ScriptedClient):
        async def connect(self) -> None:
            await asyncio.sleep(TIMEOUT_S)
            self._on_drop(self)
            raise TimeoutError

    async def main() -> None:
        hub = Hub()

        async def is_bonded() -> bool:
            return True

        for _ in range(3):
            with pytest.raises(TimeoutError):
                await connect_client(
                    lambda on_drop: GivingUp(on_drop, 0, None),  # type: ignore[arg-type, return-value]
                    SENSOR,
                    STRONG,
                    hub.drops,
                    is_bonded,
                    hub.losses.append,
                    TIMEOUT_S,
                )

    virtual_time.run(main())

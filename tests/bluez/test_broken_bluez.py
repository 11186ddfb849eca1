"""A machine whose BlueZ denies access, hangs or answers with an error: what the person is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from dbus_fast import Message, MessageType, RequestNameReply
from dbus_fast.aio import MessageBus

from gateway.errors import RadioError
from gateway.radio import bluez_bus, open_radio
from tests.bluez.dbus_objects import BLUEZ
from tests.bluez.testbed import run_test


@asynccontextmanager
async def serve_broken_bluez(address: str, error_name: str | None) -> AsyncIterator[None]:
    """Own `org.bluez`, and answer every call with this error; None: never answer."""
    bus = await MessageBus(bus_address=address).connect()

    def answer(message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        return True if error_name is None else Message.new_error(message, error_name, "no")

    bus.add_message_handler(answer)
    assert await bus.request_name(BLUEZ) is RequestNameReply.PRIMARY_OWNER
    try:
        yield
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it untyped


@pytest.mark.parametrize(
    ("error_name", "told"),
    [
        ("org.freedesktop.DBus.Error.AccessDenied", "may not use Bluetooth: add it to the group bluetooth"),
        ("org.freedesktop.DBus.Error.ServiceUnknown", "no Bluetooth service answers: install and start bluez"),
        ("org.bluez.Error.NotReady", r"BlueZ does not work \(\[org.bluez.Error.NotReady\] no\): restart it"),
        (None, r"BlueZ does not work \(no answer\): restart it \(systemctl restart bluetooth\)"),
    ],
)
def test_the_radio_says_what_is_wrong_and_what_to_do(
    bus: str, monkeypatch: pytest.MonkeyPatch, error_name: str | None, told: str
) -> None:
    monkeypatch.setitem(bluez_bus.call.__kwdefaults__, "timeout_s", 0.2)

    async def main() -> None:
        async with serve_broken_bluez(bus, error_name):
            with pytest.raises(RadioError, match=told):
                async with open_radio("bluetooth"):
                    pass
            assert len(asyncio.all_tasks()) == 1

    run_test(main())

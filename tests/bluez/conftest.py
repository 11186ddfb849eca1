"""A message bus of our own, and rooms with a strap on it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from gateway.simulate import pmd
from tests.bluez.rooms import OpenRoom, bluez_room, virtual_room

BUS_CONFIGURATION: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"""


@pytest.fixture(scope="session")
def bus_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A message bus of our own."""
    if shutil.which("dbus-daemon") is None:
        reason = "no dbus-daemon: install Debian's package dbus-daemon"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("bus")
    configuration = folder / "bus.conf"
    configuration.write_text(BUS_CONFIGURATION.format(socket=folder / "socket"))
    command = ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        address = daemon.stdout.readline().strip()
        assert address, "dbus-daemon ended at its start"
        yield address
        daemon.terminate()


@pytest.fixture
def bus(bus_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bus that bleak takes for the system's."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_address)
    return bus_address


@pytest.fixture
def room(bus: str, tmp_path: Path) -> OpenRoom:
    """With bleak's own backend."""
    return partial(bluez_room, bus, tmp_path)


@pytest.fixture(params=["virtual", "bluez"])
def either_room(request: pytest.FixtureRequest, tmp_path: Path) -> OpenRoom:
    if request.param == "virtual":
        return partial(virtual_room, tmp_path)
    return partial(bluez_room, request.getfixturevalue("bus"), tmp_path)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int]]:
    """What the strap's control point is asked, and the status of its answer."""
    seen: list[tuple[bytes, int]] = []
    answer = pmd.answer

    def listen(request: bytes, *, streaming: bool) -> pmd.Answer:
        given = answer(request, streaming=streaming)
        seen.append((request, given.indication[3]))
        return given

    monkeypatch.setattr(pmd, "answer", listen)
    return seen

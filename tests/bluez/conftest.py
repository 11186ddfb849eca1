"""A private message bus, and testbeds with a virtual strap."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from gateway.simulate import pmd
from tests.bluez.testbed import OpenTestbed, run_bluez_testbed, run_virtual_testbed

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
    """The address of a private message bus."""
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
        assert address, "dbus-daemon exited at its start"
        yield address
        daemon.terminate()


@pytest.fixture
def bus(bus_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the bus that bleak uses as the system bus."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_address)
    return bus_address


@pytest.fixture
def open_testbed(bus: str, tmp_path: Path) -> OpenTestbed:
    """A testbed with bleak's own backend."""
    return partial(run_bluez_testbed, bus, tmp_path)


@pytest.fixture(params=["virtual", "bluez"])
def open_either_testbed(request: pytest.FixtureRequest, tmp_path: Path) -> OpenTestbed:
    """A testbed with each of the two radios in turn."""
    if request.param == "virtual":
        return partial(run_virtual_testbed, tmp_path)
    return partial(run_bluez_testbed, request.getfixturevalue("bus"), tmp_path)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int]]:
    """The requests to the strap's control point, with the status of each response."""
    seen: list[tuple[bytes, int]] = []
    handle_request = pmd.handle_request

    def record(request: bytes, offers: pmd.Offers, running: frozenset[int]) -> pmd.ControlResponse:
        response = handle_request(request, offers, running)
        seen.append((request, response.indication[3]))
        return response

    monkeypatch.setattr(pmd, "handle_request", record)
    return seen

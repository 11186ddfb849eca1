"""`pulsegate doctor`: what the agent needs of its machine, each with its state and what to do. Changes nothing."""

import asyncio
import contextlib
import ctypes
import json
import os
import re
import shutil
import ssl
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.endpoint import Endpoint
from config.settings import Settings
from config.terminal import escape_controls
from config.tls import TlsSetupError, explain_failure, make_endpoint_context
from gateway.errors import RadioError
from gateway.hub_key import unlock_hub_key
from gateway.models import read_newest_release
from gateway.paired_sensors import is_forgotten, known_address, load_paired
from gateway.startup import check_data_folder, load_registration, tls_password
from models.inference.release import ReleaseError, open_release
from sync.errors import SyncError
from sync.keys import HubKey

State = Literal["ok", "warning", "failed"]

MIN_FREE_BYTES: Final = 64 << 20
"""Below this the buffer cannot be written for long: an ECG needs some 20 MB a day."""
BUFFER_BYTES: Final = 1 << 30
"""The buffer grows up to this size while the clinic cannot be reached."""
CONNECT_TIMEOUT_S: Final = 3.0
"""A broker on this machine or in this town answers within a few hundred milliseconds."""
REFUSAL_TIMEOUT_S: Final = 1.0
"""A refusal follows the handshake by one round trip."""
PROGRAM_TIMEOUT_S: Final = 5.0
"""`bluetoothctl --version` needs some milliseconds."""
OLDEST_BLUEZ: Final = (5, 55)
"""bleak 3.1 needs it."""
TIME_ERROR: Final = 5
"""What adjtimex(2) returns while the clock is not synchronised."""
PAIRING_PROGRAMS: Final = frozenset(
    {"bluetoothctl", "bt-agent", "blueman-applet", "blueman-tray", "gnome-shell", "kded5", "kded6", "bluedevil", "hass"}
)
"""Programs that register a pairing agent of their own. The kernel cuts names after 15 characters."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked. `remedy` is "" where the state is ok."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def split_message(name: str, error: Exception) -> Check:
    """Make a failed check of an error whose message is `what happened: what to do`, or `what happened: why; what to do`."""
    text = str(error)
    what, _, remedy = text.partition("; " if "; " in text else ": ")
    return Check(name, "failed", what, remedy)


def check_data(settings: Settings) -> Check:
    try:
        check_data_folder(settings.data)
    except SyncError as error:
        return split_message("data folder", error)
    return Check("data folder", "ok", str(settings.data))


def check_sensors(settings: Settings) -> Check:
    try:
        paired = load_paired(settings.data)
    except SyncError as error:
        return split_message("sensors", error)
    forgotten = [sensor.name for sensor in settings.sensors if is_forgotten(sensor, paired)]
    if forgotten:
        names = ", ".join(forgotten)
        return Check("sensors", "failed", f"{names} no longer knows this hub", f"pair it again: pulsegate pair {forgotten[0]}")
    pinned = sum(known_address(sensor, paired) is not None for sensor in settings.sensors)
    return Check("sensors", "ok", f"{pinned} of {len(settings.sensors)} known by their address")


def check_registration(settings: Settings) -> Check:
    try:
        load_registration(settings)
    except SyncError as error:
        return split_message("registration", error)
    return Check("registration", "ok", f"{settings.hub} for {settings.subject}")


def check_disk(folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1e6:,.0f} MB free"
    if free < MIN_FREE_BYTES:
        return Check("disk", "failed", detail, f"free {MIN_FREE_BYTES / 1e6:.0f} MB on the disk of {folder}")
    if free < BUFFER_BYTES:
        return Check("disk", "warning", detail, "free 1 GB, which the buffer may need while the clinic cannot be reached")
    return Check("disk", "ok", detail)


def check_clock() -> Check:
    """Ask the kernel whether a time service keeps the clock: adjtimex(2), without changing anything."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # all zeros: nothing is set
    if state == TIME_ERROR:
        remedy = "switch a time service on (timedatectl set-ntp true) and check that the network is up"
        return Check("clock", "failed", "not synchronised", remedy)
    if state < 0:
        return Check("clock", "warning", "cannot be asked", "check it yourself: timedatectl")
    return Check("clock", "ok", "synchronised")


def check_models(data: Path) -> Check:
    try:
        release = open_release(newest_seen=read_newest_release(data))
        for name in release.files:
            release.read_file(name)
    except ReleaseError as error:
        return Check("models", "failed", str(error), "reinstall pulsegate; until then the agent runs with its rules alone")
    return Check("models", "ok", f"release {release.number} is signed and unchanged")


async def check_broker(broker: Endpoint, password: bytes = b"") -> Check:
    """Check that the broker answers and, with TLS, that hub and broker accept each other's certificates.

    `password` opens the private key of the identity, if that is encrypted.
    """
    try:
        await _connect(broker, password)
    except TlsSetupError as error:
        return Check("broker", "failed", f"{broker} cannot be asked", str(error))
    except ssl.SSLError as error:
        detail, _, remedy = explain_failure(error).partition(": ")
        return Check("broker", "failed", f"{broker} {detail}", remedy)
    except OSError as error:  # TimeoutError is one, without a number
        reason = os.strerror(error.errno) if error.errno else "no answer"
        remedy = "check that the broker runs, and `host` and `port` in [clinic]; readings wait in the buffer meanwhile"
        return Check("broker", "failed", f"{broker} cannot be reached ({reason})", remedy)
    return Check("broker", "ok", f"{broker} answers")


async def _connect(broker: Endpoint, password: bytes) -> None:
    tls = make_endpoint_context(broker, password=password)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=tls)
    try:
        if tls is not None:  # a broker refuses a certificate only after the handshake, and says nothing if it accepts it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFUSAL_TIMEOUT_S):
                    await reader.read(1)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):  # the same error again, which `read` has raised
            await writer.wait_closed()


async def check_radios(radios: Sequence[str]) -> list[Check]:
    """Check every radio of the settings, and once what all adapters of a Linux machine share."""
    checks = [replace(await check_radio(radio), name=_name_adapter(number)) for number, radio in enumerate(radios, start=1)]
    if sys.platform == "linux" and any(not radio.startswith("virtual:") for radio in radios):
        checks += [await check_bluez_version(), check_agents(Path("/proc"))]
    return checks


def _name_adapter(number: int) -> str:
    return "adapter" if number == 1 else f"adapter {number}"


async def check_radio(radio: str) -> Check:
    """Check the adapter and the permission to use it, or that the virtual radio is there."""
    kind, _, rest = radio.partition(":")
    if kind == "virtual":
        return _check_virtual_radio(Path(rest))
    if sys.platform != "linux":
        return Check("adapter", "warning", "only checked on Linux", "check Bluetooth in the settings of this computer")
    return await _check_adapter(rest or None)


def _check_virtual_radio(socket: Path) -> Check:
    if socket.exists() and stat.S_ISSOCK(socket.stat().st_mode):
        return Check("adapter", "ok", f"virtual radio {socket}")
    return Check("adapter", "failed", f"no virtual radio at {socket}", "start its simulator first (pulsegate simulate)")


async def _check_adapter(name: str | None) -> Check:
    """Ask BlueZ for its adapters; the agent, which may be running, keeps its own connection."""
    from bleak.exc import BleakDBusError  # noqa: PLC0415  only Linux has D-Bus

    from gateway.radio.bluez_bus import ADAPTER, choose_adapter, managed_objects, open_system_bus  # noqa: PLC0415

    try:
        async with open_system_bus() as bus:
            objects = await managed_objects(bus)
        path = choose_adapter(objects, name)
    except RadioError as error:
        return split_message("adapter", error)
    except (BleakDBusError, TimeoutError) as error:
        return Check(
            "adapter", "failed", f"BlueZ does not work ({error or 'no answer'})", "restart it (systemctl restart bluetooth)"
        )
    adapter, title = objects[path][ADAPTER], f"{path.split('/')[-1]} {objects[path][ADAPTER]['Address']}"
    if not adapter["Powered"]:
        return Check("adapter", "failed", f"{title} is off", "run bluetoothctl power on, or rfkill unblock bluetooth")
    return Check("adapter", "ok", f"{title} is on, and this user may use it")


async def check_bluez_version(program: str = "bluetoothctl") -> Check:
    """Bluetoothd tells nobody its version; bluetoothctl is built from the same source."""
    unknown = "check that BlueZ is 5.55 or newer"
    try:
        process = await asyncio.create_subprocess_exec(program, "--version", stdout=asyncio.subprocess.PIPE)
    except OSError:
        return Check("BlueZ version", "warning", "unknown: no bluetoothctl", unknown)
    try:
        async with asyncio.timeout(PROGRAM_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return Check("BlueZ version", "warning", "unknown: bluetoothctl does not answer", unknown)
    found = re.search(rb"(\d+)\.(\d+)", output)
    if found is None:
        return Check("BlueZ version", "warning", "unknown", unknown)
    version = int(found[1]), int(found[2])
    text = f"{version[0]}.{version[1]}"
    if version < OLDEST_BLUEZ:
        return Check("BlueZ version", "failed", text, "update BlueZ to 5.55 or newer")
    return Check("BlueZ version", "ok", text)


def check_agents(processes: Path) -> Check:
    """Look for programs that answer pairings too. BlueZ does not tell which agents are registered."""
    names = {name for path in processes.glob("[0-9]*/comm") if (name := _read_name(path)) in PAIRING_PROGRAMS}
    if names:
        remedy = "close them while a sensor is paired, and stop those that connect to the same sensors"
        return Check("other agents", "warning", ", ".join(sorted(names)), remedy)
    return Check("other agents", "ok", "none known")


def _read_name(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # the process has ended


async def _run_checks(settings: Settings, hub_key: HubKey | None) -> list[Check]:
    return [
        check_data(settings),
        check_sensors(settings),
        check_disk(settings.data),
        check_registration(settings),
        check_models(settings.data),
        check_clock(),
        await check_broker(settings.clinic.broker, tls_password(hub_key)),
        *await check_radios(settings.radios),
    ]


def make_table(checks: list[Check]) -> Table:
    styles: Mapping[State, str] = {"ok": "green", "warning": "yellow", "failed": "bold red"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        for name, state, text in _rows(check):
            table.add_row(Text(name), Text(state, styles[check.state]), Text(escape_controls(text)))
    return table


def _rows(check: Check) -> Iterator[tuple[str, str, str]]:
    yield check.name, check.state, check.detail
    if check.remedy:
        yield "", "", f"→ {check.remedy}"


def doctor(settings: Settings, *, as_json: bool) -> int:
    """Run all checks and print them. Return 1 if one failed, else 0.

    Raises:
        HubKeyError: the hub key that opens the private key for TLS cannot be opened.
    """
    checks = asyncio.run(_run_checks(settings, unlock_hub_key(settings.data)))
    if as_json:
        listed: list[dict[str, Any]] = [asdict(check) for check in checks]
        sys.stdout.write(json.dumps(listed, indent=1) + "\n")
    else:
        Console(highlight=False).print(make_table(checks))
    return int(any(check.state == "failed" for check in checks))

"""`pulsegate erase --everything`: destroys what this hub holds, when it leaves the patient."""

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bleak.exc import BleakError

from config.files import destroy_file, locked
from config.identity import IDENTITY_FILE
from config.settings import Settings
from gateway.audit_log import AUDIT_FILE, AUDIT_KEY_FILE, DAMAGED_FILE
from gateway.commands.enroll import LOCK_FILE as ENROLMENT_LOCK_FILE
from gateway.commands.pair import PairError, remove_bond
from gateway.consent import WITHDRAWALS_FOLDER
from gateway.enrolment.identity import FOLDER
from gateway.errors import RadioError
from gateway.hub_key import HUB_KEY_FILE
from gateway.key_rotation import REQUEST_FILE
from gateway.models import NEWEST_RELEASE_FILE
from gateway.paired_sensors import PAIRED_FILE, load_paired
from gateway.persons import ANSWERS_FOLDER
from gateway.startup import COMMAND_KEY_FILE, COMMAND_PUBLIC_FILE, DEVICE_KEY_FILE, DEVICE_PUBLIC_FILE, LOCK_FILE
from gateway.status import STATUS_FILE
from sync.errors import PermanentError, SyncError

KEYS: Final = (HUB_KEY_FILE, DEVICE_KEY_FILE, f"{FOLDER}/{IDENTITY_FILE}", AUDIT_KEY_FILE, COMMAND_KEY_FILE)
"""Destroyed first: without them nothing that is left can be read, or sent in this hub's name."""
OTHERS: Final = (
    "buffer.db*",
    f"{AUDIT_FILE}*",
    DAMAGED_FILE,
    FOLDER,
    DEVICE_PUBLIC_FILE,
    COMMAND_PUBLIC_FILE,
    "bonds.json",
    PAIRED_FILE,
    ANSWERS_FOLDER,
    WITHDRAWALS_FOLDER,
    REQUEST_FILE,
    NEWEST_RELEASE_FILE,
    STATUS_FILE,
    ".*-*",
    ENROLMENT_LOCK_FILE,
    LOCK_FILE,
)
"""Patterns of what else the agent writes to its data folder; `.*-*` are drafts that a killed process left."""


class EraseError(PermanentError):
    """Not everything was erased. The message says what is left."""


def erase_everything(settings: Settings, ask: Callable[[str], str]) -> int:
    """Destroy keys, buffer, pairings and state, once a person has typed the hub's name.

    Raises:
        EraseError: the agent runs, the name was not typed, or something could not be deleted.
    """
    data = settings.data
    if not data.is_dir():
        raise EraseError(f"there is nothing to erase: {data} does not exist")
    try:
        with locked(data / LOCK_FILE), locked(data / ENROLMENT_LOCK_FILE):
            _confirm(settings, ask)
            _unpair(settings)
            _delete(data)
            settings.clinic.registration.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise EraseError("the agent is running: stop it first (systemctl stop pulsegate)") from error
    except OSError as error:
        raise EraseError(f"cannot erase {data} ({error}): run this as the agent's user, then run it again") from error
    left = sorted(path.name for path in data.iterdir())
    _say(f"this hub holds nothing of {settings.subject} any more" + (f"; not ours, left in {data}: {left}" if left else ""))
    _say("the settings file is left; delete it, and the consent codes that it names, if the hub gets another patient")
    return 0


def _confirm(settings: Settings, ask: Callable[[str], str]) -> None:
    _say(f"This destroys the keys, the readings, the pairings and the certificate in {settings.data}. It cannot be undone:")
    _say("readings that the clinic has not received are lost, and the hub must be enrolled and its sensors paired again.")
    _say("The clinic keeps what it has. Tell it to revoke this hub.")
    answer = ""
    with contextlib.suppress(EOFError):
        answer = ask(f"Type the hub's name, {settings.hub}, to go on: ").strip()
    if answer != settings.hub:
        raise EraseError("nothing was erased: the name was not typed")


def _unpair(settings: Settings) -> None:
    """Remove the bonds that the system's Bluetooth keeps. Best effort: the keys must go also where there is no adapter."""
    try:
        for name in load_paired(settings.data):
            asyncio.run(remove_bond(settings, name))
    except (SyncError, PairError, RadioError, BleakError, TimeoutError, OSError) as error:
        _say(f"the pairings of this machine's Bluetooth could not be removed ({error}): remove them with bluetoothctl")


def _delete(data: Path) -> None:
    for name in KEYS:
        if (data / name).exists():
            destroy_file(data / name)
    for pattern in OTHERS:
        for path in data.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")

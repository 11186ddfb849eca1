"""`pulsegate keys`: lists the keys of this hub, lets the agent change to a new data key, and changes where the hub key lies."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict

from config.files import locked, replace_secret
from config.settings import Settings
from config.terminal import escape_controls
from gateway.commands.enroll import LOCK_FILE as ENROLMENT_LOCK_FILE
from gateway.hub_key import (
    HUB_KEY_FILE,
    HubKeyError,
    Place,
    ReadSecret,
    load_hub_key,
    read_new_passphrase,
    read_secret_of_system,
    seal_hub_key,
)
from gateway.key_list import list_keys
from gateway.key_rotation import ask_for_rotation
from gateway.sealed_files import seal_files, unseal_files
from gateway.startup import LOCK_FILE, check_data_folder, prepare_data_folder


def run_keys(settings: Settings, arguments: Namespace) -> int:
    """Run one action.

    Raises:
        PermanentError: it was not done. The message says what to do.
    """
    match arguments.action:
        case "list":
            _list(settings, as_json=arguments.json)
        case "rotate":
            ask_for_rotation(settings.data)
            _print("the agent changes the data key within seconds if it is running, otherwise after its next start")
        case _:
            move_hub_key(settings, Place(arguments.place), read_new_secret)
            _print(f"the hub key lies in: {arguments.place}")
    return 0


def read_new_secret(place: Place) -> bytes:
    """Return what a hub key shall be sealed under.

    Raises:
        HubKeyError: the credential is missing, or the passphrase is too short or was not typed twice.
    """
    return read_new_passphrase() if place == Place.PASSPHRASE else read_secret_of_system(place)


def move_hub_key(settings: Settings, place: Place, read_new: ReadSecret) -> None:
    """Change where the hub key lies. A process that is killed in between leaves keys that can be read; run it again.

    The key itself stays the same. Its present credential or passphrase is read from the system, the new one by `read_new`.

    Raises:
        HubKeyError: the agent is running, or a credential or passphrase is missing or wrong.
        KeyFileError: a key file is damaged, accessible to other users, or cannot be replaced.
        PermanentError: the data folder cannot be used.
    """
    check_data_folder(settings.data)
    prepare_data_folder(settings.data)
    path = settings.data / HUB_KEY_FILE
    try:
        with locked(settings.data / LOCK_FILE), locked(settings.data / ENROLMENT_LOCK_FILE):
            key = load_hub_key(settings.data)
            if place == Place.FILE:
                unseal_files(settings, key)  # before: a sealed file without its hub key at hand could not be read
            secret = b"" if place == Place.FILE else read_new(place)
            replace_secret(path, seal_hub_key(key, place, secret))
            if place != Place.FILE:
                seal_files(settings, key)
    except BlockingIOError as error:
        raise HubKeyError("the agent is running: stop it first (systemctl stop pulsegate)") from error
    except OSError as error:
        raise HubKeyError(f"cannot replace {path} ({error.strerror}): check the disk, then run this again") from error


def _list(settings: Settings, *, as_json: bool) -> None:
    keys = list_keys(settings)
    if as_json:
        _print(json.dumps([asdict(key) for key in keys]))
        return
    for key in keys:
        _print(f"{key.name}: {key.purpose}")
        _print(f"    {key.where}; since {key.since}; ends {key.ends}")


def _print(line: str) -> None:
    sys.stdout.write(escape_controls(line) + "\n")

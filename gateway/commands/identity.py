"""`pulsegate identity`: creates the keys of this hub, and names the files to take to the clinic."""

import sys

from config.settings import Settings
from gateway.hub_key import unlock_hub_key
from gateway.startup import (
    COMMAND_PUBLIC_FILE,
    DEVICE_PUBLIC_FILE,
    check_data_folder,
    load_command_key,
    load_device_key,
    prepare_data_folder,
)


def run_identity(settings: Settings) -> int:
    """Create the keys that do not exist, and print the paths of their public halves.

    Raises:
        PermanentError: a key cannot be read or written.
    """
    check_data_folder(settings.data)
    prepare_data_folder(settings.data)
    hub_key = unlock_hub_key(settings.data)
    load_device_key(settings.data, hub_key)
    load_command_key(settings.data, hub_key)
    sys.stdout.write(f"{settings.data / DEVICE_PUBLIC_FILE}\n{settings.data / COMMAND_PUBLIC_FILE}\n")
    sys.stderr.write(
        f"take these files to the clinic: pulsegate-cloud register --data DIR --hub {settings.hub}"
        f" --hub-key {DEVICE_PUBLIC_FILE} --command-key {COMMAND_PUBLIC_FILE}"
        f" --subject {settings.subject} --out registration.toml; then bring what it writes to"
        f" {settings.clinic.registration}\n"
    )
    return 0

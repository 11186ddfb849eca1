"""Checks that the agent can start with its settings, and prepares its data folder.

`pulsegate check-config` makes the same checks. They change nothing, so a start that fails leaves nothing behind.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config.egress import allow_endpoint
from config.settings import RegionSettingsError, SensorSettings, Settings, load_settings
from config.tls import TlsSetupError, make_endpoint_context
from drivers.conversation import Consent
from gateway.audit_log import log_refused_endpoint
from gateway.clock import SystemClock
from sync.commands import CommandKey, save_command_key
from sync.errors import PermanentError
from sync.key_files import KeyFileError, check_private_file
from sync.keys import HubKey
from sync.registration import Registration
from sync.signing import SigningKey, Use, VerifyingKey

PRIVATE_FILES: Final = ("bonds.json", "buffer.db", "buffer.db-shm", "buffer.db-wal", "models.json", "status.json")
"""The files in the data folder that earlier versions left readable for other users. The keys are not listed: if others could
read one, that must be seen (`sync.key_files.check_private_file`)."""
MAX_CONSENT_CODE: Final = 9999
"""User Data Service 1.1, section 3.1.2.1: consent codes are 0 to 9999."""
LOCK_FILE: Final = "lock"
"""The file in the data folder that is locked by the agent while it runs, and by `pulsegate pair`."""
DEVICE_KEY_FILE: Final = "device.key"
DEVICE_PUBLIC_FILE: Final = "device.pub"
"""The files in the data folder with the device key and its public key; the operator takes the latter to the clinic."""
COMMAND_KEY_FILE: Final = "command.key"
COMMAND_PUBLIC_FILE: Final = "command.pub"
"""Likewise of the key that the clinic seals commands for."""


def load_agent_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """Read the settings, and let this process connect to the servers of their allow-list. A refused region is in the audit log.

    Raises:
        SettingsError: as `load_settings`.
    """
    try:
        settings = load_settings(path, environment)
    except RegionSettingsError as error:
        log_refused_endpoint(error, SystemClock().wall_us)
        raise
    for endpoint in settings.endpoints:
        allow_endpoint(endpoint.host, endpoint.port)
    return settings


def check_startup(settings: Settings, hub_key: HubKey | None = None) -> None:
    """Check the registration, the identity for TLS, the consent codes and the data folder.

    `hub_key` opens the private key for TLS, where key files are sealed (`gateway.hub_key.unlock_hub_key`).

    Raises:
        PermanentError: the agent cannot start with these settings.
    """
    load_registration(settings)
    check_identity(settings, hub_key)
    for sensor in settings.sensors:
        load_consent(sensor)
    check_data_folder(settings.data)


def load_registration(settings: Settings) -> Registration:
    """Read the registration of this hub.

    Raises:
        RegistrationError: it is missing, damaged, or of another hub.
        PermanentError: it does not name the subject.
    """
    path = settings.clinic.registration
    registration = Registration.load(path, settings.hub)
    if settings.subject not in registration.recipients:
        known = ", ".join(registration.recipients)
        raise PermanentError(
            f"the registration {path} does not name the subject {settings.subject}, but {known}: register the hub for this"
            " subject with pulsegate-cloud register and bring the new file, or set `subject`"
        )
    return registration


def check_identity(settings: Settings, hub_key: HubKey | None) -> None:
    """Check that the certificate for TLS can be used. It may have expired: it can be renewed while the agent runs.

    Raises:
        PermanentError: its files are missing, damaged, or accessible to other users, or OpenSSL offers more than is allowed.
    """
    try:
        make_endpoint_context(settings.clinic.broker, password=tls_password(hub_key))
    except TlsSetupError as error:
        raise PermanentError(f"cannot connect to the clinic: {error}") from error


def tls_password(hub_key: HubKey | None) -> bytes:
    """Return what opens the private key for TLS; nothing where the key files are not sealed."""
    return b"" if hub_key is None else hub_key.tls_password()


def load_consent(sensor: SensorSettings) -> Consent | None:
    """Read the code with which the sensor lets this hub have the patient's data; None if none is set.

    Raises:
        PermanentError: the file is missing, accessible to other users, or holds no such code. Its content is not quoted.
    """
    path = sensor.consent_code_file
    if path is None or sensor.user is None:
        return None
    check_private_file(path)
    text = path.read_bytes().strip()
    if not (text.isdigit() and int(text) <= MAX_CONSENT_CODE):
        raise PermanentError(
            f"{path} holds no consent code: write the number from 0 to {MAX_CONSENT_CODE} that the sensor shows"
        )
    return Consent(sensor.user, int(text))


def load_device_key(folder: Path, hub_key: HubKey | None = None) -> SigningKey:
    """Read the device key in the data folder, or create it, and write its public key beside it, unless it is there.

    `hub_key` seals it, where key files are sealed. An agent that ran before thus starts on a full disk.

    Raises:
        KeyFileError: the key file is damaged or accessible to other users, or cannot be written.
        PermanentError: the file of the public key cannot be written.
    """
    key, public = SigningKey.load_or_create(folder / DEVICE_KEY_FILE, Use.DEVICE, hub_key), folder / DEVICE_PUBLIC_FILE
    try:
        if not _holds_public_key(public, key):
            key.public.save(public)
    except OSError as error:
        raise PermanentError(
            f"cannot write the device's public key {public} ({error.strerror}): check that its folder is writable and has room"
        ) from error
    return key


def load_command_key(folder: Path, hub_key: HubKey | None = None) -> CommandKey:
    """Read the command key in the data folder, or create it, and write its public key beside it, unless it is there.

    Raises:
        KeyFileError: the key file is damaged or accessible to other users, or cannot be written.
        PermanentError: the file of the public key cannot be written.
    """
    key, public = CommandKey.load_or_create(folder / COMMAND_KEY_FILE, hub_key), folder / COMMAND_PUBLIC_FILE
    try:
        if not public.exists():
            save_command_key(key.public, public)
    except OSError as error:
        raise PermanentError(
            f"cannot write the public command key {public} ({error.strerror}): check that its folder is writable and has room"
        ) from error
    return key


def _holds_public_key(path: Path, key: SigningKey) -> bool:
    try:
        return VerifyingKey.load(path, key.use).to_bytes() == key.public.to_bytes()
    except KeyFileError:
        return False


def check_data_folder(folder: Path) -> None:
    """Check that the folder is our own and writable or, if it does not exist, can be created.

    Raises:
        PermanentError: it is neither.
    """
    remedy = "set `data` to a folder that you can write to"
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        status = existing.stat()
    except OSError as error:
        raise PermanentError(f"cannot use the data folder {folder} ({error.strerror}): {remedy}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise PermanentError(f"cannot create the data folder {folder}, because {existing} is a file: {remedy}")
    if existing == folder and status.st_uid != os.geteuid():
        raise PermanentError(
            f"the data folder {folder} belongs to another user (id {status.st_uid}, this is {os.geteuid()}):"
            " run pulsegate as that user, or set `data` to a folder of your own"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermanentError(f"cannot write to {existing}, which holds the agent's data: {remedy}")


def prepare_data_folder(folder: Path) -> None:
    """Create the folder if it does not exist, and make its files readable only by their owner.

    Raises:
        PermanentError: the folder cannot be created, or a file in it cannot be changed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in map(folder.joinpath, PRIVATE_FILES):
            _make_private(path)
    except OSError as error:
        raise PermanentError(
            f"cannot create the data folder {folder} ({error.strerror}): set `data` to a folder that you can write to"
        ) from error


def _make_private(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode) and mode & 0o077:
        path.chmod(mode & 0o700)

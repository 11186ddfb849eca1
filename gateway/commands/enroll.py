"""`pulsegate enroll` and `pulsegate renew`: give this hub an identity at its clinic, and keep it."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.files import locked
from config.sample import fill_sample, format_value, make_sample
from config.settings import Settings, load_settings, parse_settings
from config.tls import TlsSetupError
from gateway.enrolment.identity import FOLDER, REGISTRATION_FILE, SiteRecord
from gateway.enrolment.requests import enrol, renew
from gateway.enrolment.site_clock import Clocks, SiteClock
from gateway.hub_key import unlock_hub_key
from gateway.startup import DEVICE_KEY_FILE, check_data_folder, load_command_key, load_device_key, prepare_data_folder
from sync.errors import PermanentError
from sync.invitation import CodeRows, Invitation, InvitationError
from sync.key_files import KeyFileError, create_secret_file
from sync.keys import HubKey
from sync.signing import SigningKey, Use

LOCK_FILE: Final = "enrolment.lock"
"""Locked in the data folder while a process enrols or renews."""


class EnrolError(PermanentError):
    """The hub was not enrolled, or its certificate not renewed. The message says why and what to do."""


def run_enroll(config: Path, code: str | None, environment: Mapping[str, str]) -> int:
    """Enrol this hub. Print the settings that follow from it, or write them where there is no settings file.

    Raises:
        PermanentError, SettingsError: it was not enrolled. The message is for the patient.
    """
    has_settings = config.exists()
    settings = load_settings(config, environment) if has_settings else parse_settings(make_sample(), config, environment)
    invitation = read_code() if code in (None, "-") else Invitation.parse(code)
    check_data_folder(settings.data)
    prepare_data_folder(settings.data)
    folder = settings.data.absolute() / FOLDER
    with _exclusively(settings.data):
        folder.mkdir(mode=0o700, exist_ok=True)
        hub_key = unlock_hub_key(settings.data)
        device = load_device_key(settings.data, hub_key)
        command = load_command_key(settings.data, hub_key).public
        clock = SiteClock(folder, Clocks.of_system())
        record = _reporting_tls(lambda: enrol(invitation, device, command, folder, clock, hub_key))
    _say(f"this hub is enrolled as {record.hub}; its certificate is valid until {_format_time(record.until_s)}")
    values = _values(record, folder)
    if not has_settings:
        _write_settings(config, {"data": str(settings.data.absolute()), **values})
    elif not _has_values(settings, values):
        _say(f"set these lines in {config}, the last five in [clinic]; then run pulsegate check-config:")
        print("\n".join(f"{name} = {format_value(value)}" for name, value in values.items()))  # noqa: T201
    return 0


def run_renew(settings: Settings, hub_key: HubKey | None) -> int:
    """Take a new certificate, and the site's time. `hub_key` opens the key files, where they are sealed.

    Raises:
        PermanentError: it was not renewed.
    """
    folder = settings.clinic.broker.identity or settings.data.absolute() / FOLDER
    SiteRecord.load(folder)
    with _exclusively(settings.data):
        device = SigningKey.load(settings.data / DEVICE_KEY_FILE, Use.DEVICE, hub_key)
        record = _reporting_tls(lambda: renew(device, folder, SiteClock(folder, Clocks.of_system()), hub_key))
    _say(f"the certificate of {record.hub} is valid until {_format_time(record.until_s)}")
    return 0


def read_code() -> Invitation:
    """Read a code from standard input; at a terminal row by row, and a row with a mistake once more.

    Raises:
        InvitationError: it is not a code.
        EnrolError: the input ended.
    """
    if not sys.stdin.isatty():
        return Invitation.parse(sys.stdin.read())
    rows = CodeRows()
    while not rows.is_complete:
        of = f" of {rows.count}" if len(rows) else ""
        try:
            rows.add(input(f"row {len(rows) + 1}{of} of the code: "))
        except InvitationError as error:
            _say(str(error))
        except EOFError as error:
            raise EnrolError("the code was not complete: run pulsegate enroll again") from error
    return rows.invitation()


def _values(record: SiteRecord, folder: Path) -> dict[str, str | int]:
    """The settings of an enrolled hub: two at the top of the file, then those of [clinic]."""
    host, port, region = record.brokers[0]
    return {
        "hub": record.hub,
        "subject": record.subject,
        "host": host,
        "port": port,
        "registration": str(folder / REGISTRATION_FILE),
        "identity": str(folder),
        "region": region,
    }


def _has_values(settings: Settings, values: Mapping[str, str | int]) -> bool:
    broker, clinic = settings.clinic.broker, settings.clinic
    present = (broker.host, broker.port, str(clinic.registration), str(broker.identity), broker.region)
    return (settings.hub, settings.subject, *present) == tuple(values.values())


def _write_settings(config: Path, values: Mapping[str, str | int]) -> None:
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        create_secret_file(config, fill_sample(values).encode())
    except (OSError, KeyFileError) as error:
        raise EnrolError(
            f"this hub is enrolled, but {config} cannot be written: run pulsegate enroll again, with another file as --config"
        ) from error
    _say(f"settings written to {config}: set its [[sensor]] tables, then run pulsegate check-config")


@contextmanager
def _exclusively(data: Path) -> Iterator[None]:
    """Hold the lock of enrolment and renewal."""
    try:
        with locked(data / LOCK_FILE):
            yield
    except BlockingIOError as error:
        raise EnrolError("this hub is being enrolled or renewed by another process: wait a minute, then try again") from error
    except OSError as error:
        raise EnrolError(f"cannot write to {data} ({error.strerror}): run this as the agent's user") from error


def _reporting_tls(action: Callable[[], SiteRecord]) -> SiteRecord:
    try:
        return action()
    except TlsSetupError as error:
        raise EnrolError(str(error)) from error


def _format_time(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")

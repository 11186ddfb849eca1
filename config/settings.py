"""The agent's settings: one TOML file, overridden by the environment, checked whole before anything starts.

hub = "hub-7f3a"                  # PULSEGATE_HUB
subject = "subject-19c2"          # PULSEGATE_SUBJECT: the patient's pseudonym, never a name
data = "/var/lib/pulsegate"       # PULSEGATE_DATA: buffer, hub key, status
radio = "bluetooth"               # PULSEGATE_RADIO: or "virtual:SOCKET"

[clinic]
host = "127.0.0.1"                # PULSEGATE_CLINIC_HOST
port = 1883                       # PULSEGATE_CLINIC_PORT
public_key = "clinic.pub"         # PULSEGATE_CLINIC_PUBLIC_KEY

[[sensor]]
name = "strap"                    # ours, for logs and pages
address = "A0:9E:1A:00:00:01"     # or: advertised_name = "Polar H10"

[limits]                          # the patient's own, see config/limits.py
tachycardia_rate = 140
"""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.limits import DEFAULT_LIMITS, LimitError, Limits

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Hub and sensor names stand in MQTT topics: no slash, plus, hash or blank."""
ADDRESS: Final = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
"""A Bluetooth device address, or the UUID that macOS gives in its place."""
ENVIRONMENT: Final[Mapping[str, tuple[str, ...]]] = {
    "PULSEGATE_HUB": ("hub",),
    "PULSEGATE_SUBJECT": ("subject",),
    "PULSEGATE_DATA": ("data",),
    "PULSEGATE_RADIO": ("radio",),
    "PULSEGATE_CLINIC_HOST": ("clinic", "host"),
    "PULSEGATE_CLINIC_PORT": ("clinic", "port"),
    "PULSEGATE_CLINIC_PUBLIC_KEY": ("clinic", "public_key"),
}


class SettingsError(ValueError):
    """A setting that is missing, unknown or not allowed. The message names key, value and what is allowed."""


@dataclass(frozen=True, slots=True)
class SensorSettings:
    """One sensor to look for, by its address or by the start of its advertised name."""

    name: str
    address: str | None = None
    advertised_name: str | None = None


@dataclass(frozen=True, slots=True)
class ClinicSettings:
    """Where the blocks go, and the file with the public key they are sealed for."""

    host: str
    port: int
    public_key: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the agent needs to know to run."""

    hub: str
    subject: str
    data: Path
    radio: str
    clinic: ClinicSettings
    sensors: tuple[SensorSettings, ...]
    limits: Limits


def load(path: Path, environment: Mapping[str, str]) -> Settings:
    """Settings from a file, with what the environment overrides.

    Relative paths are relative to the file's folder.

    Raises:
        SettingsError: the file can't be read, or a setting is missing, unknown or not allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings {path}: {error.strerror}; name the file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    return _Reader(path, _overridden(table, environment)).settings()


def _overridden(table: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    for variable, (*parents, key) in ENVIRONMENT.items():
        target: Any = table
        for parent in parents:
            target = target.setdefault(parent, {}) if variable in environment else {}
        if variable in environment and isinstance(target, dict):  # else the file is wrong here, which is told later
            value = environment[variable]
            target[key] = int(value) if key == "port" and value.isdecimal() else value
    return table


class _Reader:
    """Takes settings out of a TOML table, one by one, each checked."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self._path, self._table = path, table

    def settings(self) -> Settings:
        self._only(self._table, "", {"hub", "subject", "data", "radio", "clinic", "sensor", "limits"})
        clinic = self._get(self._table, "", "clinic", dict, "a [clinic] table")
        self._only(clinic, "clinic.", {"host", "port", "public_key"})
        return Settings(
            hub=self._identifier(self._table, "", "hub"),
            subject=self._identifier(self._table, "", "subject"),
            data=self._file(self._table, "", "data"),
            radio=self._radio(),
            clinic=ClinicSettings(self._host(clinic), self._port(clinic), self._file(clinic, "clinic.", "public_key")),
            sensors=self._sensors(),
            limits=self._limits(),
        )

    def _fail(self, key: str, value: object, allowed: str) -> SettingsError:
        found = "is missing" if value is None else f"= {value!r} is not allowed"
        return SettingsError(f"{self._path}: {key} {found}; allowed: {allowed}")

    def _only(self, table: Mapping[str, Any], prefix: str, known: set[str]) -> None:
        for key in table:
            if key not in known:
                raise SettingsError(f"{self._path}: unknown setting {prefix}{key}; known: {', '.join(sorted(known))}")

    def _get(self, table: Mapping[str, Any], prefix: str, key: str, kind: type, allowed: str) -> Any:
        value = table.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._fail(prefix + key, value, allowed)
        return value

    def _identifier(self, table: Mapping[str, Any], prefix: str, key: str) -> str:
        allowed = "1 to 64 letters, digits, - and _"
        value: str = self._get(table, prefix, key, str, allowed)
        if not IDENTIFIER.fullmatch(value):
            raise self._fail(prefix + key, value, allowed)
        return value

    def _file(self, table: Mapping[str, Any], prefix: str, key: str) -> Path:
        return self._path.parent / Path(self._get(table, prefix, key, str, "a path")).expanduser()

    def _radio(self) -> str:
        value: str = self._get(self._table, "", "radio", str, '"bluetooth" or "virtual:SOCKET"')
        if value != "bluetooth" and not (value.startswith("virtual:") and value != "virtual:"):
            raise self._fail("radio", value, '"bluetooth" or "virtual:SOCKET"')
        return value

    def _host(self, clinic: Mapping[str, Any]) -> str:
        allowed = "a loopback address (127.0.0.1 or ::1); clinics elsewhere need enrolment, which this version does not have"
        value: str = self._get(clinic, "clinic.", "host", str, allowed)
        try:
            loopback = ipaddress.ip_address(value).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise self._fail("clinic.host", value, allowed)
        return value

    def _port(self, clinic: Mapping[str, Any]) -> int:
        value: int = self._get(clinic, "clinic.", "port", int, "1 to 65535")
        if not 1 <= value <= 65535:
            raise self._fail("clinic.port", value, "1 to 65535")
        return value

    def _sensors(self) -> tuple[SensorSettings, ...]:
        tables = self._get(self._table, "", "sensor", list, "at least one [[sensor]] table")
        sensors = tuple(self._sensor(f"sensor[{index}].", table) for index, table in enumerate(tables))
        names = [sensor.name for sensor in sensors]
        if not names or len(set(names)) != len(names):
            raise self._fail("sensor", names, "at least one [[sensor]], each with a name of its own")
        return sensors

    def _sensor(self, prefix: str, table: Any) -> SensorSettings:
        if not isinstance(table, dict):
            raise self._fail(prefix, table, "a [[sensor]] table")
        self._only(table, prefix, {"name", "address", "advertised_name"})
        address, advertised = table.get("address"), table.get("advertised_name")
        if (address is None) == (advertised is None):
            raise self._fail(f"{prefix}address", address, "exactly one of address and advertised_name")
        if address is not None and not (isinstance(address, str) and ADDRESS.fullmatch(address.upper())):
            raise self._fail(f"{prefix}address", address, "a Bluetooth address such as A0:9E:1A:00:00:01")
        if advertised is not None and not (isinstance(advertised, str) and advertised):
            raise self._fail(f"{prefix}advertised_name", advertised, "the start of the name the sensor advertises")
        return SensorSettings(self._identifier(table, prefix, "name"), address and address.upper(), advertised)

    def _limits(self) -> Limits:
        table = self._table.get("limits", {})
        if not isinstance(table, dict):
            raise self._fail("limits", table, "a [limits] table")
        for name, value in table.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._fail(f"limits.{name}", value, "a number")
        try:
            return DEFAULT_LIMITS.with_values(table)
        except LimitError as error:
            raise SettingsError(f"{self._path}: {error}") from error

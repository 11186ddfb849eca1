"""The agent's settings: one TOML file, overridden by the environment, checked completely before anything starts.

`config/sample.py` holds a commented file with every setting; `pulsegate init` writes it.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from config.contexts import NO_CONTEXTS, ContextError, Contexts, make_contexts
from config.endpoint import (
    ALLOWED_HOST,
    ALLOWED_PORT,
    ALLOWED_TLS_HOST,
    Endpoint,
    EndpointError,
    ListedEndpoint,
    RegionError,
    parse_listed,
    parse_port,
)
from config.limit import LimitError
from config.limits import DEFAULT_LIMITS, Limits
from config.regions import ALLOWED_REGION

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Hub names, subjects and sensor names. The hub name is part of MQTT topics, so slash, plus, hash and space are excluded."""
ADDRESS: Final = re.compile(r"[0-9A-F]{2}(:[0-9A-F]{2}){5}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")
"""A Bluetooth device address, or the UUID that macOS reports instead of it."""
RADIO: Final = re.compile(r"bluetooth(:hci[0-9]{1,3})?|virtual:.+", re.DOTALL)
"""The machine's first adapter, the one with this name, or the virtual radio at this socket."""
UploadPolicy = Literal["all", "evidence", "none"]
UPLOAD_POLICIES: Final[tuple[UploadPolicy, ...]] = get_args(UploadPolicy)
"""Which waveforms are sent: all, strips as evidence (one an hour, and around alerts), or none besides the strips of alerts."""
DEFAULT_UPLOAD: Final[UploadPolicy] = "evidence"
"""GDPR, article 5(1)(c): no more is sent than the clinic needs."""
MAX_USER: Final = 254
"""Sensors number users from 0 or 1; 255 stands for an unknown one (Blood Pressure and User Data Service)."""
T = TypeVar("T")
ENVIRONMENT_OVERRIDES: Final[Mapping[str, tuple[str, ...]]] = {
    "PULSEGATE_HUB": ("hub",),
    "PULSEGATE_SUBJECT": ("subject",),
    "PULSEGATE_DATA": ("data",),
    "PULSEGATE_RADIO": ("radio",),
    "PULSEGATE_CLINIC_HOST": ("clinic", "host"),
    "PULSEGATE_CLINIC_PORT": ("clinic", "port"),
    "PULSEGATE_CLINIC_REGISTRATION": ("clinic", "registration"),
    "PULSEGATE_CLINIC_IDENTITY": ("clinic", "identity"),
    "PULSEGATE_CLINIC_REGION": ("clinic", "region"),
}
"""Environment variables and the TOML key that each overrides."""


class SettingsError(ValueError):
    """A setting is missing, unknown or not allowed. The message names the file, the key, the value and what is allowed."""


class RegionSettingsError(SettingsError):
    """The region of an endpoint is not allowed, which the audit log in the folder `data` of this hub must say."""

    def __init__(self, message: str, endpoint: str, hub: str, data: Path) -> None:
        super().__init__(message)
        self.endpoint, self.hub, self.data = endpoint, hub, data


@dataclass(frozen=True, slots=True)
class SensorSettings:
    """One sensor, identified by its address or by the start of its advertised name.

    `is_broadcast` says that its values come in its advertisements, so that the hub only listens. `user` is its number of this
    patient; None: it has none, or it is not known. `consent_code_file` holds the secret code that the sensor asks for.
    """

    name: str
    address: str | None = None
    advertised_name: str | None = None
    is_broadcast: bool = False
    user: int | None = None
    consent_code_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ClinicSettings:
    """The clinic's broker, and the file that says which clinic this hub trusts (`sync.registration`)."""

    broker: Endpoint
    registration: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the agent."""

    hub: str
    subject: str
    data: Path
    radio: str
    clinic: ClinicSettings
    sensors: tuple[SensorSettings, ...]
    limits: Limits
    fallback_radios: tuple[str, ...] = ()
    """The radios that are used, in this order, while `radio` is gone."""
    upload: UploadPolicy = DEFAULT_UPLOAD
    """Which waveforms of the subject are sent; the others stay on the hub for the retention time."""
    endpoints: tuple[ListedEndpoint, ...] = ()
    """Servers beside the clinic's that this hub may connect to."""
    contexts: Contexts = NO_CONTEXTS
    """What is known of the subject's heart."""

    @property
    def radios(self) -> tuple[str, ...]:
        """All radios, in order of preference."""
        return self.radio, *self.fallback_radios


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """Read the settings file and apply the overrides of the environment.

    Relative paths are relative to the file's folder.

    Raises:
        SettingsError: the file cannot be read, or a setting is missing, unknown or not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"cannot read the settings {path}: {error.strerror}; give the path of an existing file with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read the settings {path}: not valid UTF-8 ({error}); correct the file") from error
    return parse_settings(text, path, environment)


def parse_settings(text: str, path: Path, environment: Mapping[str, str]) -> Settings:
    """Parse the text of the settings file `path`, which need not exist, and apply the overrides of the environment.

    Raises:
        SettingsError: a setting is missing, unknown or not allowed.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"cannot read the settings {path}: not valid TOML ({error}); correct the file") from error
    return _SettingsParser(path, _apply_environment(table, environment)).parse()


def _apply_environment(table: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    for variable, (*parents, key) in ENVIRONMENT_OVERRIDES.items():
        target: Any = table
        for parent in parents:
            target = target.setdefault(parent, {}) if variable in environment else {}
        if variable in environment and isinstance(
            target, dict
        ):  # otherwise the file has a wrong type here; the parser reports it
            value = environment[variable]
            port = parse_port(value) if key == "port" else None
            target[key] = value if port is None else port
    return table


class _SettingsParser:
    """Checks the keys of a TOML table and converts it to `Settings`."""

    def __init__(self, path: Path, table: dict[str, Any]) -> None:
        self._path, self._table = path, table

    def parse(self) -> Settings:
        known = {"hub", "subject", "data", "radio", "upload", "clinic", "sensor", "limits", "contexts", "endpoint"}
        self._reject_unknown_keys(self._table, "", known)
        clinic = self._require(self._table, "", "clinic", dict, "a [clinic] table")
        self._reject_unknown_keys(clinic, "clinic.", {"host", "port", "registration", "identity", "region"})
        radio, *fallback_radios = self._parse_radios()
        return Settings(
            hub=self._parse_identifier(self._table, "", "hub"),
            subject=self._parse_identifier(self._table, "", "subject"),
            data=self._parse_path(self._table, "", "data"),
            radio=radio,
            fallback_radios=tuple(fallback_radios),
            clinic=ClinicSettings(self._parse_broker(clinic), self._parse_path(clinic, "clinic.", "registration")),
            sensors=self._parse_sensors(),
            limits=self._parse_limits(),
            upload=self._parse_upload(),
            endpoints=self._check_endpoint("", lambda: parse_listed(self._table.get("endpoint", []))),
            contexts=self._parse_contexts(),
        )

    def _error(self, key: str, value: object, allowed: str) -> SettingsError:
        problem = "is missing" if value is None else f"= {value!r} is not allowed"
        return SettingsError(f"{self._path}: {key} {problem}: set it to {allowed}")

    def _reject_unknown_keys(self, table: Mapping[str, Any], prefix: str, known: set[str]) -> None:
        for key in table:
            if key not in known:
                raise SettingsError(f"{self._path}: unknown setting {prefix}{key}: use one of {', '.join(sorted(known))}")

    def _require(self, table: Mapping[str, Any], prefix: str, key: str, type_: type, allowed: str) -> Any:
        value = table.get(key)
        if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
            raise self._error(prefix + key, value, allowed)
        return value

    def _parse_identifier(self, table: Mapping[str, Any], prefix: str, key: str) -> str:
        allowed = "a name of 1 to 64 letters, digits, - and _"
        value: str = self._require(table, prefix, key, str, allowed)
        if not IDENTIFIER.fullmatch(value):
            raise self._error(prefix + key, value, allowed)
        return value

    def _parse_path(self, table: Mapping[str, Any], prefix: str, key: str) -> Path:
        return self._path.parent / Path(self._require(table, prefix, key, str, "a path")).expanduser()

    def _parse_radios(self) -> list[str]:
        """One radio, or a list of different ones in order of preference."""
        allowed = '"bluetooth", "bluetooth:hci1" or "virtual:SOCKET", or a list of such names'
        value = self._table.get("radio")
        radios: list[Any] = value if isinstance(value, list) else [value]
        is_allowed = all(isinstance(radio, str) and RADIO.fullmatch(radio) for radio in radios)
        if not radios or not is_allowed or len(set(radios)) < len(radios):
            raise self._error("radio", value, allowed)
        return radios

    def _parse_upload(self) -> UploadPolicy:
        value = self._table.get("upload", DEFAULT_UPLOAD)
        for policy in UPLOAD_POLICIES:
            if policy == value:
                return policy
        raise self._error("upload", value, '"all", "evidence" or "none"')

    def _parse_broker(self, clinic: Mapping[str, Any]) -> Endpoint:
        identity = self._parse_path(clinic, "clinic.", "identity") if "identity" in clinic else None
        region = self._require(clinic, "clinic.", "region", str, ALLOWED_REGION) if "region" in clinic else None
        host: str = self._require(clinic, "clinic.", "host", str, ALLOWED_TLS_HOST if identity else ALLOWED_HOST)
        port: int = self._require(clinic, "clinic.", "port", int, ALLOWED_PORT)
        return self._check_endpoint("clinic.", lambda: Endpoint(host, port, identity, region))

    def _check_endpoint(self, prefix: str, make: Callable[[], T]) -> T:
        try:
            return make()
        except RegionError as error:
            hub, data = self._parse_identifier(self._table, "", "hub"), self._parse_path(self._table, "", "data")
            raise RegionSettingsError(f"{self._path}: {prefix}{error}", error.endpoint, hub, data) from error
        except EndpointError as error:
            raise SettingsError(f"{self._path}: {prefix}{error}") from error

    def _parse_sensors(self) -> tuple[SensorSettings, ...]:
        allowed = "at least one [[sensor]] table, each with a unique name"
        tables = self._require(self._table, "", "sensor", list, allowed)
        sensors = tuple(self._parse_sensor(f"sensor[{index}]", table) for index, table in enumerate(tables))
        names = [sensor.name for sensor in sensors]
        if not names or len(set(names)) != len(names):
            raise self._error("sensor", names, allowed)
        return sensors

    def _parse_sensor(self, key: str, table: Any) -> SensorSettings:
        if not isinstance(table, dict):
            raise self._error(key, table, "a [[sensor]] table")
        self._reject_unknown_keys(
            table, f"{key}.", {"name", "address", "advertised_name", "broadcast", "user", "consent_code_file"}
        )
        address, advertised = table.get("address"), table.get("advertised_name")
        if (address is None) == (advertised is None):
            count = "neither" if address is None else "both"
            raise SettingsError(f"{self._path}: {key} has {count} of address and advertised_name: set exactly one of them")
        if address is not None and not (isinstance(address, str) and ADDRESS.fullmatch(address.upper())):
            raise self._error(f"{key}.address", address, "a Bluetooth address such as A0:9E:1A:00:00:01")
        if advertised is not None and not (isinstance(advertised, str) and advertised):
            raise self._error(f"{key}.advertised_name", advertised, "the start of the name that the sensor advertises")
        is_broadcast = table.get("broadcast", False)
        if not isinstance(is_broadcast, bool):
            raise self._error(f"{key}.broadcast", is_broadcast, "true for a sensor that only advertises its values, or false")
        name = self._parse_identifier(table, f"{key}.", "name")
        return SensorSettings(name, address and address.upper(), advertised, is_broadcast, *self._parse_user(key, table))

    def _parse_user(self, key: str, table: Mapping[str, Any]) -> tuple[int | None, Path | None]:
        user, code_file = table.get("user"), None
        if user is not None and not (type(user) is int and 0 <= user <= MAX_USER):
            raise self._error(f"{key}.user", user, f"the sensor's number of this patient, 0 to {MAX_USER}")
        if "consent_code_file" in table:
            code_file = self._parse_path(table, f"{key}.", "consent_code_file")
            if user is None:
                raise self._error(f"{key}.user", user, "the sensor's number of this patient, because consent_code_file is set")
        return user, code_file

    def _parse_limits(self) -> Limits:
        table = self._table.get("limits", {})
        if not isinstance(table, dict):
            raise self._error("limits", table, "a [limits] table")
        for name, value in table.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._error(f"limits.{name}", value, "a number")
        try:
            return DEFAULT_LIMITS.with_values(table)
        except LimitError as error:
            raise SettingsError(f"{self._path}: {error}") from error

    def _parse_contexts(self) -> Contexts:
        table = self._table.get("contexts", {})
        if not isinstance(table, dict):
            raise self._error("contexts", table, "a [contexts] table")
        try:
            return make_contexts(table)
        except ContextError as error:
            raise SettingsError(f"{self._path}: {error}") from error

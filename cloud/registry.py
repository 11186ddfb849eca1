"""Which hubs the clinic trusts, and for which subject each may seal: one file a hub, written when it registers or enrols.

    folder/<hub>.toml:  device_key = "04…"  command_key = "…"
                        [[assignment]]  subject = "…"  from = 2026-11-30T08:00:00Z  to = …
                        [[former_key]]  key = "04…"  until = 2026-11-30T08:00:00Z

An assignment is ended, never overwritten: what a hub still holds of an earlier patient is accepted for the epochs of that time.
"""

import logging
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cloud.device_keys import CLOCK_TOLERANCE_S, DeviceKey
from cloud.errors import ClinicError
from config.files import replacing
from sync.recipients import RecipientPublicKey
from sync.signing import Use, VerifyingKey
from sync.wire import FORMAT, epoch_seconds, is_name

_MODE: Final = 0o640
"""Ingest and opener may run as users of their own: they read the files as members of the folder's group."""
CHECK_INTERVAL_S: Final = 1.0
"""How often the files are checked for changes: `register` takes effect within this time."""
_log: Final = logging.getLogger(__name__)
_HEADING: Final = (
    "# A hub that this clinic trusts, written by pulsegate-cloud. End an assignment with `to`; "
    "never delete it or a former key.\n"
)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A subject for which a hub may seal, from and until a time (seconds since 1970); `to_s` is None while it lasts."""

    subject: str
    from_s: int
    to_s: int | None = None

    def contains(self, time_s: int) -> bool:
        return self.from_s <= time_s and (self.to_s is None or time_s <= self.to_s + CLOCK_TOLERANCE_S)


@dataclass(frozen=True, slots=True)
class RegisteredHub:
    """A hub, the public key of its device, its assignments in the order of their time, and its device keys before.

    `command_key` is what commands to it are sealed for; None for a hub that was registered without.
    """

    hub: str
    device: VerifyingKey
    assignments: tuple[Assignment, ...]
    former_keys: tuple[DeviceKey, ...] = ()
    command_key: RecipientPublicKey | None = None

    @property
    def device_keys(self) -> tuple[DeviceKey, ...]:
        """The present device key, and the former ones."""
        return (DeviceKey(self.device), *self.former_keys)

    def with_device(self, device: VerifyingKey, from_s: int) -> "RegisteredHub":
        """Give the hub a device key from a time on. The one before is kept: it verifies what it signed until then."""
        if device == self.device:
            return self
        return replace(self, device=device, former_keys=(*self.former_keys, DeviceKey(self.device, from_s)))

    def assign(self, subject: str, from_s: int) -> "RegisteredHub":
        """Assign the hub to a subject; the assignment that lasts is ended.

        Raises:
            ClinicError: an assignment begins later.
        """
        last = self.assignments[-1] if self.assignments else None
        if last and last.subject == subject and last.to_s is None:
            return self
        if last and from_s < max(last.from_s, last.to_s or 0):
            raise ClinicError(f"cannot assign hub {self.hub} to {subject}: give a time --from after that of {last.subject}")
        ended = (*self.assignments[:-1], replace(last, to_s=from_s if last.to_s is None else last.to_s)) if last else ()
        return replace(self, assignments=(*ended, Assignment(subject, from_s)))

    def end_assignment(self, subject: str, to_s: int) -> "RegisteredHub":
        """End the assignment to a subject, if it lasts."""
        ended = (
            replace(one, to_s=max(one.from_s, to_s)) if one.subject == subject and one.to_s is None else one
            for one in self.assignments
        )
        return replace(self, assignments=tuple(ended))


class Registry:
    """The registered hubs, read again when their files change. One thread at a time may use it."""

    def __init__(self, folder: Path, clock_s: Callable[[], float]) -> None:
        """`clock_s` is monotonic: it says when to look for changed files again."""
        self._folder = folder
        self._clock_s = clock_s
        self._checked_at = -CHECK_INTERVAL_S
        self._read: dict[Path, tuple[tuple[int, int], RegisteredHub]] = {}
        self._refused: dict[Path, tuple[int, int]] = {}
        """The damaged versions that were reported."""
        self._is_first_reading = True
        self._hubs: dict[str, RegisteredHub] = {}

    def find(self, hub: str) -> RegisteredHub | None:
        """Return a hub's registration; None if it has none.

        Raises:
            ClinicError: a file is damaged at the first reading. Later a damaged file is logged, and the one before it holds.
        """
        if self._clock_s() - self._checked_at >= CHECK_INTERVAL_S:
            self._read_changes()
            self._checked_at = self._clock_s()
        return self._hubs.get(hub)

    def device_key(self, hub: str) -> VerifyingKey | None:
        """Return the public key of a hub's device, with which it signs now; None if the hub is not registered."""
        registered = self.find(hub)
        return registered.device if registered else None

    def device_keys(self, hub: str) -> tuple[DeviceKey, ...]:
        """Return the present and the former device keys of a hub; none if it is not registered."""
        registered = self.find(hub)
        return registered.device_keys if registered else ()

    def may_seal(self, hub: str, subject: str, epoch: int) -> bool:
        """Return whether a hub is assigned to a subject at the time that its epoch began."""
        return any(
            assignment.subject == subject and assignment.contains(epoch_seconds(epoch)) for assignment in self.assignments(hub)
        )

    def assignments(self, hub: str) -> tuple[Assignment, ...]:
        """Return a hub's assignments in the order of their time; none if it is not registered."""
        registered = self.find(hub)
        return registered.assignments if registered else ()

    def hubs(self) -> tuple[str, ...]:
        """Return the names of all registered hubs."""
        self.find("")
        return tuple(sorted(self._hubs))

    def _read_changes(self) -> None:
        found = {path: _version(path) for path in sorted(self._folder.glob("*.toml"))}
        read = {path: self._read[path] for path in self._read.keys() & found.keys()}
        for path, version in found.items():
            if version is not None and version != self._refused.get(path) and (path not in read or read[path][0] != version):
                try:
                    read[path] = version, load_hub(path)
                except ClinicError as error:
                    if self._is_first_reading:
                        raise
                    self._refused[path] = version
                    _log.error("%s; the clinic goes on with what it knew of this hub", error)
        self._read, self._is_first_reading = read, False
        self._hubs = {hub.hub: hub for _, hub in read.values()}


def end_assignments(folder: Path, subject: str, to_s: int) -> tuple[str, ...]:
    """End the assignments of all hubs to a subject; return the names of the hubs whose assignment lasted until now.

    Raises:
        ClinicError: a file is damaged, or cannot be written.
    """
    before = [load_hub(path) for path in sorted(folder.glob("*.toml"))]
    ended = [(hub, hub.end_assignment(subject, to_s)) for hub in before]
    changed = [after for hub, after in ended if after != hub]
    for hub in changed:
        save_hub(folder, hub)
    return tuple(hub.hub for hub in changed)


def hub_file(folder: Path, hub: str) -> Path:
    """Return the path of a hub's file."""
    return folder / f"{hub}.toml"


def load_hub(path: Path) -> RegisteredHub:
    """Read a hub's file.

    Raises:
        ClinicError: the file cannot be read, or is damaged.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ClinicError(
            f"cannot read the registration {path} ({reason}): correct the file or restore it from a backup"
        ) from error
    try:
        device = VerifyingKey.from_bytes(Use.DEVICE, bytes.fromhex(table["device_key"]))
        command = RecipientPublicKey.from_bytes(bytes.fromhex(table["command_key"])) if "command_key" in table else None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "device_key or command_key is not a public key in hexadecimal digits") from error
    if table.get("version") != FORMAT or not is_name(table.get("hub")) or hub_file(path.parent, table["hub"]) != path:
        raise _damaged(path, f"version is not {FORMAT}, or hub is not the name of the file")
    assignments = tuple(_parse_assignment(path, row) for row in _rows(path, table, "assignment"))
    former = tuple(_parse_former_key(path, row) for row in _rows(path, table, "former_key"))
    return RegisteredHub(table["hub"], device, assignments, former, command)


def save_hub(folder: Path, hub: RegisteredHub) -> None:
    """Write a hub's file, which replaces an earlier one.

    Raises:
        ClinicError: the file cannot be written.
    """
    lines = [f"version = {FORMAT}", f'hub = "{hub.hub}"', f'device_key = "{hub.device.to_bytes().hex()}"']
    lines += [f'command_key = "{hub.command_key.to_bytes().hex()}"'] if hub.command_key is not None else []
    for assignment in hub.assignments:
        lines += ["", "[[assignment]]", f'subject = "{assignment.subject}"', f"from = {format_time(assignment.from_s)}"]
        lines += [f"to = {format_time(assignment.to_s)}"] if assignment.to_s is not None else []
    for former in hub.former_keys:
        assert former.until_s is not None
        lines += ["", "[[former_key]]", f'key = "{former.key.to_bytes().hex()}"', f"until = {format_time(former.until_s)}"]
    path = hub_file(folder, hub.hub)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with replacing(path, durable=True, mode=_MODE) as draft:
            draft.write_text(_HEADING + "\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ClinicError(f"cannot write the registration {path} ({error.strerror}): check the folder and the disk") from error


def format_time(time_s: int) -> str:
    """Return a time as TOML and RFC 3339 write it, in UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version(path: Path) -> tuple[int, int] | None:
    """Return what changes when the file is replaced; None if it was deleted meanwhile."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def _rows(path: Path, table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = table.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _damaged(path, f"{name} is not a list of tables")
    return rows


def _parse_former_key(path: Path, row: dict[str, Any]) -> DeviceKey:
    until = row.get("until")
    try:
        key = VerifyingKey.from_bytes(Use.DEVICE, bytes.fromhex(row["key"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "a former key is not a public key in hexadecimal digits") from error
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise _damaged(path, "a former key needs the time of its end with a zone, such as 2026-11-30T08:00:00Z")
    return DeviceKey(key, int(until.timestamp()))


def _parse_assignment(path: Path, row: dict[str, Any]) -> Assignment:
    times: list[Any] = [row.get("from"), *([row["to"]] if "to" in row else [])]
    if not is_name(row.get("subject")) or not all(isinstance(time, datetime) and time.tzinfo for time in times):
        raise _damaged(path, "an assignment needs a subject, and times with a zone such as 2026-11-30T08:00:00Z")
    seconds = [int(time.timestamp()) for time in times]
    return Assignment(row["subject"], seconds[0], seconds[1] if len(seconds) > 1 else None)


def _damaged(path: Path, what: str) -> ClinicError:
    return ClinicError(f"the registration {path} is damaged: {what}; correct it or restore it from a backup")

"""Describes the keys of this hub for `pulsegate keys list`, without any secret. `docs/keys.md` names them all."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.settings import Settings
from gateway.audit_log import AUDIT_KEY_FILE
from gateway.enrolment.identity import IdentityError, SiteRecord
from gateway.hub_key import HUB_KEY_FILE, Place, find_place
from gateway.sealed_files import find_tls_key
from gateway.startup import COMMAND_KEY_FILE, DEVICE_KEY_FILE
from sync.key_files import is_sealed_file
from sync.outbox import read_keys
from sync.outbox.epochs import SECONDS_PER_DAY

_ERASED: Final = "pulsegate erase --everything"
_UNTIL_ENROLLED: Final = f"{_ERASED}, or a new enrolment with another one"


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key of this hub: its one purpose, where it lies, since when, and what ends it. Times are texts in UTC."""

    name: str
    purpose: str
    where: str
    since: str
    ends: str


def list_keys(settings: Settings) -> list[ListedKey]:
    """Return the keys that exist, those of the buffer last.

    Raises:
        PermanentError, TransientError: a file or the buffer cannot be read.
    """
    return [
        *_list_hub_key(settings.data),
        *_list_key_files(settings.data),
        *_list_tls_key(settings),
        *_list_data_keys(settings),
    ]


def _list_hub_key(data: Path) -> Iterator[ListedKey]:
    path = data / HUB_KEY_FILE
    if path.exists():
        place = find_place(path)
        where = f"{path}, in plain" if place == Place.FILE else f"{path}, sealed under a {place}"
        yield ListedKey("hub key", "seals what only this hub reads", where, _changed(path), _ERASED)


def _list_key_files(data: Path) -> Iterator[ListedKey]:
    described = {
        DEVICE_KEY_FILE: ("device key", "signs what this hub sends", _UNTIL_ENROLLED),
        COMMAND_KEY_FILE: ("command key", "opens commands of the clinic", _UNTIL_ENROLLED),
        AUDIT_KEY_FILE: ("audit key", "signs the heads of this hub's audit log", _ERASED),
    }
    for file, (name, purpose, ends) in described.items():
        path = data / file
        if path.exists():
            form = "sealed with the hub key" if is_sealed_file(path) else "in plain"
            yield ListedKey(name, purpose, f"{path}, {form}", _changed(path), ends)


def _list_tls_key(settings: Settings) -> Iterator[ListedKey]:
    path = find_tls_key(settings)
    if path is not None:
        form = "sealed with the hub key" if b"ENCRYPTED" in path.read_bytes()[:64] else "in plain"
        ends = "with its certificate"
        with contextlib.suppress(IdentityError):
            ends = f"with its certificate, {_format(SiteRecord.load(path.parent).until_s)}"
        yield ListedKey("TLS key", "proves who this hub is on its connections", f"{path}, {form}", _changed(path), ends)


def _list_data_keys(settings: Settings) -> Iterator[ListedKey]:
    path = settings.data / "buffer.db"
    if path.exists():
        for key in read_keys(path):
            name, purpose = f"data key {key.id.hex()}", f"encrypts blocks of {key.subject}"
            where = f"{path}, " + ("destroyed" if key.is_erased else "sealed with the hub key")
            since = _format(key.day * SECONDS_PER_DAY)
            yield ListedKey(name, purpose, where, since, "with the last block that it opens, after its day")


def _changed(path: Path) -> str:
    return _format(path.stat().st_mtime)


def _format(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")

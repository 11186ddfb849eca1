"""Everything that the clinic holds of one subject, as files that people and programs can read (GDPR, Articles 15 and 20).

    DIR/manifest.json    what is in the folder, and whether it is complete; written last
        records.jsonl    each opened record, a waveform with all its samples: value in the unit of its kind = sample × scale
        unopened.jsonl   blocks that could not be opened, or were kept aside, and why
        alerts.jsonl     each alert as the page shows it
        …                registrations, commands, consents with their texts, legal holds, and the audit log's rows

A year does not fit into memory: blocks are read by the page, and lines are written as they come.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, select

from cloud import tables
from cloud.block_reader import BlockReader, UnreadableError
from cloud.cli_commands import command_as_json
from cloud.cli_consent import change_as_json
from cloud.errors import ClinicError
from cloud.export import PAGE_BLOCKS, record_as_json
from cloud.registry import Registry, format_time
from cloud.site_name import SITE
from cloud.store import Store
from cloud.store import tables as store_tables
from cloud.store.audit import read_rows
from cloud.store.commands import list_commands
from cloud.store.consents import list_changes, read_text
from cloud.store.holds import list_holds
from cloud.store.stored_blocks import StoredBlock
from config.files import sync_path
from config.version import VERSION
from sync.audit import read_row
from sync.audit_text import row_as_json
from sync.packing import unpack_samples

FORM: Final = 1
"""Version of the form of the files."""
MANIFEST: Final = "manifest.json"
Json = dict[str, Any]


@dataclass(slots=True)
class Written:
    """What was written of a file."""

    lines: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(slots=True)
class Manifest:
    """What an export contains. `unopened` counts blocks by why they were not opened; kept aside ones are not in `blocks`."""

    subject: str
    exported: str
    form: int = FORM
    site: str = SITE
    version: str = VERSION
    blocks: int = 0
    opened: int = 0
    records: Counter[str] = field(default_factory=Counter)
    unopened: Counter[str] = field(default_factory=Counter)
    kept_aside: int = 0
    files: dict[str, Written] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every block that the clinic holds of the subject was opened."""
        return not self.unopened and not self.kept_aside

    def as_json(self) -> Json:
        """Return the content of the manifest."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {
            "is_complete": self.is_complete,
            "files": {name: asdict(written) for name, written in self.files.items()},
        }


@dataclass(frozen=True, slots=True)
class Sources:
    """What an export reads."""

    store: Store
    projections: Engine
    registry: Registry
    reader: BlockReader


def export_subject(sources: Sources, subject: str, folder: Path, now_us: int) -> Manifest:
    """Write the files to a new folder that only its owner may read.

    Raises:
        ClinicError: a file cannot be written, or the folder exists.
        TransientError, PermanentError: a database failed. The folder then has no manifest.
    """
    now_s = now_us // 1_000_000
    manifest = Manifest(subject, format_time(now_s))
    try:
        folder.mkdir(mode=0o700, parents=True)
        manifest.files["records.jsonl"], manifest.files["unopened.jsonl"] = _write_records(sources, folder, manifest)
        for name, lines in _other_files(sources, subject, now_s).items():
            manifest.files[name] = _write_lines(folder / name, lines)
        text = json.dumps(manifest.as_json(), indent=1)
        _write_lines(folder / MANIFEST, [text])
        sync_path(folder)
    except OSError as error:
        raise ClinicError(f"cannot write the export to {folder} ({error.strerror}): give a new folder with room") from error
    return manifest


class _LineFile:
    """A new file that only its owner may read. Its lines are counted and hashed."""

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._digest = hashlib.sha256()
        self.written = Written()

    def write(self, line: str) -> None:
        data = line.encode() + b"\n"
        self._file.write(data)
        self._digest.update(data)
        self.written.lines += 1
        self.written.bytes += len(data)

    def __enter__(self) -> "_LineFile":
        return self

    def __exit__(self, *_error: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self.written.sha256 = self._digest.hexdigest()


def _write_lines(path: Path, lines: Iterable[str]) -> Written:
    with _LineFile(path) as file:
        for line in lines:
            file.write(line)
    return file.written


def _write_records(sources: Sources, folder: Path, manifest: Manifest) -> tuple[Written, Written]:
    with _LineFile(folder / "records.jsonl") as records, _LineFile(folder / "unopened.jsonl") as unopened:
        for block in _blocks_of(sources.store, manifest.subject):
            manifest.blocks += 1
            try:
                opened = sources.reader.read(block)
            except UnreadableError as error:
                manifest.unopened[error.reason] += 1
                row = {"hub": block.hub, **block.position._asdict(), "received": format_time(block.received_us // 1_000_000)}
                unopened.write(_dump(row | {"reason": error.reason, "detail": str(error)}))
                continue
            manifest.opened += 1
            for record in opened.records:
                row = record_as_json(block.hub, block.position, record, with_samples=True)
                manifest.records[row["type"]] += 1
                records.write(_dump(row | {"received_us": block.received_us, "is_proven": opened.is_proven}))
        for row in _kept_aside(sources.store, manifest.subject):
            manifest.kept_aside += 1
            unopened.write(_dump(row))
    return records.written, unopened.written


def _blocks_of(store: Store, subject: str) -> Iterator[StoredBlock]:
    last = None
    while page := store.blocks_after(last, PAGE_BLOCKS, subject=subject):
        yield from page
        last = page[-1].id


def _kept_aside(store: Store, subject: str) -> Iterator[Json]:
    quarantine = store_tables.quarantine.c
    columns = (quarantine.hub, quarantine.lane, quarantine.epoch, quarantine.seq, quarantine.reason, quarantine.received_us)
    with store.transaction() as connection:
        for row in connection.execute(select(*columns).where(quarantine.subject == subject).order_by(quarantine.id)):
            hub, lane, epoch, seq, reason, received_us = row
            position = {"hub": hub, "lane": lane, "epoch": epoch, "seq": seq}
            yield position | {"received": format_time(received_us // 1_000_000), "reason": "kept aside", "detail": reason}


def _other_files(sources: Sources, subject: str, now_s: int) -> Mapping[str, Iterator[str]]:
    return {
        "registrations.jsonl": map(_dump, _registrations(sources.registry, subject)),
        "consents.jsonl": map(_dump, _consents(sources.store, subject)),
        "holds.jsonl": map(_dump, _holds(sources.store, subject)),
        "commands.jsonl": map(_dump, _commands(sources.store, subject, now_s)),
        "alerts.jsonl": map(_dump, _alerts(sources.projections, subject)),
        "alert_requests.jsonl": map(_dump, _alert_requests(sources.projections, subject)),
        "audit.jsonl": map(_dump, _audit_rows(sources.store, subject)),
    }


def _registrations(registry: Registry, subject: str) -> Iterator[Json]:
    for hub in registry.hubs():
        for found in registry.assignments(hub):
            if found.subject == subject:
                to = None if found.to_s is None else format_time(found.to_s)
                yield {"hub": hub, "from": format_time(found.from_s), "to": to}


def _consents(store: Store, subject: str) -> Iterator[Json]:
    with store.transaction() as connection:
        for change in list_changes(connection, subject):
            yield change_as_json(change, None if change.text is None else read_text(connection, change.text))


def _holds(store: Store, subject: str) -> Iterator[Json]:
    with store.transaction() as connection:
        for hold in list_holds(connection):
            if hold.subject == subject:
                yield {"since": format_time(hold.at_us // 1_000_000), "by": hold.actor, "reason": hold.reason}


def _commands(store: Store, subject: str, now_s: int) -> Iterator[Json]:
    with store.transaction() as connection:
        commands = [command for command in list_commands(connection) if command.subject == subject]
    return (command_as_json(command, now_s) for command in commands)


def _alerts(projections: Engine, subject: str) -> Iterator[Json]:
    with projections.connect() as connection:
        alerts = connection.execution_options(yield_per=PAGE_BLOCKS).execute(
            select(tables.alerts).where(tables.alerts.c.subject == subject).order_by(tables.alerts.c.raised_us)
        )
        for row in alerts.mappings():
            samples = row["strip_samples"]
            parsed = {name: json.loads(row[name]) for name in _JSON_COLUMNS if row[name] is not None}
            yield dict(row) | parsed | {"strip_samples": None if samples is None else unpack_samples(samples).tolist()}


def _alert_requests(projections: Engine, subject: str) -> Iterator[Json]:
    """Who closed an alert, or marked it as false."""
    requests = tables.alert_requests
    with projections.connect() as connection:
        for row in connection.execute(select(requests).where(requests.c.subject == subject).order_by("asked_us")).mappings():
            yield dict(row)


_JSON_COLUMNS: Final = ("reasons", "measured", "strip_beats_us")


def _audit_rows(store: Store, subject: str) -> Iterator[Json]:
    """Who saw or changed something of the subject: the export itself is the last row."""
    with store.snapshot() as connection:
        for number, encoded in read_rows(connection, subject=subject):
            yield row_as_json(read_row(number, encoded))


def _dump(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"), allow_nan=False)

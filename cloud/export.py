"""Exports every record of a clinic as JSON lines, and finds duplicate and missing blocks."""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.block_reader import BlockReader, UnreadableError, is_format_1
from cloud.completeness import Completeness, SequenceId, read_completeness
from cloud.store import Store
from cloud.store.stored_blocks import StoreCounts, StoredBlock, StoredBlockId
from sync.format_1 import blocks as format_1
from sync.records import Record, WaveformRecord, type_name
from sync.seal import SealError, parse_header
from sync.wire import ON_REQUEST_LANE, BlockId

Json = dict[str, Any]

PAGE_BLOCKS: Final = 256
"""Blocks read at once: at most 16 MiB."""
MAX_RANGES_LISTED: Final = 1000
"""Ranges of missing blocks that the totals list, and as many of dropped ones; `missing_blocks` counts all missing blocks."""


@dataclass(slots=True)
class ExportTotals:
    """The totals of an export, by which duplicate and missing blocks are found.

    `unproven` counts the opened blocks of format 1, whose origin is not proven. `completeness` says which blocks are held and
    which are missing. `rejected` counts what was not stored: conflicts are quarantined blocks whose position another block has,
    key conflicts are statements and wrapped keys kept aside.
    `waveforms` are (hub, sensor, kind, start, number of samples) of the waveforms seen.
    """

    blocks: int = 0
    records: int = 0
    unproven: int = 0
    duplicate_blocks: int = 0
    duplicate_waveforms: int = 0
    unopened: Counter[str] = field(default_factory=Counter)
    rejected: StoreCounts = field(default_factory=StoreCounts)
    first_problem: str = ""
    completeness: Completeness = field(default_factory=Completeness)
    waveforms: set[tuple[str, str, str, int, int]] = field(default_factory=set)

    def problems(self) -> list[str]:
        """Return what a person must look at, as clauses of one line."""
        found = []
        if n := self.unopened.total():
            found.append(f"{n} of {self.blocks} blocks could not be opened, the first because {self.first_problem}")
        rejected = self.rejected
        if rejected.conflicts or rejected.key_conflicts:
            found.append(
                f"{rejected.conflicts} blocks and {rejected.key_conflicts} data keys came in place of stored ones, and "
                "are kept aside: check whether two machines use one hub's name, or a hub's buffer was restored from a backup"
            )
        if rejected.copied_hubs:
            found.append(
                f"{rejected.copied_hubs} times a hub seemed to run on two machines: see the log, and register each machine as "
                "a hub of its own"
            )
        return found

    def as_json(self) -> Json:
        """Return the last line of an export."""
        missing, rejected = self.completeness.missing(), self.rejected
        return {
            "type": "account",
            "blocks": self.blocks,
            "records": self.records,
            "unproven_blocks": self.unproven,
            "duplicate_blocks": self.duplicate_blocks,
            "duplicate_waveforms": self.duplicate_waveforms,
            "missing_blocks": sum(gap.last - gap.first + 1 for gap in missing),
            "missing": [gap._asdict() for gap in missing[:MAX_RANGES_LISTED]],
            "dropped": [lost._asdict() for lost in self.completeness.lost()[:MAX_RANGES_LISTED]],
            "unopened": dict(self.unopened),
            "quarantined": rejected.quarantined,
            "conflicts": rejected.conflicts,
            "key_conflicts": rejected.key_conflicts,
            "rejected_messages": rejected.rejected_messages,
            "copied_hubs": rejected.copied_hubs,
        }


def export_records(store: Store, reader: BlockReader, totals: ExportTotals) -> Iterator[Json]:
    """Yield every record, by hub, epoch, lane and sequence number of its block, and with them; updates `totals`.

    A block that cannot be read is counted in `totals.unopened` and skipped.
    """
    totals.rejected = store.counts()
    with store.transaction() as connection:
        totals.completeness = read_completeness(connection)
    for block in _all_blocks(store):
        _add_block(totals, block)
        try:
            opened = reader.read(block)
        except UnreadableError as error:
            totals.unopened[error.reason] += 1
            totals.first_problem = totals.first_problem or str(error)
            continue
        totals.unproven += not opened.is_proven
        for record in opened.records:
            totals.records += 1
            _add_waveform(totals, block.hub, record)
            yield record_as_json(block.hub, block.position, record) | ({} if opened.is_proven else {"is_proven": False})


def record_as_json(hub: str, position: BlockId, record: Record, *, with_samples: bool = False) -> Json:
    """Return one line: samples as their number and CRC-32 (of little-endian int32), bytes in hexadecimal.

    `with_samples` adds the samples themselves.
    """
    return {"type": type_name(record), "hub": hub, **position._asdict(), **_fields_as_json(record, with_samples=with_samples)}


def samples_crc32(samples: NDArray[np.int32]) -> int:
    """Return the CRC-32 (zlib) of the samples as little-endian int32."""
    return zlib.crc32(samples.astype("<i4").tobytes())


def _all_blocks(store: Store) -> Iterator[StoredBlock]:
    last: StoredBlockId | None = None
    while page := store.blocks_after(last, PAGE_BLOCKS):
        yield from page
        last = page[-1].id


def _add_block(totals: ExportTotals, block: StoredBlock) -> None:
    lane, epoch, seq = block.position
    held = totals.completeness.held[SequenceId(block.hub, lane, epoch)]
    totals.blocks += 1
    totals.duplicate_blocks += seq in held
    held.add(seq)
    try:
        previous = (format_1.parse_header if is_format_1(block) else parse_header)(block.block).prev
    except SealError:
        return  # the block cannot be opened either, so `export_records` counts it as unopened
    if previous is not None and lane != ON_REQUEST_LANE:
        totals.completeness.add_end(SequenceId(block.hub, lane, previous[0]), previous[1])


def _add_waveform(totals: ExportTotals, hub: str, record: Record) -> None:
    if not isinstance(record, WaveformRecord):
        return
    start = record.times.sensor_ns if record.times.sensor_ns is not None else record.times.at_us
    waveform = hub, record.sensor, record.kind, start, len(record.samples)
    totals.duplicate_waveforms += waveform in totals.waveforms
    totals.waveforms.add(waveform)


def _fields_as_json(value: Any, *, with_samples: bool) -> Json:
    row: Json = {}
    for part in fields(value):
        match getattr(value, part.name):
            case np.ndarray() as samples:
                row |= {"n": len(samples), "samples_crc32": samples_crc32(samples)}
                row |= {"samples": samples.tolist()} if with_samples else {}
            case bytes() as payload:
                row[part.name] = payload.hex()
            case inner if is_dataclass(inner) and part.name == "times":
                row |= _fields_as_json(inner, with_samples=with_samples)
            case inner if is_dataclass(inner):
                row[part.name] = _fields_as_json(inner, with_samples=with_samples)
            case plain:
                row[part.name] = plain
    return row

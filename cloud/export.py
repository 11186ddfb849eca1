"""Exports every record of a clinic as JSON lines, and finds duplicate and missing blocks."""

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.block_reader import BlockReader, UnreadableError, is_format_1
from cloud.store import Store
from cloud.stored_blocks import StoredBlock, StoredBlockId
from sync.format_1 import blocks as format_1
from sync.records import Record, WaveformRecord, type_name
from sync.seal import SealError, parse_header
from sync.wire import BlockId

Json = dict[str, Any]

PAGE_BLOCKS: Final = 256
"""Blocks read at once: at most 16 MiB."""
MAX_MISSING_LISTED: Final = 1000
"""Missing blocks that the totals list one by one; `missing_blocks` counts all of them."""


@dataclass(slots=True)
class ExportTotals:
    """The totals of an export, by which duplicate and missing blocks are found.

    Per sequence (hub, lane, epoch), `held` are the sequence numbers held and `ends` is the highest known number.
    `unproven` counts the opened blocks of format 1, whose origin is not proven. `conflicts` are the quarantined blocks whose
    position another block has, `key_conflicts` the wrapped keys kept aside.
    `waveforms` are (hub, sensor, kind, start, number of samples) of the waveforms seen.
    """

    blocks: int = 0
    records: int = 0
    unproven: int = 0
    duplicate_blocks: int = 0
    duplicate_waveforms: int = 0
    unopened: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    conflicts: int = 0
    key_conflicts: int = 0
    first_problem: str = ""
    held: dict[tuple[str, str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    ends: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    waveforms: set[tuple[str, str, str, int, int]] = field(default_factory=set)

    def missing(self) -> list[tuple[str, str, int, int]]:
        """Return (hub, lane, epoch, seq) of every missing block, in order.

        The end of a sequence is its highest number held, or the end that the first block of the next epoch names.
        """
        sequences = self.held.keys() | self.ends.keys()
        ends = {sequence: max(self.ends[sequence], max(self.held[sequence], default=0)) for sequence in sequences}
        return [
            (*sequence, seq)
            for sequence, end in sorted(ends.items())
            for seq in range(1, end + 1)
            if seq not in self.held[sequence]
        ]

    def problems(self) -> list[str]:
        """Return what a person must look at, as clauses of one line."""
        found = []
        if n := self.unopened.total():
            found.append(f"{n} of {self.blocks} blocks could not be opened, the first because {self.first_problem}")
        if self.conflicts or self.key_conflicts:
            found.append(
                f"{self.conflicts} blocks and {self.key_conflicts} wrapped keys came in place of others that are stored and "
                "are kept aside: check whether two machines use one hub's name, or a hub's buffer was restored from a backup"
            )
        return found

    def as_json(self) -> Json:
        """Return the last line of an export."""
        missing = self.missing()
        return {
            "type": "account",
            "blocks": self.blocks,
            "records": self.records,
            "unproven_blocks": self.unproven,
            "duplicate_blocks": self.duplicate_blocks,
            "duplicate_waveforms": self.duplicate_waveforms,
            "missing_blocks": len(missing),
            "missing": [
                dict(zip(("hub", "lane", "epoch", "seq"), block, strict=True)) for block in missing[:MAX_MISSING_LISTED]
            ],
            "unopened": dict(self.unopened),
            "quarantined": self.quarantined,
            "conflicts": self.conflicts,
            "key_conflicts": self.key_conflicts,
        }


def export_records(store: Store, reader: BlockReader, totals: ExportTotals) -> Iterator[Json]:
    """Yield every record, by hub, epoch, lane and sequence number of its block, and with them; updates `totals`.

    A block that cannot be read is counted in `totals.unopened` and skipped.
    """
    counts = store.counts()
    totals.quarantined, totals.conflicts, totals.key_conflicts = counts.quarantined, counts.conflicts, counts.key_conflicts
    for rejected in store.list_quarantined():
        if rejected.position is not None:  # kept in quarantine, so it is not missing
            lane, epoch, seq = rejected.position
            totals.held[rejected.hub, lane, epoch].add(seq)
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


def record_as_json(hub: str, position: BlockId, record: Record) -> Json:
    """Return one line: samples as their number and CRC-32 (of little-endian int32), bytes in hexadecimal."""
    return {"type": type_name(record), "hub": hub, **position._asdict(), **_fields_as_json(record)}


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
    held = totals.held[block.hub, lane, epoch]
    totals.blocks += 1
    totals.duplicate_blocks += seq in held
    held.add(seq)
    try:
        previous = (format_1.parse_header if is_format_1(block) else parse_header)(block.block).prev
    except SealError:
        return  # the block cannot be opened either, so `export_records` counts it as unopened
    if previous is not None:
        sequence = block.hub, lane, previous[0]
        totals.ends[sequence] = max(totals.ends[sequence], previous[1])


def _add_waveform(totals: ExportTotals, hub: str, record: Record) -> None:
    if not isinstance(record, WaveformRecord):
        return
    start = record.times.sensor_ns if record.times.sensor_ns is not None else record.times.at_us
    waveform = hub, record.sensor, record.kind, start, len(record.samples)
    totals.duplicate_waveforms += waveform in totals.waveforms
    totals.waveforms.add(waveform)


def _fields_as_json(value: Any) -> Json:
    row: Json = {}
    for part in fields(value):
        match getattr(value, part.name):
            case np.ndarray() as samples:
                row |= {"n": len(samples), "samples_crc32": samples_crc32(samples)}
            case bytes() as payload:
                row[part.name] = payload.hex()
            case inner if is_dataclass(inner) and part.name == "times":
                row |= _fields_as_json(inner)
            case inner if is_dataclass(inner):
                row[part.name] = _fields_as_json(inner)
            case plain:
                row[part.name] = plain
    return row

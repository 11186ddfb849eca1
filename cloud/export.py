"""Every record of a clinic as JSON lines, and an account of what is there twice or not at all: for audits and export."""

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.opener import BlockReader, UnreadableError
from cloud.store import Store, StoredBlock
from sync.records import Record, WaveformRecord, type_name
from sync.seal import SealError, parse_header
from sync.wire import BlockId

Json = dict[str, Any]

PAGE: Final = 256
"""Blocks read at once: at most 16 MiB."""
MISSING_LISTED: Final = 1000
"""Missing sequence numbers that the account names one by one; it counts all."""


@dataclass(slots=True)
class Account:
    """What an export found. `missing` are blocks below the highest known number of their sequence."""

    blocks: int = 0
    records: int = 0
    duplicate_blocks: int = 0
    duplicate_waveforms: int = 0
    unopened: Counter[str] = field(default_factory=Counter)
    first_problem: str = ""
    held: dict[tuple[str, str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    ends: dict[tuple[str, str, int], int] = field(default_factory=lambda: defaultdict(int))
    waveforms: set[tuple[str, str, str, int, int]] = field(default_factory=set)

    def missing(self) -> list[tuple[str, str, int, int]]:
        """(hub, lane, epoch, seq) of every hole, in order. The next epoch, too, says where a sequence ended."""
        ends = {name: max(self.ends[name], max(self.held[name], default=0)) for name in self.held.keys() | self.ends.keys()}
        return [(*name, seq) for name, end in sorted(ends.items()) for seq in range(1, end + 1) if seq not in self.held[name]]

    def as_json(self) -> Json:
        """The last line of an export."""
        missing = self.missing()
        return {
            "type": "account",
            "blocks": self.blocks,
            "records": self.records,
            "duplicate_blocks": self.duplicate_blocks,
            "duplicate_waveforms": self.duplicate_waveforms,
            "missing_blocks": len(missing),
            "missing": [dict(zip(("hub", "lane", "epoch", "seq"), place, strict=True)) for place in missing[:MISSING_LISTED]],
            "unopened": dict(self.unopened),
        }


def export(store: Store, reader: BlockReader, account: Account) -> Iterator[Json]:
    """Every record in order of arrival, with the lane, epoch and sequence number of its block; fills in `account`.

    A block that cannot be read is counted in `account.unopened` and passed over.
    """
    for item in store.quarantined():
        if item.place is not None:  # held, though not as a block: no hole
            account.held[item.hub, item.place.lane, item.place.epoch].add(item.place.seq)
    for block in _all_blocks(store):
        _enter(account, block)
        try:
            records = reader.read(block)
        except UnreadableError as error:
            account.unopened[error.reason] += 1
            account.first_problem = account.first_problem or str(error)
            continue
        for record in records:
            account.records += 1
            _enter_waveform(account, block.hub, record)
            yield record_as_json(block.hub, block.place, record)


def record_as_json(hub: str, place: BlockId, record: Record) -> Json:
    """One line: samples as their number and CRC-32 (of little-endian int32), bytes in hexadecimal."""
    return {"type": type_name(record), "hub": hub, **place._asdict(), **_flat(record)}


def samples_crc32(samples: NDArray[np.int32]) -> int:
    """CRC-32 (zlib) over the samples as little-endian int32."""
    return zlib.crc32(samples.astype("<i4").tobytes())


def _all_blocks(store: Store) -> Iterator[StoredBlock]:
    last = 0
    while page := store.blocks_after(last, PAGE):
        yield from page
        last = page[-1].id


def _enter(account: Account, block: StoredBlock) -> None:
    lane, epoch, seq = block.place
    held = account.held[block.hub, lane, epoch]
    account.blocks += 1
    account.duplicate_blocks += seq in held
    held.add(seq)
    try:
        previous = parse_header(block.block).prev
    except SealError:
        return  # it cannot be opened either, and is counted there
    if previous is not None:
        name = block.hub, lane, previous[0]
        account.ends[name] = max(account.ends[name], previous[1])


def _enter_waveform(account: Account, hub: str, record: Record) -> None:
    if not isinstance(record, WaveformRecord):
        return
    start = record.times.sensor_ns if record.times.sensor_ns is not None else record.times.at_us
    name = hub, record.sensor, record.kind, start, len(record.samples)
    account.duplicate_waveforms += name in account.waveforms
    account.waveforms.add(name)


def _flat(value: Any) -> Json:
    row: Json = {}
    for part in fields(value):
        match getattr(value, part.name):
            case np.ndarray() as samples:
                row |= {"n": len(samples), "samples_crc32": samples_crc32(samples)}
            case bytes() as payload:
                row[part.name] = payload.hex()
            case inner if is_dataclass(inner) and part.name == "times":
                row |= _flat(inner)
            case inner if is_dataclass(inner):
                row[part.name] = _flat(inner)
            case plain:
                row[part.name] = plain
    return row

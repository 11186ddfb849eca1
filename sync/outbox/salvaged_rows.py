"""Finds the rows of a damaged buffer, except those of blocks, and checks what they claim.

A table is recognised by the types of its columns. Keys and states prove themselves, because they are sealed with the hub key.
The other rows are believed if their values are possible; `sync.outbox.salvage` compares sequences with the blocks.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sync.data_keys import DataKey, KeyStatement, sign_statement
from sync.keys import HubKeys
from sync.outbox.keys import local_purpose
from sync.outbox.pages import PageFile, RawRow
from sync.outbox.state import state_purpose
from sync.recipients import RecipientPublicKey
from sync.seal import SealError
from sync.signing import SignatureError
from sync.wire import DIGEST_BYTES, FINGERPRINT_BYTES, KEY_ID_BYTES, LANES, STORE_ID_BYTES, Lane, is_epoch, is_name

CHECK_VALUE_BYTES: Final = 16
SIGNATURE_BYTES: Final = 64


def blob_type(length: int) -> int:
    """The column type of a blob of so many bytes."""
    return 2 * length + 12


_SEQUENCE: Final = ("id", "lane", "epoch", "last", "chain", "mark", "open_from", "pending", "unopened", "released", "aside")
"""The columns of `sequences` that are used, in their order; four more follow."""
_SEQUENCE_COLUMNS: Final = len(_SEQUENCE) + 4


class SequenceRow(NamedTuple):
    """What the buffer knew of the blocks of a lane in an epoch; `blocks` is how many of them it had."""

    id: int
    lane: Lane
    epoch: int
    last: int
    chain: bytes
    mark: int
    open_from: int
    blocks: int


class KeyRow(NamedTuple):
    """A data key. `local` is empty if it was damaged: the key then seals nothing more, but the clinic can open its blocks."""

    number: int
    statement: KeyStatement
    local: bytes
    held: int


class DroppedRow(NamedTuple):
    """A range of blocks that the buffer had listed as lost."""

    sequence: int
    first: int
    last: int
    chain: bytes


class BufferRow(NamedTuple):
    """The row of the table `buffer`; `generation` is None if the row was not found."""

    epoch: int = 0
    previous: int | None = None
    generation: int | None = None
    store: bytes | None = None
    fence: int = 0
    commits: int = 0


@dataclass(slots=True)
class SalvagedRows:
    """All that was found except blocks."""

    buffer: BufferRow = field(default_factory=BufferRow)
    keys: dict[bytes, KeyRow] = field(default_factory=dict)
    wraps: list[tuple[int, bytes, bytes, int]] = field(default_factory=list)
    recipients: dict[str, bytes] = field(default_factory=dict)
    sequences: dict[int, SequenceRow] = field(default_factory=dict)
    dropped: list[DroppedRow] = field(default_factory=list)
    states: dict[tuple[str, str], bytes] = field(default_factory=dict)


def find_rows(pages: PageFile, hub: str, keys: HubKeys) -> SalvagedRows:
    """Read all pages, and return the rows that are not of blocks."""
    found = SalvagedRows()
    for row in pages.rows(_is_not_of_blocks):
        with contextlib.suppress(ValueError, SealError):
            _add(found, row, hub, keys)
    return found


def holds_key_of(pages: PageFile, hub: str, keys: HubKeys) -> bool:
    """Whether the file has a data key that this hub sealed and signed: then it is a buffer of this hub."""
    for row in pages.rows(_is_key):
        key = _read_key(row, keys)
        with contextlib.suppress(SignatureError):
            if key is not None and key.local:
                key.statement.verify(hub, keys.device.public)
                return True
    return False


def _is_key(types: Sequence[int]) -> bool:
    return len(types) == 8 and types[1] == blob_type(KEY_ID_BYTES) and types[4] == blob_type(DIGEST_BYTES)


def _is_not_of_blocks(types: Sequence[int]) -> bool:
    return len(types) != 7


def _add(found: SalvagedRows, row: RawRow, hub: str, keys: HubKeys) -> None:
    match row.values:
        case [None, bytes(), str(), int(), bytes(), bytes(), _, int()]:
            key = _read_key(row, keys)
            if key is not None:
                used = {other.number for id_, other in found.keys.items() if id_ != key.statement.id}
                number = key.number if key.number not in used else max(used) + 1
                found.keys[key.statement.id] = _with_signature(key._replace(number=number), hub, keys)
        case [int(key), bytes(recipient), bytes(wrapped), int(held)] if len(recipient) == FINGERPRINT_BYTES:
            found.wraps.append((key, recipient, wrapped, held))
        case [str(subject), bytes(public)] if is_name(subject):
            RecipientPublicKey.from_bytes(public)
            found.recipients[subject] = public
        case [None, str(), int(), int(), bytes(), *_] if len(row.values) == _SEQUENCE_COLUMNS:
            _add_sequence(found, row)
        case [int(sequence), int(first), int(last), bytes(chain)] if 1 <= first <= last and len(chain) == DIGEST_BYTES:
            found.dropped.append(DroppedRow(sequence, first, last, chain))
        case [str(subject), str(name), bytes(sealed)] if is_name(subject):
            keys.hub.open(sealed, state_purpose(subject, name))
            found.states[subject, name] = sealed
        case [str(), bytes(check), int(epoch), previous, int(), store, int(), int()] if len(check) == CHECK_VALUE_BYTES:
            _add_buffer(found, epoch, previous, store, row.values)
        case _:
            pass


def _read_key(row: RawRow, keys: HubKeys) -> KeyRow | None:
    """A key whose secret the hub can open, or whose statement is by this hub; None if the row is neither."""
    id_, subject, day, commitment, signature, local, held = row.values[1:]
    statement = KeyStatement(id_, commitment, subject, day, signature)
    if local is None or not is_name(subject):  # None: the key of an erased subject
        return None
    try:
        secret = keys.hub.open(local, local_purpose(id_))
        statement = statement._replace(commitment=DataKey(id_, secret).commitment)
    except SealError:
        local = b""
    return KeyRow(row.row_id, statement, local, held)


def _with_signature(key: KeyRow, hub: str, keys: HubKeys) -> KeyRow:
    """The key with a valid statement. The clinic accepts another signature of the same statement.

    Raises:
        SealError: neither the key nor its statement can be verified.
    """
    statement = key.statement
    try:
        statement.verify(hub, keys.device.public)
    except SignatureError as error:
        if not key.local:
            raise SealError("a data key is damaged beyond use") from error
        secret = keys.hub.open(key.local, local_purpose(statement.id))
        known = DataKey(statement.id, secret)
        statement = sign_statement(known, hub=hub, subject=statement.subject, day=statement.day, device=keys.device)
    return key._replace(statement=statement)


def _add_sequence(found: SalvagedRows, row: RawRow) -> None:
    """Keep the latest version of a sequence; of equal ones that which settles the fewest blocks."""
    id_, (_, lane, epoch, last, chain, mark, open_from, *counts) = row.row_id, row.values[: len(_SEQUENCE)]
    counts_are_possible = all(isinstance(count, int) and count >= 0 for count in counts)
    if lane not in LANES or not is_epoch(epoch) or len(chain) != DIGEST_BYTES or not counts_are_possible:
        return
    if not (0 <= mark <= last and 1 <= open_from <= last + 1):
        mark, open_from = 0, 1
    new = SequenceRow(id_, lane, epoch, last, chain, mark, open_from, sum(counts))
    known = found.sequences.get(id_)
    if known is None or (new.last, -new.mark, -new.open_from) > (known.last, -known.mark, -known.open_from):
        found.sequences[id_] = new


def _add_buffer(found: SalvagedRows, epoch: int, previous: Any, store: Any, values: Iterable[Any]) -> None:
    *_, generation, _, fence, commits = values
    if not (is_epoch(epoch) and generation >= 1 and fence >= 0 and commits >= 0):
        return
    is_store = isinstance(store, bytes) and len(store) == STORE_ID_BYTES
    row = BufferRow(epoch, previous if is_epoch(previous) else None, generation, store if is_store else None, fence, commits)
    if (row.epoch, row.commits) >= (found.buffer.epoch, found.buffer.commits):
        found.buffer = row

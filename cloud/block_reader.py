"""Opens stored blocks. It verifies each block for itself, whatever the receiving side checked, and opens nothing that fails.

    block ──▶ header is that of the stored id ──▶ key statement, signed by the registered hub, about the header's subject
          ──▶ assignment ──▶ wrapped key against the signed commitment ──▶ tag ──▶ records

Blocks of format 1 are only in stores of an earlier version. Nobody signed them, so their origin is not proven.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from cloud.device_keys import DeviceKey, is_signed
from cloud.errors import ClinicError
from cloud.key_store import KeyStore
from cloud.registry import Registry
from cloud.store import Store
from cloud.store.stored_blocks import StoredBlock, StoredBlockId
from cloud.validate import validate_record
from sync.data_keys import DataKey, DataKeyError, WrappedKey, unwrap_key
from sync.errors import PermanentError, TransientError
from sync.format_1 import blocks as format_1
from sync.format_1 import records as format_1_records
from sync.format_1.rewrapped_keys import unwrap_again
from sync.recipients import RecipientKeyPair
from sync.record_codec import decode_readable_records
from sync.records import Record, RecordError
from sync.seal import SealError, block_format, open_block, parse_header

CACHED_KEYS: Final = 4096
"""Data keys in memory, one per patient and day, unusable ones included: enough for a hundred patients for a month."""

NO_KEY: Final = "no key"
NOT_AUTHENTIC: Final = "not authentic"
NOT_ASSIGNED: Final = "not assigned"
DAMAGED: Final = "damaged"
UNDECODABLE: Final = "undecodable"
ERASED: Final = "erased"


class UnreadableError(Exception):
    """A block that is not opened; `reason` is one of this module's constants. The message holds no health value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OpenedBlock:
    """The subject and the records of a block. `is_proven`: a registered hub signed for its key, as from format 2 on."""

    subject: str
    records: list[Record]
    is_proven: bool


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """A data key, or why it cannot be used. `devices` are the hub's keys when it was verified; none for format 1."""

    devices: tuple[DeviceKey, ...]
    key: DataKey | UnreadableError


class _KeyId(NamedTuple):
    """A data key of a hub, as the header of a block of this subject and format names it."""

    is_format_1: bool
    hub: str
    id: bytes
    subject: str


class BlockReader:
    """Verifies, decrypts and decodes stored blocks. Caches data keys; `refresh` drops what may have changed."""

    def __init__(self, store: Store, registry: Registry, key_store: KeyStore) -> None:
        self._store = store
        self._registry = registry
        self._key_store = key_store
        self._keys: OrderedDict[_KeyId, _CachedKey] = OrderedDict()
        self._erased: frozenset[str] = frozenset()
        self.refresh()

    def refresh(self) -> None:
        """Read again which subjects were erased, and forget their keys and all failures. Call it before each batch.

        Raises:
            TransientError, PermanentError: the store cannot be read.
        """
        self._erased = self._store.erased_subjects() | self._key_store.erased()  # the store may be a backup from before
        for id_, cached in list(self._keys.items()):
            if isinstance(cached.key, UnreadableError) or id_.subject in self._erased:
                del self._keys[id_]

    def read(self, block: StoredBlock) -> OpenedBlock:
        """Return the records of a block.

        Raises:
            UnreadableError: it is not opened, and why.
            TransientError, PermanentError: the store cannot be read.
            KeyFileError, ClinicError: a key file or a hub's registration is damaged.
        """
        try:
            return self._read_format_1(block) if is_format_1(block) else self._read(block)
        except SealError as error:
            raise UnreadableError(DAMAGED, str(error)) from error
        except RecordError as error:
            # The message of a decode error may quote the plaintext, so it is not passed on.
            raise UnreadableError(UNDECODABLE, "its content is not a list of records that this version reads") from error
        except (UnreadableError, TransientError, PermanentError, ClinicError):
            raise
        except Exception as error:
            raise UnreadableError(UNDECODABLE, f"reading it failed: {type(error).__name__}") from error

    def _read(self, block: StoredBlock) -> OpenedBlock:
        header = parse_header(block.block)
        id_ = StoredBlockId(header.hub, header.epoch, header.lane, header.seq)
        key = self._data_key(block, id_, _KeyId(False, header.hub, header.key, header.subject))
        if not self._registry.may_seal(header.hub, header.subject, header.epoch):
            raise UnreadableError(NOT_ASSIGNED, "its hub was not assigned to its subject at that time")
        _, plaintext = open_block(block.block, key)
        return OpenedBlock(header.subject, decode_readable_records(plaintext, validate_record), is_proven=True)

    def _read_format_1(self, block: StoredBlock) -> OpenedBlock:
        header = format_1.parse_header(block.block)
        id_ = StoredBlockId(header.hub, header.epoch, header.lane, header.seq)
        key = self._data_key(block, id_, _KeyId(True, header.hub, header.key, header.subject))
        plaintext = format_1.open_block(block.block, key)
        return OpenedBlock(
            header.subject, format_1_records.decode_readable_records(plaintext, validate_record), is_proven=False
        )

    def _data_key(self, block: StoredBlock, header_id: StoredBlockId, key_id: _KeyId) -> DataKey:
        """Return the data key of a block whose header says that it has this id and key.

        Raises:
            UnreadableError: another id than it is stored under, an erased subject, or no usable key.
        """
        if header_id != block.id or key_id.id != block.key:
            raise UnreadableError(NOT_AUTHENTIC, "it is stored under another id or key than its header names")
        if key_id.subject in self._erased:
            raise UnreadableError(ERASED, "its subject was erased")
        devices = () if key_id.is_format_1 else self._registry.device_keys(key_id.hub)
        cached = self._keys.get(key_id)
        if cached is None or cached.devices != devices:
            cached = _CachedKey(devices, self._find_key(key_id, devices))
            self._keys[key_id] = cached
            if len(self._keys) > CACHED_KEYS:
                self._keys.popitem(last=False)
        self._keys.move_to_end(key_id)
        if isinstance(cached.key, UnreadableError):
            raise UnreadableError(cached.key.reason, str(cached.key))
        return cached.key

    def _find_key(self, id_: _KeyId, devices: tuple[DeviceKey, ...]) -> DataKey | UnreadableError:
        """Return a data key, or why there is none that may be used."""
        if id_.is_format_1:
            return self._unwrap(
                id_,
                lambda wrapped, recipient: unwrap_again(wrapped, hub=id_.hub, subject=id_.subject, recipient=recipient),
            )
        if not devices:
            return UnreadableError(NOT_AUTHENTIC, "its hub is not registered")
        statement = self._store.key_statement(id_.hub, id_.id)
        if statement is None:
            return UnreadableError(NO_KEY, "its hub's statement of the data key has not arrived")
        if not is_signed(statement, id_.hub, devices):
            return UnreadableError(NOT_AUTHENTIC, f"no device key of hub {id_.hub} signed the statement of its data key")
        if statement.subject != id_.subject:
            return UnreadableError(NOT_AUTHENTIC, "its data key is for another subject")
        return self._unwrap(
            id_,
            lambda wrapped, recipient: unwrap_key(wrapped, statement, hub=id_.hub, recipient=recipient),
        )

    def _unwrap(self, id_: _KeyId, unwrap: Callable[[WrappedKey, RecipientKeyPair], DataKey]) -> DataKey | UnreadableError:
        """Return the data key of the first wrapped key that gives it."""
        detail = "its data key is not wrapped for a recipient whose private key this clinic has"
        for wrapped in self._store.wrapped_keys(id_.hub, id_.id):
            recipient = self._key_store.recipient(wrapped.recipient)
            if recipient is None:
                continue
            try:
                return unwrap(wrapped, recipient)
            except DataKeyError as error:
                detail = str(error)
        return UnreadableError(NO_KEY, detail)


def is_format_1(block: StoredBlock) -> bool:
    """Whether a block is of the earlier format, whose origin is not proven."""
    return block_format(block.block) == format_1.FORMAT_1

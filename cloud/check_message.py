"""Checks a hub's message: who signed it, and which of its blocks the clinic may store."""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from cloud.device_keys import DeviceKey, is_signed
from cloud.store.stored_blocks import CheckedMessage, NewBlock, RejectedBlock
from sync.chain import block_digest
from sync.messages import Envelope, SignedEnvelope, decode_envelope
from sync.mqtt import Message
from sync.seal import BlockHeader, SealError, parse_header
from sync.signing import VerifyingKey
from sync.status import HubStatus, decode_status
from sync.wire import EPOCH_RANDOM_BITS, BlockId, Lane, WireError, hub_of_status_topic, hub_of_topic

NOT_ASSIGNED: Final = "the subject is not assigned to the hub"
_OTHER_HUB: Final = "the block is of another hub"
_NOT_SIGNED: Final = "the hub did not sign its data key"
_OTHER_SUBJECT: Final = "its data key is of another subject"


class Assignment(Protocol):
    """A subject that a hub may seal for, for a time."""

    @property
    def subject(self) -> str: ...


class Registry(Protocol):
    """The registered hubs: their device keys, and for whom they may seal."""

    def device_key(self, hub: str) -> VerifyingKey | None: ...

    def device_keys(self, hub: str) -> tuple[DeviceKey, ...]: ...

    def may_seal(self, hub: str, subject: str, epoch: int) -> bool: ...

    def assignments(self, hub: str) -> tuple[Assignment, ...]: ...


def verify_message(message: Message, registry: Registry) -> SignedEnvelope:
    """Return the envelope of a message that the present device key of the topic's hub has signed.

    Raises:
        WireError: not an envelope of the topic's hub, or the hub is not registered.
        SignatureError: its device key did not sign it. A former one does not sign new messages.
    """
    hub = hub_of_topic(message.topic)
    signed = decode_envelope(message.payload)
    if signed.envelope.hub != hub:
        raise WireError("the envelope names another hub than its topic")
    device = registry.device_key(hub)
    if device is None:
        raise WireError("the hub is not registered: run pulsegate-cloud register for it")
    signed.verify(device)
    return signed


def verify_status(message: Message, registry: Registry) -> HubStatus:
    """Return the status of a message on a topic for statuses, whose hub has signed it.

    Raises:
        WireError: not a status of the topic's hub, or the hub is not registered.
        SignatureError: its device key did not sign it.
    """
    hub = hub_of_status_topic(message.topic)
    device = registry.device_key(hub) if hub is not None else None
    if device is None:
        raise WireError("the hub is not registered: run pulsegate-cloud register for it")
    status = decode_status(message.payload, device)
    if status.hub != hub:
        raise WireError("the status names another hub than its topic")
    return status


def subjects_now(hub: str, registry: Registry, now_s: int) -> set[str]:
    """Return the subjects that a hub may seal for now."""
    epoch = now_s << EPOCH_RANDOM_BITS
    return {found.subject for found in registry.assignments(hub) if registry.may_seal(hub, found.subject, epoch)}


class ParsedBlocks:
    """The blocks of a message by whether their header can be read."""

    def __init__(self, hub: str, blocks: Iterable[bytes]) -> None:
        self.readable: list[tuple[BlockHeader, bytes]] = []
        self.unreadable: list[RejectedBlock] = []
        for block in blocks:
            try:
                self.readable.append((parse_header(block), block))
            except SealError as error:
                self.unreadable.append(RejectedBlock(hub, str(error), block))
            except Exception as error:  # noqa: BLE001 - the other blocks of the message are kept
                self.unreadable.append(RejectedBlock(hub, f"reading its header failed: {type(error).__name__}", block))

    def take_all_but_alerts(self) -> list[tuple[BlockHeader, bytes]]:
        """Remove the readable blocks of all lanes but `alert`, and return them."""
        others = [row for row in self.readable if row[0].lane != "alert"]
        self.readable = [row for row in self.readable if row[0].lane == "alert"]
        return others

    @property
    def subjects(self) -> set[str]:
        return {header.subject for header, _ in self.readable}

    @property
    def keys(self) -> set[bytes]:
        return {header.key for header, _ in self.readable}

    @property
    def previous(self) -> set[tuple[Lane, int]]:
        """The (lane, epoch) that the first blocks of epochs follow: their marks tell the hub whether the store lost blocks."""
        return {(header.lane, header.prev.epoch) for header, _ in self.readable if header.prev is not None}


def check_message(
    signed: SignedEnvelope,
    parsed: ParsedBlocks,
    registry: Registry,
    *,
    stored: Mapping[bytes, str],
    erased: frozenset[str],
    unconsented: frozenset[str] = frozenset(),
) -> CheckedMessage:
    """Check the blocks and statements of a verified envelope.

    `stored` are the subjects of the data keys whose statements the clinic holds.
    """
    envelope, keys = signed.envelope, registry.device_keys(signed.envelope.hub)
    authentic = tuple(found for found in envelope.keys if is_signed(found, envelope.hub, keys))
    checker = _BlockChecker(envelope, registry, {found.id: found.subject for found in authentic} | dict(stored))
    blocks, rejected, refused, without_consent = list[NewBlock](), list(parsed.unreadable), list[NewBlock](), list[NewBlock]()
    for header, data in parsed.readable:
        block = NewBlock(BlockId(header.lane, header.epoch, header.seq), header.subject, header.key, block_digest(data), data)
        if header.subject in erased:
            refused.append(block)
        elif header.hub == envelope.hub and header.subject in unconsented:
            without_consent.append(block)
        elif reason := checker.find_fault(header):
            rejected.append(RejectedBlock(envelope.hub, reason, data, block.position, header.subject))
        else:
            blocks.append(block)
    statements = tuple(found for found in authentic if found.subject not in erased | unconsented)
    return CheckedMessage(signed, statements, tuple(blocks), tuple(rejected), tuple(refused), tuple(without_consent))


class _BlockChecker:
    """Finds why a block of an envelope may not be stored. `subjects` are those of the data keys that it signed."""

    def __init__(self, envelope: Envelope, registry: Registry, subjects: Mapping[bytes, str]) -> None:
        self._hub, self._registry, self._subjects = envelope.hub, registry, subjects
        self._unsigned = {found.id for found in envelope.keys} - subjects.keys()

    def find_fault(self, header: BlockHeader) -> str | None:
        """Return the reason to set the block aside; None also if the statement of its key has not arrived yet."""
        if header.hub != self._hub:
            return _OTHER_HUB
        if not self._registry.may_seal(self._hub, header.subject, header.epoch):
            return NOT_ASSIGNED
        if header.key in self._unsigned:
            return _NOT_SIGNED
        subject = self._subjects.get(header.key)
        return None if subject in {None, header.subject} else _OTHER_SUBJECT

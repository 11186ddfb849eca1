"""Receives sealed blocks from the broker, commits them, and acknowledges them to their hub. It opens no block and has no state.

    message ──verify the envelope──> check blocks ──> commit ──> advance marks ──> sign the acknowledgement
                  └──> kept aside, not answered    └──> quarantine (answered under `aside`), or refused

Messages that wait in the same track (`cloud.tracks`) are committed together: two transactions for the whole group. No
acknowledgement goes out before both are on the disk. Alerts wait for no other messages, and live data not for a backlog. A
hub's status is kept (`cloud.statuses`).

`docs/protocol.md` gives the steps. Several ingests may run at once: a block is stored once, and acknowledging it twice does no
harm.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, NoReturn

from cloud.check_message import ParsedBlocks, Registry, check_message, subjects_now, verify_message
from cloud.metrics import note_ingest
from cloud.outdated import VersionPolicy, find_policy
from cloud.site_name import SITE
from cloud.statuses import MALFORMED, NOT_SIGNED, RefusedStatusError, receive_status
from cloud.store import Store
from cloud.store.audit_refusals import UNREGISTERED, Refusal
from cloud.store.hub_states import note_heard
from cloud.store.hubs import StoreView
from cloud.store.stored_blocks import CheckedMessage, CommitResult, Progress, ProgressRequest, RejectedBlock
from cloud.store.tables import CONFLICT
from cloud.tracks import Track, Tracks
from sync.chain import block_digest
from sync.consent import NO_CONSENT
from sync.errors import TransientError
from sync.message_rows import Outcome, join_consecutive
from sync.messages import Ack, Envelope, SignedEnvelope, encode_ack
from sync.mqtt import Message
from sync.seal import BlockHeader
from sync.signing import SignatureError, SigningKey, VerifyingKey
from sync.transport import Transport, WorkerCall
from sync.versions import OUTDATED, OUTDATED_REVISION
from sync.wire import MESSAGE_LIMIT_BYTES, Lane, WireError, ack_topic, hub_of_status_topic, is_name

UNKNOWN_HUB: Final = "?"
"""Hub of rejected messages whose topic names no hub. It is not a valid hub name (`sync.wire.is_name`)."""
ERASED: Final = "erased"
"""Reason to refuse a block: its subject was erased. The hub deletes the subject's data keys, too."""
HEARD_INTERVAL_US: Final = 30_000_000
"""A hub that sends blocks is noted as heard this often. Statuses are noted each, so that this matters for older hubs only."""
_US_PER_S: Final = 1_000_000
_LISTS: Final = ("held", "aside", "refused", "marks", "keys", "wraps")
"""The lists of an acknowledgement."""
_log: Final = logging.getLogger(__name__)


class Handled(NamedTuple):
    """What became of a message: the signed acknowledgement to send, if any, its hub, and how many blocks became work."""

    payload: bytes | None
    hub: str
    n_work: int


async def run_ingest(
    store: Store,
    registry: Registry,
    key: SigningKey,
    mqtt: Transport,
    on_committed: Callable[[], None],
    *,
    now_us: Callable[[], int],
    audit_key: VerifyingKey | None = None,
    call: WorkerCall = asyncio.to_thread,
) -> NoReturn:
    """Handle messages until cancelled. `on_committed` is called after each commit that made work for the opener.

    `key` signs the acknowledgements, and `audit_key` is the site's public audit key. `call` runs up to three at once.
    After a transient failure of a commit or an acknowledgement nothing is retried here: the hubs resend unacknowledged blocks.

    Raises:
        ExceptionGroup: of PermanentError, if the store is damaged.
    """
    tracks, clock_s = Tracks(), asyncio.get_running_loop().time

    async def handle(track: Track) -> NoReturn:
        while True:
            messages = await track.take_group()
            try:
                began_s, retry_after_s = clock_s(), tracks.retry_after_s()
                handled = await call(handle_messages, store, registry, key, messages, now_us(), retry_after_s, audit_key)
                handled_s = clock_s() - began_s
                track.pressure.note(handled_s, len(messages))
                _count(handled, handled_s, tracks.n_waiting, is_pause=retry_after_s > 0)
                if any(one.n_work for one in handled):
                    on_committed()
                for one in handled:
                    if one.payload is not None:
                        await mqtt.publish(ack_topic(one.hub), one.payload)
            except TransientError as error:
                _log.warning("%d messages not acknowledged; the hubs will resend them: %s", len(messages), error)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_receive_messages(mqtt, tracks))
        for track in tracks.all:
            tasks.create_task(handle(track))
    raise AssertionError("the tasks of ingest must not return")


def _count(handled: Sequence[Handled], handled_s: float, waiting: int, *, is_pause: bool) -> None:
    n_answered = sum(one.payload is not None for one in handled)
    n_work = sum(one.n_work for one in handled)
    note_ingest(handled_s, n_answered, len(handled) - n_answered, n_work, waiting, is_pause=is_pause)


async def _receive_messages(mqtt: Transport, tracks: Tracks) -> NoReturn:
    while True:
        event = await mqtt.receive()
        if isinstance(event, Message):
            tracks.add(event)


def handle_message(
    store: Store,
    registry: Registry,
    key: SigningKey,
    message: Message,
    now_us: int,
    retry_after_s: int = 0,
    audit_key: VerifyingKey | None = None,
) -> Handled:
    """Handle one message: see `handle_messages`."""
    return handle_messages(store, registry, key, [message], now_us, retry_after_s, audit_key)[0]


def handle_messages(
    store: Store,
    registry: Registry,
    key: SigningKey,
    messages: Sequence[Message],
    now_us: int,
    retry_after_s: int = 0,
    audit_key: VerifyingKey | None = None,
) -> list[Handled]:
    """Commit messages together; returns what became of each. A signed acknowledgement may be sent when this has returned.

    `retry_after_s` is what the acknowledgement asks the hub to wait. `audit_key` is the site's public audit key; without it the
    heads of audit logs in statuses are not kept.

    Raises:
        TransientError, PermanentError: the store failed; nothing of these messages may be acknowledged.
    """
    envelopes = [message for message in messages if hub_of_status_topic(message.topic) is None]
    read = [_read_message(message, registry) for message in envelopes]
    authentic = [found for found in read if isinstance(found, _Authentic)]
    answers = iter(_commit_messages(store, registry, key, authentic, now_us, retry_after_s))
    handled = iter(
        [
            next(answers) if isinstance(found, _Authentic) else _reject_message(store, registry, message, *found, now_us)
            for message, found in zip(envelopes, read, strict=True)
        ]
    )
    return [
        next(handled)
        if hub_of_status_topic(message.topic) is None
        else _handle_status(store, registry, key, message, now_us, retry_after_s, audit_key)
        for message in messages
    ]


@dataclass(frozen=True, slots=True)
class _Authentic:
    """A message that its hub has signed."""

    signed: SignedEnvelope
    blocks: ParsedBlocks

    @property
    def envelope(self) -> Envelope:
        return self.signed.envelope


def _read_message(message: Message, registry: Registry) -> _Authentic | tuple[str, str]:
    """Return a message's content, or why its origin is not proven: a text, and the word of the audit log."""
    try:
        signed = verify_message(message, registry)
        return _Authentic(signed, ParsedBlocks(signed.envelope.hub, signed.envelope.blocks))
    except (WireError, SignatureError) as error:
        return str(error), NOT_SIGNED if isinstance(error, SignatureError) else MALFORMED
    except Exception as error:  # noqa: BLE001 - no message may stop the messages of other hubs
        return f"reading it failed: {type(error).__name__}", MALFORMED


def _commit_messages(
    store: Store, registry: Registry, key: SigningKey, messages: Sequence[_Authentic], now_us: int, retry_after_s: int
) -> list[Handled]:
    if not messages:
        return []
    keys = {(found.envelope.hub, id_) for found in messages for id_ in found.blocks.keys}
    subjects = {subject for found in messages for subject in found.blocks.subjects}
    subjects |= {statement.subject for found in messages for statement in found.envelope.keys}
    view = store.view([found.envelope for found in messages], keys, subjects)
    for envelope in view.lost:
        _begin_after_loss(store, envelope)
    policies = [_find_policy(view, found.envelope.hub, now_us) for found in messages]
    refused = [
        found.blocks.take_all_but_alerts() if policy.is_refused else []
        for found, policy in zip(messages, policies, strict=True)
    ]
    checked = [
        check_message(
            found.signed,
            found.blocks,
            registry,
            stored=view.statements.get(found.envelope.hub, {}),
            erased=view.erased,
            unconsented=view.unconsented,
        )
        for found in messages
    ]
    commits = store.commit(checked, now_us)
    _note_heard(store, view, {message.hub for message, commit in zip(checked, commits, strict=True) if commit.new}, now_us)
    requests = [
        ProgressRequest(
            message.hub,
            message.signed.envelope.epoch,
            commit.held,
            _sequences_of(message, commit) | found.blocks.previous,
            subjects_now(message.hub, registry, now_us // _US_PER_S),
        )
        for found, message, commit in zip(messages, checked, commits, strict=True)
    ]
    progress = store.advance_marks(requests, now_us)
    handled = []
    for message, commit, reached, policy, outdated in zip(checked, commits, progress, policies, refused, strict=True):
        _log_commit(message.hub, commit)
        ack = _make_ack(message, commit, reached, retry_after_s, policy.update_by_s)
        if policy.revision >= OUTDATED_REVISION:  # older agents would delete what is refused: they get no answer
            ack = replace(ack, refused=(*ack.refused, *(_as_outdated(*row) for row in outdated)))
        handled.append(Handled(_encode_within_limit(ack, key), message.hub, commit.new + commit.reopened))
    return handled


def _find_policy(view: StoreView, hub: str, now_us: int) -> VersionPolicy:
    known = view.of_hub(hub)
    return find_policy(known.revision, known.outdated_us, now_us)


def _note_heard(store: Store, view: StoreView, hubs: set[str], now_us: int) -> None:
    """Note the hubs that sent something new and were not heard for a while."""
    heard_us = {hub: view.of_hub(hub).heard_us for hub in sorted(hubs)}
    due = [hub for hub, us in heard_us.items() if us is None or not 0 <= now_us - us < HEARD_INTERVAL_US]
    if due:
        with store.transaction() as connection:
            for hub in due:
                note_heard(connection, hub, now_us)


def _sequences_of(message: CheckedMessage, commit: CommitResult) -> set[tuple[Lane, int]]:
    """The (lane, epoch) of what the clinic holds or keeps aside of a message, and of what its hub dropped."""
    sequences = {block.position[:2] for block in (*commit.held, *commit.conflicts)}
    sequences |= {block.position[:2] for block in message.rejected if block.position is not None}
    sequences |= {(dropped.lane, dropped.epoch) for dropped in message.signed.envelope.dropped}
    return sequences


def _handle_status(
    store: Store,
    registry: Registry,
    key: SigningKey,
    message: Message,
    now_us: int,
    retry_after_s: int,
    audit_key: VerifyingKey | None,
) -> Handled:
    """Keep a hub's status, and answer if the hub does not know what holds of its subject's consent."""
    try:
        hub, ack = receive_status(store, registry, message, now_us, audit_key)
    except RefusedStatusError as error:
        return _reject_message(store, registry, message, str(error), error.token, now_us)
    payload = None if ack is None else encode_ack(replace(ack, retry_after_s=retry_after_s), key)
    return Handled(payload, hub, 0)


def _make_ack(
    checked: CheckedMessage, commit: CommitResult, progress: Progress, retry_after_s: int, update_by_s: int | None
) -> Ack:
    aside = [
        *(_as_outcome(block) for block in checked.rejected),
        *(Outcome(*block.position, block.digest, CONFLICT) for block in commit.conflicts),
    ]
    return Ack(
        checked.signed.envelope.hub,
        SITE,
        progress.identity.id,
        progress.identity.fence,
        progress.identity.commits,
        epoch=progress.epoch,
        marks=progress.marks,
        held=tuple(join_consecutive((block.position, block.digest) for block in commit.held)),
        keys=commit.keys,
        wraps=commit.wraps,
        aside=tuple(outcome for outcome in aside if outcome is not None),
        refused=(
            *(Outcome(*block.position, block.digest, ERASED) for block in checked.refused),
            *(Outcome(*block.position, block.digest, NO_CONSENT) for block in checked.unconsented),
        ),
        live_s=progress.live_s,
        copied=progress.is_copied,
        retry_after_s=retry_after_s,
        update_by_s=update_by_s,
        audit=progress.audit,
    )


def _as_outdated(header: BlockHeader, block: bytes) -> Outcome:
    return Outcome(header.lane, header.epoch, header.seq, block_digest(block), OUTDATED)


def _as_outcome(block: RejectedBlock) -> Outcome | None:
    """Return what is said of a block that is set aside; None if its id cannot be read."""
    return Outcome(*block.position, block_digest(block.bytes), block.reason) if block.position is not None else None


def _encode_within_limit(ack: Ack, key: SigningKey) -> bytes:
    """Sign an acknowledgement. If it is too large, the longest list loses its second half: the hub sends those blocks again."""
    while True:
        try:
            return encode_ack(ack, key)
        except WireError:
            name = max(_LISTS, key=lambda name: len(getattr(ack, name)))
            rows = getattr(ack, name)
            shorter: Any = {name: rows[: len(rows) // 2]}
            ack = replace(ack, **shorter)


def _begin_after_loss(store: Store, envelope: Envelope) -> None:
    loss = store.begin_after_loss(envelope)
    if loss is not None:
        _log.warning(
            "the clinic's store was lost or restored from a backup: hub %s knows %s, this one has %d commits and fence %d. "
            "It takes a new id and fence %d, opens its %d blocks again, and hubs send again what they still hold; "
            "`pulsegate-cloud open` lists what is missing then",
            envelope.hub,
            loss.evidence,
            loss.before.commits,
            loss.before.fence,
            loss.after.fence,
            loss.stored,
        )


def _log_commit(hub: str, commit: CommitResult) -> None:
    if commit.is_newly_copied:
        _log.warning(
            "hub %s seems to run on two machines: twice within 24 hours it went on from a point before its latest epoch; "
            "check whether its data folder was copied, and register each machine as a hub of its own",
            hub,
        )
    if not commit.new_conflicts:
        return
    found = [
        *("block {}/{}/{}".format(*block.position) for block in commit.conflicts),
        *(f"data key {key.hex()}" for key in commit.conflicting_keys),
    ]
    text = "hub %s sent %d blocks or data keys in place of others that are stored, the first of them %s: %s"
    advice = "they are kept aside; check whether two machines use this hub's name, or its buffer was restored from a backup"
    _log.warning(text, hub, commit.new_conflicts, found[0], advice)


def _reject_message(store: Store, registry: Registry, message: Message, reason: str, token: str, now_us: int) -> Handled:
    """Keep a message aside whose origin is not proven. It is not answered. The audit log counts it by `token`."""
    parts = message.topic.split("/")
    hub = parts[2] if len(parts) > 2 and is_name(parts[2]) else UNKNOWN_HUB
    refusal = Refusal(hub if registry.device_key(hub) is not None else UNREGISTERED, token)
    n = store.keep_rejected_message(hub, reason, message.payload[:MESSAGE_LIMIT_BYTES], now_us, refusal)
    if n is not None:
        _log.warning(
            "a message in the name of hub %s is not authentic (%s) and is kept aside; %d such messages so far", hub, reason, n
        )
    return Handled(None, hub, 0)

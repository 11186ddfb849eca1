"""A clinic in memory, with keys of its own, that stores what is authentic and answers as the real one does."""

import os
from dataclasses import dataclass, field, replace
from typing import NoReturn

from sync.chain import block_digest, extend_chain, start_chain
from sync.data_keys import KeyStatement, WrappedKey, unwrap_key
from sync.errors import TransientError
from sync.message_rows import Dropped, Held, Mark
from sync.messages import Ack, Envelope, Receipt, decode_envelope, encode_ack, encode_receipt
from sync.mqtt import Message
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.seal import open_block, parse_header
from sync.signing import SigningKey, Use, VerifyingKey
from sync.status import HubStatus, decode_status
from sync.wire import BlockId, Lane, ack_topic, hub_of_status_topic, hub_of_topic
from tests.link import LinkEnd

SUBJECT, NEXT_SUBJECT = "subject-1", "subject-2"


@dataclass
class FakeClinic:
    """Registered for one hub and two subjects. It fails on the next `failures` messages; `envelopes` and `statuses` are all
    that it took.
    """

    hub: str
    device: VerifyingKey
    recipients: dict[str, RecipientKeyPair] = field(
        default_factory=lambda: {subject: RecipientKeyPair.generate() for subject in (SUBJECT, NEXT_SUBJECT)}
    )
    acknowledgement: SigningKey = field(default_factory=lambda: SigningKey.generate(Use.ACKNOWLEDGEMENT))
    receipt: SigningKey = field(default_factory=lambda: SigningKey.generate(Use.RECEIPT))
    store: bytes = field(default_factory=lambda: os.urandom(16))
    fence: int = 1
    commits: int = 0
    failures: int = 0
    blocks: dict[BlockId, bytes] = field(default_factory=dict)
    statements: dict[bytes, KeyStatement] = field(default_factory=dict)
    wraps: dict[bytes, WrappedKey] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    statuses: list[HubStatus] = field(default_factory=list)

    @property
    def registration(self) -> Registration:
        recipients = {subject: pair.public for subject, pair in self.recipients.items()}
        return Registration(self.hub, "main", self.acknowledgement.public, self.receipt.public, 24, 1_780_000_000, recipients)

    async def run(self, link: LinkEnd) -> NoReturn:
        """Answer each message with an acknowledgement."""
        while True:
            event = await link.receive()
            if not isinstance(event, Message):
                continue
            if hub_of_status_topic(event.topic) is not None:
                self.statuses.append(decode_status(event.payload, self.device))
                continue
            if self.failures:
                self.failures -= 1
                continue
            try:
                await link.publish(ack_topic(self.hub), self.encode(self.commit(event)))
            except TransientError:
                continue

    def commit(self, message: Message) -> Ack:
        """Store a message; returns the acknowledgement to sign."""
        envelope = decode_envelope(message.payload).verify(self.device)
        assert hub_of_topic(message.topic) == envelope.hub
        self.envelopes.append(envelope)
        for statement in envelope.keys:
            statement.verify(self.hub, self.device)
            self.statements[statement.id] = statement
        self.wraps |= {wrap.id: wrap for wrap in envelope.wraps}
        self.dropped = list({*self.dropped, *envelope.dropped})
        new: list[BlockId] = []
        for block in envelope.blocks:
            header = parse_header(block)
            if header.key in self.statements and header.key in self.wraps:
                new.append(BlockId(header.lane, header.epoch, header.seq))
                assert self.blocks.setdefault(new[-1], block) == block
        self.commits += 1
        lanes = {*((id_.lane, id_.epoch) for id_ in new), *((row.lane, row.epoch) for row in envelope.dropped)}
        return Ack(
            self.hub,
            "main",
            self.store,
            self.fence,
            self.commits,
            marks=tuple(self.mark(*lane) for lane in sorted(lanes)),
            held=self.held(new),
            keys=tuple(row.id for row in envelope.keys),
            wraps=tuple((row.id, row.recipient) for row in envelope.wraps),
        )

    def mark(self, lane: Lane, epoch: int) -> Mark:
        seq, chain = 0, start_chain(self.hub, lane, epoch)
        while True:
            skipped = [row for row in self.dropped if row[:2] == (lane, epoch) and row.first <= seq + 1 <= row.last]
            block = self.blocks.get(BlockId(lane, epoch, seq + 1))
            if skipped:
                seq, chain = skipped[0].last, skipped[0].chain
            elif block is not None:
                seq, chain = seq + 1, extend_chain(chain, block_digest(block))
            else:
                return Mark(lane, epoch, seq, chain)

    def held(self, ids: list[BlockId]) -> tuple[Held, ...]:
        return tuple(Held(*id_, (block_digest(self.blocks[id_]),)) for id_ in ids)

    def encode(self, ack: Ack) -> bytes:
        return encode_ack(ack, self.acknowledgement)

    def encode_receipt(self) -> bytes:
        """A receipt for all alerts and vitals."""
        opened = self.held([id_ for id_ in self.blocks if id_.lane != "wave"])
        return encode_receipt(Receipt(self.hub, self.store, self.fence, opened), self.receipt)

    def lose_store(self) -> None:
        """Start again with an empty store."""
        empty = replace(
            self, store=os.urandom(16), fence=self.fence + 1, commits=0, blocks={}, statements={}, wraps={}, dropped=[]
        )
        self.__dict__.update(empty.__dict__)

    def opened_plaintexts(self) -> list[bytes]:
        """The plaintexts of all stored blocks, in the order of arrival."""
        return [self.open(id_)[1] for id_ in self.blocks]

    def open(self, id_: BlockId) -> tuple[str, bytes]:
        """The subject and the plaintext of a stored block."""
        block = self.blocks[id_]
        statement = self.statements[parse_header(block).key]
        recipient = self.recipients[statement.subject]
        key = unwrap_key(self.wraps[statement.id], statement, hub=self.hub, recipient=recipient)
        header, plaintext = open_block(block, key)
        assert header.subject == statement.subject
        return header.subject, plaintext

"""Hubs that seal, sign and send as the agent does, and a registry in memory."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from cloud.device_keys import DeviceKey
from cloud.ingest import handle_message
from cloud.registry import Assignment
from cloud.store import Store
from sync.chain import block_digest, extend_chain, start_chain
from sync.data_keys import DataKey, KeyStatement, WrappedKey, sign_statement
from sync.message_rows import Dropped, Head, Mark, SeenStore
from sync.messages import Ack, Envelope, decode_ack, encode_envelope
from sync.mqtt import Message
from sync.seal import BlockHeader, seal_block
from sync.signing import SigningKey, Use, VerifyingKey
from sync.wire import EPOCH_RANDOM_BITS, UPLINK_LANES, BlockId, Lane, epoch_seconds, up_topic

START_S = 1_790_000_000
NOW_US = START_S * 1_000_000
EPOCH = START_S << EPOCH_RANDOM_BITS
HUB = "hub-1"
SUBJECT = "subject-1"
ACK_KEY = SigningKey.generate(Use.ACKNOWLEDGEMENT)
FINGERPRINT = b"clinic-1"


@dataclass
class FakeRegistry:
    """Registered hubs and their assignments."""

    devices: dict[str, VerifyingKey] = field(default_factory=dict)
    of_hub: dict[str, list[Assignment]] = field(default_factory=lambda: defaultdict(list))

    def device_key(self, hub: str) -> VerifyingKey | None:
        return self.devices.get(hub)

    def device_keys(self, hub: str) -> tuple[DeviceKey, ...]:
        return tuple(DeviceKey(self.devices[name]) for name in self.devices if name == hub)

    def may_seal(self, hub: str, subject: str, epoch: int) -> bool:
        return any(found.subject == subject and found.contains(epoch_seconds(epoch)) for found in self.assignments(hub))

    def assignments(self, hub: str) -> tuple[Assignment, ...]:
        return tuple(self.of_hub[hub])


@dataclass
class SendingHub:
    """Seals blocks with gap-free sequence numbers in each lane of its epoch, and knows the chain of each."""

    name: str = HUB
    subject: str = SUBJECT
    epoch: int = EPOCH
    previous: int | None = None
    device: SigningKey = field(default_factory=lambda: SigningKey.generate(Use.DEVICE))
    key: DataKey = field(default_factory=DataKey.generate)
    seen: SeenStore | None = None
    blocks: dict[BlockId, bytes] = field(default_factory=dict)
    chains: dict[tuple[Lane, int], list[bytes]] = field(default_factory=dict)
    marks: dict[tuple[Lane, int], int] = field(default_factory=dict)

    @cached_property
    def statement(self) -> KeyStatement:
        day = epoch_seconds(self.epoch) // 86_400
        return sign_statement(self.key, hub=self.name, subject=self.subject, day=day, device=self.device)

    @property
    def wrapped(self) -> WrappedKey:
        return WrappedKey(self.key.id, FINGERPRINT, b"wrapped")

    def register(self, registry: FakeRegistry, from_s: int = 0, to_s: int | None = None) -> "SendingHub":
        registry.devices[self.name] = self.device.public
        registry.of_hub[self.name].append(Assignment(self.subject, from_s, to_s))
        return self

    def chain(self, lane: Lane) -> list[bytes]:
        """The chain values of the present epoch: index n after n blocks."""
        return self.chains.setdefault((lane, self.epoch), [start_chain(self.name, lane, self.epoch)])

    def mark(self, lane: Lane, seq: int) -> Mark:
        return Mark(lane, self.epoch, seq, self.chain(lane)[seq])

    def header(self, lane: Lane, seq: int) -> BlockHeader:
        return BlockHeader(self.name, self.subject, self.epoch, lane, seq, self.key.id)

    def seal(self, n: int = 1, lane: Lane = "vital", plaintext: bytes = b"x") -> list[bytes]:
        """Seal the next blocks of a lane."""
        chain = self.chain(lane)
        sealed = []
        for seq in range(len(chain), len(chain) + n):
            block = seal_block(self.header(lane, seq), plaintext, self.key)
            chain.append(extend_chain(chain[-1], block_digest(block)))
            self.blocks[BlockId(lane, self.epoch, seq)] = block
            sealed.append(block)
        return sealed

    def begin_epoch(self, epoch: int) -> None:
        self.previous, self.epoch = self.epoch, epoch

    def envelope(self, blocks: Iterable[bytes], dropped: tuple[Dropped, ...] = ()) -> Envelope:
        heads = tuple(
            Head(lane, len(self.chain(lane)) - 1, self.chain(lane)[-1], self.marks.get((lane, self.epoch), 0))
            for lane in UPLINK_LANES
        )
        return Envelope(
            self.name,
            self.epoch,
            self.previous,
            heads,
            self.seen,
            tuple(blocks),
            (self.statement,),
            (self.wrapped,),
            dropped,
        )

    def message(self, *blocks: bytes, lane: Lane = "vital", **changes: object) -> Message:
        """Return a signed message with these blocks; `changes` are fields of the envelope."""
        return self.sign(replace(self.envelope(blocks), **changes), lane)  # type: ignore[arg-type]

    def sign(self, envelope: Envelope, lane: Lane = "vital") -> Message:
        return Message(up_topic(self.name, lane), encode_envelope(envelope, self.device))

    def accept(self, ack: Ack) -> None:
        """Persist what an acknowledgement says, as the agent does."""
        self.seen = SeenStore(ack.store, ack.fence, ack.commits)
        for mark in ack.marks:
            self.marks[mark.lane, mark.epoch] = mark.seq


@dataclass
class Receiver:
    """The clinic's end: a store, its registry, and the key of its acknowledgements."""

    store: Store
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    now_us: int = NOW_US

    def handle(self, message: Message) -> tuple[Ack | None, int]:
        payload, hub, n_work = handle_message(self.store, self.registry, ACK_KEY, message, self.now_us)
        ack = None if payload is None else decode_ack(payload, ACK_KEY.public)
        assert ack is None or ack.hub == hub
        return ack, n_work

    def receive(self, message: Message) -> Ack:
        """Handle a message that must be answered."""
        ack, _ = self.handle(message)
        assert ack is not None
        return ack

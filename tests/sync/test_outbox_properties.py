"""Whatever the clinic answers, in whatever order: a block stays pending until an answer names its bytes."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sync.chain import block_digest
from sync.message_rows import Held, Mark, Outcome
from sync.messages import Ack
from sync.outbox import BufferLimits, OutboxBlock
from sync.wire import BlockId, Lane
from tests.sync.outboxes import EVERY_BLOCK, Clock, ack, all_pending, open_at, receipt

LANES = st.sampled_from(["alert", "vital", "wave"])


class OutboxMachine(RuleBasedStateMachine):
    """Remembers every block, and which of them an answer of the present store has named."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.store = 1
        self.blocks: dict[BlockId, OutboxBlock] = {}
        self.chains: dict[BlockId, bytes] = {}
        self.named: set[BlockId] = set()
        self.open()

    def open(self) -> None:
        limits = BufferLimits(retention_s=1000)
        self.outbox = open_at(Path(self.folder.name) / "outbox.db", clock=self.clock, limits=limits)

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()

    def ack(self, **fields: object) -> Ack:
        return ack(bytes(15) + bytes([self.store]), self.store, **fields)

    @rule(lane=LANES, count=st.integers(1, 3))
    def put(self, lane: Lane, count: int) -> None:
        for _ in range(count):
            id_ = self.outbox.put(lane, b"a")
            (self.blocks[id_],) = self.outbox.pending(lane, (id_.epoch, id_.seq - 1), 1)
            self.chains[id_] = next(head.chain for head in self.outbox.clinic_view().heads if head.lane == lane)

    @rule(seconds=st.sampled_from([1, 700, 100_000]), is_reopened=st.booleans())
    def wait(self, seconds: int, is_reopened: bool) -> None:
        self.clock.now += seconds
        if is_reopened:
            self.outbox.close()
            self.open()
        self.outbox.tidy()
        self.outbox.requeue_unopened()

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), kind=st.sampled_from(["held", "opened", "aside", "refused"]), is_right=st.booleans())
    def answer(self, data: st.DataObject, kind: str, is_right: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.blocks)))
        digest = block_digest(self.blocks[id_].sealed) if is_right else bytes(32)
        row = Held(*id_, (digest,)) if kind in ("held", "opened") else Outcome(*id_, digest, "a reason")
        if kind == "opened":
            self.outbox.apply_receipt(receipt(bytes(15) + bytes([self.store]), self.store, opened=(row,)))
        else:
            self.outbox.apply_ack(self.ack(**{kind: (row,)}))
        if is_right:
            self.named.add(id_)

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), is_right=st.booleans())
    def mark(self, data: st.DataObject, is_right: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.blocks)))
        chain = self.chains[id_] if is_right else bytes(32)
        self.outbox.apply_ack(self.ack(marks=(Mark(*id_, chain),)), EVERY_BLOCK)
        if is_right:
            self.named |= {other for other in self.blocks if other[:2] == id_[:2] and other.seq <= id_.seq}

    @rule()
    def change_store(self) -> None:
        self.store += 1
        self.outbox.apply_ack(self.ack())
        kept = {block.id for block in all_pending(self.outbox)}
        self.blocks = {id_: block for id_, block in self.blocks.items() if id_ in kept or id_ not in self.named}
        self.named.clear()

    @precondition(lambda self: self.store > 1)
    @rule()
    def replay_an_earlier_store(self) -> None:
        rows = tuple(Held(*id_, (block_digest(block.sealed),)) for id_, block in self.blocks.items())
        assert not self.outbox.apply_ack(ack(bytes(15) + bytes([self.store - 1]), self.store - 1, held=rows)).accepted

    @invariant()
    def what_was_not_named_is_pending(self) -> None:
        pending = {block.id: block for block in all_pending(self.outbox)}
        unnamed = {id_: block for id_, block in self.blocks.items() if id_ not in self.named}
        assert {id_: pending.get(id_) for id_ in unnamed} == unnamed
        statistics = self.outbox.statistics()
        assert sum(statistics.pending.values()) == len(pending)


OutboxMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestNothingIsLost = OutboxMachine.TestCase

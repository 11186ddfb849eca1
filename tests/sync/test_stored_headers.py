"""Damage of a stored block: every bit of its header but the nonce is restored; other damage gives the block up."""

from collections.abc import Callable

import pytest

from sync.message_rows import Mark
from sync.outbox import Outbox
from sync.outbox.header_templates import HeaderTemplates
from sync.outbox.stored_headers import restore_header
from sync.seal import BlockHeader, LaneEnd, encode_header, parse_header
from sync.wire import BlockId
from tests.sync.outboxes import EVERY_BLOCK, ack, all_pending

OpenOutbox = Callable[..., Outbox]


@pytest.mark.parametrize("seq", [1, 2, 23, 24, 255, 256, 65_536, 2**32])
def test_a_template_gives_the_encoded_header(seq: int) -> None:
    templates = HeaderTemplates("hub-1")
    prev = LaneEnd(5, 7, bytes(32)) if seq == 1 else None
    for number in (seq, seq + 1):
        header = BlockHeader("hub-1", "subject-1", 9, "wave", number, bytes(16), prev=prev if number == seq else None)
        before, after = templates.make(BlockId("wave", 9, number), header.key, "subject-1", header.prev)
        assert before + header.nonce + after == encode_header(header)


@pytest.mark.parametrize("seq", [1, 2, 24])
def test_restores_every_bit_of_a_header(open_outbox: OpenOutbox, seq: int) -> None:
    open_outbox().put("vital", b"of the epoch before")
    outbox = open_outbox()
    outbox.put_many([("vital", b"%d" % n) for n in range(30)])
    block = next(block for block in all_pending(outbox) if block.id == ("vital", outbox.epoch, seq))
    header = parse_header(block.sealed)
    assert (header.prev is not None) == (seq == 1)
    template = HeaderTemplates("hub-1").make(block.id, block.key, "subject-1", header.prev)
    nonce_at = block.sealed.index(header.nonce)
    for i in [*range(nonce_at), *range(nonce_at + 12, block.sealed.index(b"subject-1") + 9)]:
        damaged = bytearray(block.sealed)
        damaged[i] ^= 1 << i % 8
        assert restore_header(block.id, template, bytes(damaged)) == block.sealed


def damage(outbox: Outbox, seq: int, at: int) -> None:
    """Flip a bit of a stored vital block."""
    row_id, sealed = outbox._database.rows("SELECT id, sealed FROM blocks_vital WHERE id & 0xffffffff = ?", seq)[0]
    damaged = bytearray(sealed)
    damaged[at] ^= 1
    outbox._database.execute("UPDATE blocks_vital SET sealed = ? WHERE id = ?", bytes(damaged), row_id)


def test_a_damaged_header_is_restored_before_sending(open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture) -> None:
    outbox = open_outbox()
    outbox.put_many([("vital", b"a"), ("vital", b"b")])
    before = all_pending(outbox)
    assert caplog.records == []
    damage(outbox, 2, 20)
    assert all_pending(outbox) == before
    assert "restored the damaged header" in caplog.text


def test_a_block_that_cannot_be_restored_is_given_up_and_listed(
    open_outbox: OpenOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = open_outbox()
    chains = []
    for plaintext in (b"a", b"b", b"c"):
        outbox.put("vital", plaintext)
        chains.append(outbox.clinic_view().heads[1].chain)
    first, _, third = all_pending(outbox)
    damage(outbox, 2, -1)
    assert all_pending(outbox) == [first, third]
    assert "damaged on the disk" in caplog.text
    assert [(row.lane, row.first, row.last) for row in outbox.clinic_view().dropped] == [("vital", 2, 2)]
    assert outbox.statistics().dropped == 1
    for seq, listed in ((1, 1), (2, 0)):
        outbox.apply_ack(ack(marks=(Mark("vital", outbox.epoch, seq, chains[seq - 1]),)), EVERY_BLOCK)
        assert len(outbox.clinic_view().dropped) == listed

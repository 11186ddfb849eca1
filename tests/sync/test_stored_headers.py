"""Headers of stored blocks: every damaged bit but those of the nonce is restored."""

from pathlib import Path

import pytest

from sync.keys import HubKey
from sync.outbox import Outbox
from sync.seal import ClinicKeyPair, parse_header
from sync.wire import BlockId, Mark

EPOCH = 1_790_000_000


@pytest.mark.parametrize("seq", [1, 2, 24])
def test_restores_every_bit_of_a_header(tmp_path: Path, seq: int, caplog: pytest.LogCaptureFixture) -> None:
    def open_outbox() -> Outbox:
        return Outbox.open(
            tmp_path / "buffer.db",
            hub="hub-1",
            subject="subject-1",
            hub_key=HubKey(bytes(32)),
            clinic=ClinicKeyPair.generate().public,
            clock=lambda: EPOCH,
        )

    first = open_outbox()
    first.put("vital", b"of the epoch before")
    first.acknowledge([Mark("vital", first.epoch, 1)], [])
    first.close()
    outbox = open_outbox()
    outbox.put_many([("vital", b"%d" % n) for n in range(30)])
    stored = {block.id: block.sealed for block in outbox.pending("vital", (0, 0), 10**6)}
    assert caplog.records == []

    id_ = BlockId("vital", outbox.epoch, seq)
    sealed = stored[id_]
    header = parse_header(sealed)
    assert header.prev == ((EPOCH, 1) if seq == 1 else None)
    nonce_at = sealed.index(header.nonce)
    for i in [*range(nonce_at), *range(nonce_at + 12, sealed.index(b"subject-1") + 9)]:
        damaged = bytearray(sealed)
        damaged[i] ^= 1 << i % 8
        assert outbox._headers.restore(id_, header.key, bytes(damaged)) == sealed
    outbox.close()

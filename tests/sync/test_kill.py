"""kill -9 of a process that puts blocks: every block whose `put` returned is stored, and no sequence has a gap."""

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from sync.keys import HubKey
from sync.outbox import Outbox, OutboxBlock
from sync.seal import ClinicKeyPair, open_block, parse_header, unwrap_at_clinic
from sync.wire import BlockId, Lane

KILLS = 10


def run_and_kill(folder: Path, lines: int, delay_s: float) -> list[tuple[BlockId, bytes]]:
    """The blocks that the process reported as stored before it was killed, `delay_s` after the given number of lines."""
    script = Path(__file__).with_name("put_forever.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    with subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        output = [process.stdout.readline() for _ in range(lines)]
        time.sleep(delay_s)
        process.kill()
        output += process.stdout.readlines()
    rows = [line.split() for line in output if line.endswith(b"\n")]
    return [(BlockId(lane.decode(), int(epoch), int(seq)), number) for lane, epoch, seq, number in rows]  # type: ignore[arg-type]


def test_no_stored_block_is_lost_and_no_sequence_has_a_gap(tmp_path: Path) -> None:
    rng = random.Random(2)
    clinic = ClinicKeyPair.generate()
    clinic.public.save(tmp_path / "clinic.pub")
    returned: dict[BlockId, bytes] = {}
    for _ in range(KILLS):
        returned.update(run_and_kill(tmp_path, rng.randrange(1, 60), rng.uniform(0, 0.02)))

    outbox = Outbox.open(
        tmp_path / "outbox.db",
        hub="hub-1",
        subject="subject-1",
        hub_key=HubKey.load_or_create(tmp_path / "hub.key"),
        clinic=clinic.public,
        clock=lambda: int(time.time()),
    )
    stored = {block.id: block for lane in ("vital", "wave") for block in outbox.pending(lane, (0, 0), 2**40)}
    wrapped = dict(outbox.keys_for(block.key for block in stored.values()))
    keys = {id_: unwrap_at_clinic(w, key_id=id_, hub="hub-1", subject="subject-1", clinic=clinic) for id_, w in wrapped.items()}
    plaintexts = {id_: open_block(block.sealed, keys[block.key])[1] for id_, block in stored.items()}
    sequences: dict[tuple[Lane, int], list[int]] = defaultdict(list)
    for lane, epoch, seq in sorted(stored):
        sequences[lane, epoch].append(seq)

    assert {id_: plaintexts.get(id_) for id_ in returned} == returned
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in sequences.values())
    assert len({epoch for _, epoch in sequences}) == KILLS
    for lane in ("vital", "wave"):
        numbers = [int(plaintexts[id_]) for id_ in sorted(stored) if id_.lane == lane]
        assert numbers == list(range(1, len(numbers) + 1))  # the state is stored together with the blocks
        assert_epochs_are_linked(lane, sequences, stored)
    outbox.close()


def assert_epochs_are_linked(
    lane: Lane, sequences: dict[tuple[Lane, int], list[int]], stored: dict[BlockId, OutboxBlock]
) -> None:
    """The first block of each epoch names the last block of the previous epoch."""
    previous = None
    for epoch in sorted(epoch for other, epoch in sequences if other == lane):
        assert parse_header(stored[BlockId(lane, epoch, 1)].sealed).prev == previous
        previous = (epoch, sequences[lane, epoch][-1])

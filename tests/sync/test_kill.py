"""kill -9 of a process that puts blocks: every block whose `put` returned is stored, and no sequence has a gap."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from sync.chain import block_digest, extend_chain, start_chain
from sync.outbox import OutboxBlock
from sync.seal import LaneEnd, parse_header
from sync.wire import BlockId, Lane
from tests.sync.outboxes import all_pending, open_at, open_at_clinic

KILLS = 10


def run_and_kill(folder: Path, lines: int, delay_s: float, work: str = "put") -> list[tuple[BlockId, bytes]]:
    """The blocks that the process reported as stored before it was killed, `delay_s` after the given number of lines."""
    script = Path(__file__).with_name("put_forever.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[2])}
    with subprocess.Popen([sys.executable, script, folder, work], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        output = [process.stdout.readline() for _ in range(lines)]
        time.sleep(delay_s)
        process.kill()
        output += process.stdout.readlines()
    rows = [line.split() for line in output if line.endswith(b"\n") and line != b"begin\n"]
    return [(BlockId(lane.decode(), int(epoch), int(seq)), number) for lane, epoch, seq, number in rows]  # type: ignore[arg-type]


def test_no_stored_block_is_lost_and_no_sequence_has_a_gap(tmp_path: Path) -> None:
    rng = random.Random(2)
    returned: dict[BlockId, bytes] = {}
    for _ in range(KILLS):
        returned.update(run_and_kill(tmp_path, rng.randrange(1, 60), rng.uniform(0, 0.02)))

    outbox = open_at(tmp_path / "outbox.db")
    stored = {block.id: block for block in all_pending(outbox)}
    plaintexts = {id_: open_at_clinic(outbox, block) for id_, block in stored.items()}
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
    """The first block of each epoch names the last block of the previous epoch, and its chain value."""
    previous = None
    for epoch in sorted(epoch for other, epoch in sequences if other == lane):
        assert parse_header(stored[BlockId(lane, epoch, 1)].sealed).prev == previous
        chain = start_chain("hub-1", lane, epoch)
        for seq in sequences[lane, epoch]:
            chain = extend_chain(chain, block_digest(stored[BlockId(lane, epoch, seq)].sealed))
        previous = LaneEnd(epoch, sequences[lane, epoch][-1], chain)


def test_acknowledgements_are_applied_wholly_or_not_at_all(tmp_path: Path) -> None:
    """The process acknowledges all it has put, whenever it has put 20 blocks, and is killed at any time."""
    rng = random.Random(3)
    for _ in range(KILLS // 2):
        run_and_kill(tmp_path, rng.randrange(1, 60), rng.uniform(0, 0.02), "acknowledge")
        connection = sqlite3.connect(tmp_path / "outbox.db")
        counts = connection.execute("SELECT total(last), total(pending), total(released), total(open_bytes) FROM sequences")
        rows = connection.execute(
            "SELECT count(*), total(state < 4), total(state > 4), total((state < 4) * length(sealed)) FROM blocks_wave"
        )
        assert counts.fetchone() == rows.fetchone()
        connection.close()


def test_a_migration_that_is_killed_goes_on_and_seals_each_block_once(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    shutil.copy(Path(__file__).parent / "vectors" / "outbox_v2.db", path)
    connection = sqlite3.connect(path)
    for seq in range(100, 900):  # the row's number need not be that of the header
        connection.execute(
            "INSERT INTO blocks SELECT lane, epoch, ?, key, sealed FROM blocks WHERE lane = 'wave' AND seq = 1",
            (seq,),
        )
    connection.commit()
    connection.close()
    rng = random.Random(4)
    for attempt in range(KILLS // 2):
        run_and_kill(tmp_path, 1, rng.uniform(0, 0.1 * attempt), "open")
    outbox = open_at(path)
    waves = [open_at_clinic(outbox, block) for block in all_pending(outbox, ["wave"])]
    assert len(waves) == 801
    assert len(set(waves)) == 1
    assert outbox.statistics().stored == 801 + 4
    outbox.close()

"""The second reader, written from the documents alone, reads what a demo stored, and finds what the product finds."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.demo.demo_process import find_processes, read_status, run_demo, stop, wait_until
from tests.second_reader.blocks import Block, extend_chain, parse_block, start_chain
from tests.second_reader.cbor import decode
from tests.second_reader.clinic import read_clinic, read_device_key
from tests.second_reader.keys import verify_signature

SAMPLES_BEFORE = 300
SAMPLES_AFTER = 500
"""Of the demo's ECG, before and after the agent is killed once: two epochs with several blocks each."""
Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clinic's folder of a demo that has ended. Its agent was killed once."""
    path = tmp_path_factory.mktemp("demo")
    with run_demo(path, "--port", "0", "--data", str(path / "data")) as process:
        wait_until(lambda: read_status(path).get("samples_received", 0) > SAMPLES_BEFORE)
        os.kill(find_processes(process.pid)["agent"], signal.SIGKILL)
        wait_until(lambda: read_status(path).get("samples_received", SAMPLES_AFTER + 1) < SAMPLES_BEFORE)
        wait_until(lambda: read_status(path).get("samples_received", 0) > SAMPLES_AFTER)
        errors = stop(process)
    assert process.returncode == 0, errors
    return path / "data" / "clinic"


def as_line(block: tuple[str, str, int, int], record: Json) -> Json:
    """Return a record of the second reader as `pulsegate-cloud open --json` prints it."""
    hub, lane, epoch, seq = block
    line = {"hub": hub, "lane": lane, "epoch": epoch, "seq": seq, **record, **record.get("times", {})}
    line.pop("times", None)
    if record["type"] in ("vital", "status"):
        line.setdefault("origin", None)
    for holder in (line, line.get("strip") or {}):
        if "samples" in holder:
            samples = np.array(holder.pop("samples"), dtype="<i4")
            holder |= {"n": len(samples), "samples_crc32": zlib.crc32(samples.tobytes())}
    return line


def test_both_readers_find_the_same_records(folder: Path) -> None:
    command = [sys.executable, "-m", "cloud.cli", "open", "--data", str(folder), "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    *lines, account = (json.loads(line) for line in printed.splitlines())
    clinic = read_clinic(folder)
    assert clinic.refused == {}
    assert len(clinic.records) == account["blocks"] > 5
    read = [as_line(block, record) for block, records in clinic.records.items() for record in records]
    assert len(read) == account["records"] > 30
    assert sum(line.get("n", 0) for line in read if line["type"] == "waveform") > SAMPLES_AFTER // 2

    def key(line: Json) -> str:
        return json.dumps(line, sort_keys=True)

    assert sorted(map(key, read)) == sorted(map(key, lines))


def read_blocks(store: sqlite3.Connection) -> dict[tuple[str, str, int], list[Block]]:
    """Return the blocks of each hub, lane and epoch, in the order of their numbers."""
    found: dict[tuple[str, str, int], list[Block]] = {}
    for hub, lane, epoch, data in store.execute("SELECT hub, lane, epoch, block FROM blocks ORDER BY hub, lane, epoch, seq"):
        found.setdefault((hub, lane, epoch), []).append(parse_block(data))
    return found


def test_chains_marks_heads_and_ends_of_epochs_are_as_documented(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "blocks.db")) as store:
        blocks = read_blocks(store)
        marks = store.execute("SELECT hub, lane, epoch, seq, chain FROM marks").fetchall()
        epochs = store.execute("SELECT hub, epoch, previous, heads, content, signature FROM epochs ORDER BY epoch").fetchall()
    chains: dict[tuple[str, str, int], list[bytes]] = {}
    for (hub, lane, epoch), found in blocks.items():
        assert [block.header["seq"] for block in found] == list(range(1, len(found) + 1))
        ends = [
            (of, len(chain) - 1, chain[-1]) for (name, of_lane, of), chain in chains.items() if (name, of_lane) == (hub, lane)
        ]
        assert found[0].header.get("prev") == (list(max(ends)) if ends else None)
        chain = chains[hub, lane, epoch] = [start_chain(hub, lane, epoch)]
        for block in found:
            chain.append(extend_chain(chain[-1], block.digest))
    for hub, lane, epoch, seq, chain in marks:
        assert (seq, chain) == (len(chains[hub, lane, epoch]) - 1, chains[hub, lane, epoch][-1])
    assert len(marks) == len(chains) > 2
    for hub, epoch, _, heads, content, signature in epochs:
        verify_signature(read_device_key(folder, hub), signature, "pulsegate envelope", hub, epoch, decode(heads), content)
        for lane, seq, chain, _ in decode(heads):
            known = chains.get((hub, lane, epoch), [start_chain(hub, lane, epoch)])
            assert known[seq] == chain
            assert seq == len(known) - 1 or epoch == epochs[0][1]  # the killed agent had not sent its last blocks
    assert [row[2] for row in epochs] == [None, epochs[0][1]]

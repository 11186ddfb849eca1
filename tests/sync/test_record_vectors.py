"""The frozen plaintexts of format 2 are read as they were written, and the damaged ones are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sync.record_codec import decode_records, encode_records
from sync.records import GapRecord, RecordError, Times, WaveformRecord
from tests.sync.record_vectors import PATH, as_json

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["records"], ids=lambda vector: vector["name"])
def test_reads_the_frozen_plaintexts(vector: dict[str, Any]) -> None:
    plaintext = bytes.fromhex(vector["plaintext"])
    records = decode_records(plaintext)
    assert json.dumps([as_json(record) for record in records]) == json.dumps(vector["records"])
    assert (encode_records(records) == plaintext) is vector["canonical"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_refuses_the_frozen_damaged_plaintexts(vector: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        decode_records(bytes.fromhex(vector["plaintext"]))


def test_the_example_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    example = page.split("## Example")[1].split("```")[1]
    documented = "".join(line.split("#")[0] for line in example.splitlines())
    start_us, next_us = 1_790_000_000_000_000, 1_790_000_000_030_769
    first, second = Times(start_us, start_us + 20_000, 5_000_000_700), Times(next_us, next_us + 20_000, 5_030_770_000)
    records = [
        WaveformRecord("strap", "ecg", first, 130.0, 0.001, np.array([3, 5, 4], np.int32)),
        GapRecord("strap", "ecg", start_us + 15_385, next_us, 1, "notifications were lost"),
        WaveformRecord("strap", "ecg", second, 130.0, 0.001, np.array([-2], np.int32)),
    ]
    assert encode_records(records) == bytes.fromhex(documented)

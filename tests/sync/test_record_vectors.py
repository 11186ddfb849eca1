"""The frozen plaintexts of format 2 are read as they were written, and the damaged ones are refused."""

import json
from typing import Any

import pytest

from sync.record_codec import decode_records, encode_records
from sync.records import RecordError
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

"""Blocks and wrapped keys that come in place of stored ones are kept aside and reported: log, counters, `open`."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cloud import store_tables
from cloud.api.counters import read_counters
from cloud.cli import main
from cloud.ingest import handle_message
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from sync.mqtt import Message
from sync.records import AlertRecord, encode_records
from sync.seal import BlockHeader, ClinicKeyPair, DataKey, seal_block, wrap_for_clinic
from sync.wire import Ack, Envelope, WrappedKey, encode_envelope, up_topic
from tests.cloud.synthetic import START_US, Hub, alert
from tests.databases import ON_BOTH

DATABASES = ON_BOTH


@pytest.fixture
def folder(tmp_path: Path, clinic_keys: ClinicKeyPair) -> Path:
    clinic_keys.save(tmp_path / "clinic.key")
    return tmp_path


def send(store: Store, hub: Hub, key: DataKey, seq: int, record: AlertRecord, wrapped: bytes) -> Ack:
    header = BlockHeader(hub.name, hub.subject, 1, "alert", seq, key.id)
    envelope = Envelope(hub.name, (seal_block(header, encode_records([record]), key),), (WrappedKey(key.id, wrapped),))
    ack, _ = handle_message(store, Message(up_topic(hub.name, "alert"), encode_envelope(envelope)), START_US)
    assert ack is not None
    return ack


def read_account(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    code = main(["open", "--data", str(folder)])
    output = capsys.readouterr()
    return code, json.loads(output.out.splitlines()[-1]), output.err


def test_a_block_in_place_of_another_is_reported(
    folder: Path,
    engine: Engine,
    hub: Hub,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrapped = hub.wrapped.wrapped
    with closing(Store.open(folder / "blocks.db")) as store:
        send(store, hub, hub.key, 1, alert(id="first"), wrapped)
        assert read_account(folder, capsys)[0] == 0
        other = alert(id="CANARY-4711")
        for _ in range(2):
            ack = send(store, hub, hub.key, 1, other, wrapped)
            assert [tuple(rejected) for rejected in ack.rejected] == [("alert", 1, 1, "conflict")]
        counters = read_counters(store, engine, EVERY_SUBJECT)
    assert (counters["blocks"]["conflicts"], counters["blocks"]["quarantined"]) == (2, 2)  # each was sealed with a new nonce
    assert counters["keys"] == {"conflicts": 0}
    assert [record.getMessage().count("hub hub-1 sent 1 blocks") for record in caplog.records] == [1, 1]
    assert "block alert/1/1" in caplog.text
    assert "CANARY" not in caplog.text
    code, account, error = read_account(folder, capsys)
    assert (code, account["conflicts"], account["quarantined"], account["unopened"]) == (1, 2, 2, {})
    assert "2 blocks and 0 wrapped keys came in place of others" in error
    assert error.count("\n") == 1


def test_another_wrapped_key_with_the_id_of_a_stored_one_is_not_acknowledged(
    folder: Path,
    engine: Engine,
    hub: Hub,
    clinic_keys: ClinicKeyPair,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """First comes a wrapping of other bytes under the key's id, then the right one."""
    strange = DataKey(hub.key.id, bytes(32))
    first, right = (
        wrap_for_clinic(key, hub=hub.name, subject=hub.subject, clinic=clinic_keys.public) for key in (strange, hub.key)
    )
    with closing(Store.open(folder / "blocks.db")) as store:
        assert send(store, hub, hub.key, 1, alert(id="one"), first).keys == (hub.key.id,)
        for seq in (2, 3):
            assert send(store, hub, hub.key, seq, alert(id=f"alert-{seq}"), right).keys == ()
        assert store.wrapped_key(hub.name, hub.key.id) == first
        with store.transaction() as connection:
            kept = connection.execute(select(store_tables.rejected_keys.c.wrapped)).scalars().all()
        assert kept == [right]
        assert read_counters(store, engine, EVERY_SUBJECT)["keys"] == {"conflicts": 1}
    (line,) = caplog.records  # a key that comes again is reported once
    assert f"data key {hub.key.id.hex()}" in line.getMessage()
    code, account, error = read_account(folder, capsys)
    assert (code, account["key_conflicts"], account["conflicts"]) == (1, 1, 0)
    assert "3 of 3 blocks could not be opened" in error
    assert "0 blocks and 1 wrapped keys came in place of others" in error


def test_a_second_block_of_the_same_message_with_the_same_id_is_a_conflict(store: Store, hub: Hub) -> None:
    sealed = [hub.seal("vital", text) for text in (b"first", b"other")]
    header = sealed[0][0]
    blocks = [(header, sealed[0][1]), (header, sealed[0][1]), (header, sealed[1][1])]
    result = store.commit(hub.name, [hub.wrapped], blocks, START_US)
    assert (result.new, len(result.held), len(result.conflicts), result.new_conflicts) == (1, 2, 1, 1)
    assert store.blocks_after(None, 9)[0].block == sealed[0][1]

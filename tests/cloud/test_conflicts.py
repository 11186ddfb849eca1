"""Blocks, statements and wrapped keys that come in place of stored ones are kept aside and reported: log, counters, `open`."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from cloud.api.counters import read_counters
from cloud.cli import main
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store import tables as store_tables
from sync.data_keys import DataKey, WrappedKey, sign_statement, wrap_key
from sync.messages import Ack, Envelope, encode_envelope
from sync.mqtt import Message
from sync.record_codec import encode_records
from sync.records import AlertRecord
from sync.seal import seal_block
from sync.wire import up_topic
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.synthetic import START_US, alert, heart_rate
from tests.databases import ON_BOTH

DATABASES = ON_BOTH


def seal(hub: Hub, seq: int, record: AlertRecord) -> bytes:
    return seal_block(hub.header("alert", seq), encode_records([record]), hub.key)


def send(store: Store, hub: Hub, envelope: Envelope) -> Ack:
    return hub.receive(store, Message(up_topic(hub.name, "alert"), encode_envelope(envelope, hub.device)))[0]


def read_account(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    code = main(["open", "--data", str(folder)])
    output = capsys.readouterr()
    return code, json.loads(output.out.splitlines()[-1]), output.err


def kept_keys(store: Store) -> list[bytes]:
    with store.transaction() as connection:
        return list(connection.scalars(select(store_tables.rejected_keys.c.bytes)))


def test_a_block_in_place_of_another_is_reported(
    tmp_path: Path, engine: Engine, hub: Hub, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Store.open(tmp_path / "blocks.db")) as store:
        hub.send(store, "alert", alert(id="first"))
        assert read_account(tmp_path, capsys)[0] == 0
        for _ in range(2):
            ack, n_new = hub.receive(store, hub.message(seal(hub, 1, alert(id="CANARY-4711"))))
            assert [(*row[:3], row.reason) for row in ack.aside] == [("alert", hub.epoch, 1, "conflict")]
            assert n_new == 0
        counters = read_counters(store, engine, EVERY_SUBJECT)
    assert (counters["blocks"]["conflicts"], counters["blocks"]["quarantined"]) == (2, 2)  # each was sealed with a new nonce
    assert counters["keys"] == {"conflicts": 0}
    assert [record.getMessage().count("hub hub-1 sent 1 blocks") for record in caplog.records] == [1, 1]
    assert f"block alert/{hub.epoch}/1" in caplog.text
    assert "CANARY" not in caplog.text
    code, account, error = read_account(tmp_path, capsys)
    assert (code, account["conflicts"], account["quarantined"], account["unopened"]) == (1, 2, 2, {})
    assert "2 blocks and 0 data keys came in place of stored ones" in error
    assert error.count("\n") == 1


def test_another_wrapped_key_in_place_of_a_stored_one_is_not_acknowledged(
    tmp_path: Path,
    engine: Engine,
    hub: Hub,
    clinic: Clinic,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """First comes a wrapping of other bytes under the key's id, then the right one."""
    strange = DataKey(hub.key.id, bytes(32))
    first = wrap_key(strange, hub=hub.name, subject=hub.subject, recipient=clinic.recipient(hub.subject))
    with closing(Store.open(tmp_path / "blocks.db")) as store:
        ack = send(store, hub, replace(hub.envelope(hub.seal_records("alert", alert(id="one"))), wraps=(first,)))
        assert ack.wraps == (first[:2],)
        for n in (2, 3):
            ack = send(store, hub, hub.envelope(hub.seal_records("alert", alert(id=f"alert-{n}"))))
            assert (ack.keys, ack.wraps) == ((hub.key.id,), ())
        assert store.wrapped_keys(hub.name, hub.key.id) == [first]
        assert kept_keys(store) == [hub.wrapped.wrapped]
        assert read_counters(store, engine, EVERY_SUBJECT)["keys"] == {"conflicts": 1}
    (line,) = caplog.records  # a key that comes again is reported once
    assert f"data key {hub.key.id.hex()}" in line.getMessage()
    code, account, error = read_account(tmp_path, capsys)
    assert (code, account["key_conflicts"], account["conflicts"]) == (1, 1, 0)
    assert "3 of 3 blocks could not be opened" in error
    assert "0 blocks and 1 data keys came in place of stored ones" in error


def test_another_statement_of_a_stored_data_key_is_not_acknowledged(store: Store, hub: Hub) -> None:
    """Another signature of the same statement is no conflict: ECDSA gives another one each time."""
    hub.send(store, "vital", heart_rate(START_US, 60.0))
    again, other = (
        sign_statement(key, hub=hub.name, subject=hub.subject, day=hub.statement.day, device=hub.device)
        for key in (hub.key, DataKey(hub.key.id, bytes(32)))
    )
    assert again.signature != hub.statement.signature
    assert send(store, hub, replace(hub.envelope(), keys=(again,))).keys == (hub.key.id,)
    assert kept_keys(store) == []
    for _ in range(2):
        assert send(store, hub, replace(hub.envelope(), keys=(other,))).keys == ()
        assert store.key_statement(hub.name, hub.key.id) == hub.statement
        assert (len(kept_keys(store)), store.counts().key_conflicts) == (1, 1)


def test_conflicts_within_one_message_are_kept_aside(store: Store, hub: Hub) -> None:
    first, other = seal(hub, 1, alert(id="first")), seal(hub, 1, alert(id="other"))
    strange = WrappedKey(hub.key.id, hub.wrapped.recipient, b"strange")
    ack = send(store, hub, replace(hub.envelope(first, first, other), wraps=(hub.wrapped, strange)))
    assert ([len(row.digests) for row in ack.held], [row.reason for row in ack.aside]) == ([1], ["conflict"])
    assert [block.block for block in store.blocks_after(None, 9)] == [first]
    assert store.counts()[:4] == (1, 1, 1, 1)

"""Rules of `docs/records.md` and `docs/protocol.md` for which no vector is frozen, in the independent reader."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.second_reader import cbor
from tests.second_reader.blocks import check_statement, parse_block
from tests.second_reader.cbor import RefusedError
from tests.second_reader.clinic import read_clinic
from tests.second_reader.keys import unwrap_key
from tests.second_reader.packing import encode_column, pack_floats, pack_integers, unpack_floats, unpack_integers
from tests.second_reader.records import decode_plaintext, encode_plaintext
from tests.second_reader.test_vectors import (
    BLOCKS,
    DEVICE,
    FINGERPRINT,
    HUB,
    KEY_ID,
    RECIPIENT,
    STATEMENT,
    SUBJECT,
    WRAPPED,
    R,
    V,
    count_accepted,
    flips,
    seal,
)

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9), max_size=12)
EXAMPLE = next(vector for vector in R["records"] if vector["name"] == "groups in turn")
SHORT_ALERT = {
    "type": "alert",
    "id": "a",
    "sensor": "s",
    "kind": "k",
    "priority": "low",
    "onset_us": 1,
    "decided_us": 2,
    "source": "rule:k",
    "reasons": [],
}
NO_SENSOR_CLOCK = dict.fromkeys(("sensor_ns", "offset_ns", "drift_ppm"))
STRIP = {"start_us": 1, "rate_hz": 130.0, "scale": 0.001, "samples": [1, 2], "beats_us": [], "labels": ""}
STRIP |= {"part": None, "mark_from_us": None, "mark_to_us": None}

EXAMPLE_OF_THE_DOCUMENT = bytes.fromhex(
    "a2"
    "656974656d73"
    "82"
    "aa"
    "646b696e6463656367"
    "64747970656877617665666f726d"
    "6561745f75734d4f028080afa2dbffad06783100"
    "657363616c65fb3f50624dd2f1a9fc"
    "66636f756e747343020274"
    "6673656e736f72657374726170"
    "67726174655f687a46c00702242040"
    "6773616d706c657345020449d180"
    "6a617272697665645f7573464002c0b80280"
    "6f617272697665645f6d6f6e6f5f6e73"
    "4d480287e1f1b1dfe0add7312b00"
    "a7"
    "646b696e6463656367"
    "647479706563676170"
    "65746f5f75731b00065bfeda265831"
    "66726561736f6e77"
    "6e6f74696669636174696f6e732077657265206c6f7374"
    "6673656e736f72657374726170"
    "6766726f6d5f75731b00065bfeda261c19"
    "676d697373696e6701"
    "656f7264657243000398"
)


def example() -> dict[str, Any]:
    frame = cbor.decode(bytes.fromhex(EXAMPLE["plaintext"]))
    assert isinstance(frame, dict)
    return frame


@pytest.mark.parametrize(
    ("values", "packed"),
    [
        ([], "0000"),
        ([5], "020130"),
        ([3, 5, 4, -2], "020449d180"),
        ([1000] * 4, "4004d00fe0"),
        (list(range(1000, 1050, 7)), "8008d00f0efc"),
        ([-(2**63)], "3f017fffffffffffffff80"),
        ([60.0, 61.0], "c006025e3a"),
        ([27.85], "c20b013708"),
        ([-0.0], "ff3f017fffffffffffffff80"),
    ],
)
def test_columns_of_the_document(values, packed):
    assert encode_column(values) == bytes.fromhex(packed)
    unpack = unpack_floats if values and isinstance(values[0], float) else unpack_integers
    assert json.dumps(unpack(bytes.fromhex(packed))) == json.dumps(values)


def test_the_example_of_the_document():
    def frame(at_us: int, arrived_mono_ns: int, samples: list[int]) -> dict[str, Any]:
        times = {"at_us": at_us, "arrived_us": at_us + 20_000, "arrived_mono_ns": arrived_mono_ns} | NO_SENSOR_CLOCK
        shared = {"type": "waveform", "sensor": "strap", "kind": "ecg", "scale": 0.001, "rate_hz": 130.0}
        return {**shared, "times": times, "samples": samples}

    missing = {"from_us": 1790000000015385, "to_us": 1790000000030769, "missing": 1, "reason": "notifications were lost"}
    gap = {"type": "gap", "sensor": "strap", "kind": "ecg", **missing, "from_sensor_ns": None, "to_sensor_ns": None}
    first, last = frame(1790000000000000, 5000000700, [3, 5, 4]), frame(1790000000030769, 5030770000, [-2])
    assert encode_plaintext([first, gap, last]) == EXAMPLE_OF_THE_DOCUMENT
    assert decode_plaintext(EXAMPLE_OF_THE_DOCUMENT) == [first, gap, last]


@given(INTEGERS)
def test_integers_have_the_shortest_form(values):
    packed = pack_integers(values)
    assert unpack_integers(packed) == values
    differences, sizes = values, []
    n_head_bytes = 0
    for _ in range(min(2, len(values)) + 1):
        codes = [2 * v if v >= 0 else -2 * v - 1 for v in differences]
        n_bits = min(sum((code >> k) + 1 + k for code in codes) for k in range(64))
        sizes.append(2 + n_head_bytes + (n_bits + 7) // 8)
        n_head_bytes += max(1, (codes[0].bit_length() + 6) // 7) if codes else 0
        differences = [(b - a + 2**63) % 2**64 - 2**63 for a, b in pairwise(differences)]
    assert len(packed) == min(sizes)


@given(st.lists(st.floats(allow_nan=False) | st.decimals(-9999, 9999, places=3).map(float)))
def test_floats_come_back(values):
    assert json.dumps(unpack_floats(pack_floats(values))) == json.dumps(values)


@pytest.mark.parametrize(
    "encoded",
    [
        "1817",
        "190018",
        "fa3f800000",
        "fb3ff0000000000000",
        "f97e01",
        "fb7ff8000000000000",
        "f7",
        "f0",
        "c001",
        "9fff",
        "5f40ff",
        "a20001",
        "a2616201616101",
        "a2616101616101",
        "a10101",
        "61ff",
        "1c",
        "6261",
        "0000",
        "",
        "81" * 17 + "00",
    ],
)
def test_other_cbor_is_refused(encoded):
    with pytest.raises(RefusedError):
        cbor.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    "encoded",
    ["17", "1818", "3bffffffffffffffff", "f93c00", "fa47c35000", "fb3ff199999999999a", "f97e00", "f98000", "fa7f7fffff"],
)
def test_deterministic_cbor_comes_back(encoded):
    assert cbor.encode(cbor.decode(bytes.fromhex(encoded))).hex() == encoded
    assert cbor.decode(bytes.fromhex("81" * 16 + encoded)) != []


@pytest.mark.parametrize(
    ("unpack", "packed"), [(unpack_integers, "050140"), (unpack_integers, "02810030"), (unpack_floats, "c1030130")]
)
def test_another_packed_form_is_refused(unpack, packed):
    with pytest.raises(RefusedError, match="only form"):
        unpack(bytes.fromhex(packed))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"order": pack_integers([0, 1, 0, 0, 2])}, "another number of records than places"),
        ({"order": pack_integers([1, 0, 2, 0])}, "first appear"),
        ({"order": pack_integers([0, 1, 0])}, "first appear"),
        ({"order": [0, 1, 0, 2]}, "not packed"),
        ({"items": []}, "first appear"),
        ({"items": {}}, "not a list"),
        ({"crit": ["later"], "later": 1}, "crit"),
    ],
)
def test_a_frame_that_is_refused(fields, reason):
    with pytest.raises(RefusedError, match=reason):
        decode_plaintext(cbor.encode(example() | fields))


def test_crit_cannot_name_an_absent_field():
    assert decode_plaintext(cbor.encode({"items": [], "crit": ["items"]})) == []
    with pytest.raises(RefusedError, match="absent"):
        decode_plaintext(cbor.encode({"items": [], "crit": ["order"]}))


def test_an_unwrapped_key_must_be_the_committed_one():
    statement = replace(STATEMENT, commitment=bytes(32))
    with pytest.raises(RefusedError, match="names another data key"):
        unwrap_key(WRAPPED, RECIPIENT, HUB, statement)


def test_a_statement_of_another_day_is_refused():
    private = ec.derive_private_key(int(V["device_private"], 16), ec.SECP256R1())
    day = STATEMENT.day + 1
    signed = cbor.encode(["pulsegate data key", 2, HUB, KEY_ID, STATEMENT.commitment, SUBJECT, day])
    r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(SHA256())))
    with pytest.raises(RefusedError, match="another key, subject or day"):
        check_statement(parse_block(BLOCKS[0]), replace(STATEMENT, day=day, signature=r.to_bytes(32) + s.to_bytes(32)), DEVICE)


def test_damage_gets_the_declared_error():
    changed = flips(encode_plaintext([SHORT_ALERT | {"strip": STRIP}]))
    n_accepted = count_accepted(decode_plaintext, changed)
    assert 0 < n_accepted < len(changed) / 2


def test_a_refused_item_costs_only_itself():
    frame = example()
    frame["items"][0]["counts"] = b"\x00"
    records = decode_plaintext(cbor.encode(frame))
    assert [record["type"] for record in records] == ["refused", "gap", "waveform"]
    assert records[0]["content"] == cbor.encode(frame["items"][0])


def test_an_item_of_an_unknown_type_can_have_several_places():
    frame = example()
    frame["items"][0] = {"type": "later", "crit": ["never heard of"]}
    assert [record["type"] for record in decode_plaintext(cbor.encode(frame))] == ["unknown", "gap", "waveform"]


def test_a_refused_item_without_a_sensor_costs_the_plaintext():
    frame = example()
    frame["items"][0] |= {"counts": b"\x00", "sensor": 7}
    with pytest.raises(RefusedError, match="without a sensor"):
        decode_plaintext(cbor.encode(frame))


@pytest.mark.parametrize(("crit", "is_read"), [([], True), (["labels"], True), (["lead"], False), (["crit"], False)])
def test_crit_in_a_strip(crit, is_read):
    frame = cbor.decode(encode_plaintext([{**SHORT_ALERT, "strip": STRIP}]))
    frame["items"][0]["strip"] |= {"lead": "II", "crit": crit}
    frame["items"].append({"type": "gap", "sensor": "s", "kind": "k", "from_us": 1, "reason": "r"})
    first = decode_plaintext(cbor.encode(frame))[0]
    assert first["type"] == ("alert" if is_read else "refused")
    assert not is_read or first["strip"] == STRIP


@pytest.mark.parametrize(("n", "types"), [(1000, ["intervals"] * 1000 + ["gap"]), (1001, ["refused", "gap"])])
def test_intervals_beyond_the_limit(n, types):
    times = {"at_us": 1, "arrived_us": 1, "arrived_mono_ns": 1} | NO_SENSOR_CLOCK
    reading = {"type": "intervals", "sensor": "s", "kind": "rr", "times": times, "ticks": [1000] * 200}
    gap = {"type": "gap", "sensor": "s", "kind": "rr", "from_us": 1, "reason": "r"}
    assert [record["type"] for record in decode_plaintext(encode_plaintext([*[reading] * n, gap]))] == types


@pytest.mark.parametrize(
    ("fields", "is_read"),
    [
        ({"later": 7}, True),
        ({"crit": ["seq"]}, True),
        ({"later": 7, "crit": ["later"]}, False),
        ({"crit": "seq"}, False),
        ({"crit": [[]]}, False),
        ({"crit": {}}, False),
        ({"prev": [1, 1, bytes(32)]}, False),
        ({"seq": True}, False),
        ({"seq": 2**53}, False),
        ({"hub": ".."}, False),
        ({"lane": "wav"}, False),
    ],
)
def test_fields_of_a_header(fields, is_read):
    block = seal(parse_block(BLOCKS[1]).header | fields, b"x")
    assert count_accepted(parse_block, [block]) == is_read


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A clinic's folder with the two blocks of the vectors, whose plaintext is no record, and one that holds a record."""
    keys = tmp_path / "keys" / SUBJECT
    keys.mkdir(parents=True)
    key = keys / "1.key"
    key.write_text(f"pulsegate recipient private key, version 2\n{V['recipient_private']}\n")
    key.chmod(0o600)
    (tmp_path / "hubs").mkdir()
    (tmp_path / "hubs" / f"{HUB}.toml").write_text(f'device_key = "{DEVICE.hex()}"\n')
    header = parse_block(BLOCKS[1]).header | {"seq": 3}
    stored = [parse_block(data) for data in [*BLOCKS, seal(header, encode_plaintext([SHORT_ALERT]))]]
    names = ("hub", "epoch", "lane", "seq", "subject", "key")
    rows = [(*(block.header[name] for name in names), block.digest, block.prefix + block.ciphertext) for block in stored]
    with closing(sqlite3.connect(tmp_path / "blocks.db")) as store, store:
        store.execute("CREATE TABLE blocks (hub, epoch, lane, seq, subject, key, digest, block)")
        store.execute("CREATE TABLE statements (hub, id, commitment, subject, day, signature)")
        store.execute("CREATE TABLE wrapped_keys (hub, id, recipient, wrapped)")
        store.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        statement = (HUB, KEY_ID, STATEMENT.commitment, SUBJECT, STATEMENT.day, STATEMENT.signature)
        store.execute("INSERT INTO statements VALUES (?, ?, ?, ?, ?, ?)", statement)
        store.execute("INSERT INTO wrapped_keys VALUES (?, ?, ?, ?)", (HUB, KEY_ID, FINGERPRINT, WRAPPED))
    return tmp_path


@pytest.mark.parametrize(("days", "n_opened"), [(0, 1), (-1, 0)])
def test_a_former_device_key_counts_until_the_day_of_its_end(clinic, days, n_opened):
    other = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    until = datetime.fromtimestamp((STATEMENT.day + days) * 86_400, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    former = f'[[former_key]]\nkey = "{DEVICE.hex()}"\nuntil = {until}\n'
    (clinic / "hubs" / f"{HUB}.toml").write_text(f'device_key = "{other.hex()}"\n{former}')
    content = read_clinic(clinic)
    assert len(content.records) == n_opened


def test_a_clinics_blocks_are_opened(clinic):
    content = read_clinic(clinic)
    absent = dict.fromkeys(("end_us", "probability", "measured", "strip", "raised_us"))
    assert content.records == {(HUB, "wave", V["epoch"], 3): [SHORT_ALERT | absent]}
    assert list(content.refused) == [(HUB, "wave", V["epoch"], seq) for seq in (1, 2)]
    assert all("CBOR" in reason for reason in content.refused.values())  # they opened; their plaintext is English


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE statements SET day = day + 1", "signature of a pulsegate data key is wrong"),
        ("DELETE FROM statements", "no statement"),
        ("DELETE FROM wrapped_keys", "no recipient"),
        ("UPDATE wrapped_keys SET wrapped = zeroblob(1168)", "wrapped key does not open"),
        ("UPDATE blocks SET seq = seq + 1", "stored as another"),
        ("UPDATE blocks SET digest = x'00'", "another digest"),
    ],
)
def test_a_clinics_damaged_rows_are_refused(clinic, change, reason):
    with closing(sqlite3.connect(clinic / "blocks.db")) as store, store:
        store.execute(change)
    content = read_clinic(clinic)
    assert not content.records
    assert all(reason in told for told in content.refused.values())
    assert len(content.refused) == 3


def test_a_key_file_with_another_title_is_refused(clinic):
    (clinic / "keys" / SUBJECT / "1.key").write_text(f"pulsegate device private key, version 2\n{V['recipient_private']}\n")
    assert all("not a pulsegate recipient" in told for told in read_clinic(clinic).refused.values())


def test_a_key_that_others_can_read_is_refused(clinic):
    (clinic / "keys" / SUBJECT / "1.key").chmod(0o644)
    assert all("users other than the owner" in told for told in read_clinic(clinic).refused.values())

"""An independent reader, written from `docs/protocol.md` and `docs/records.md` alone, agrees with the frozen vectors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.second_reader import audit, cbor
from tests.second_reader.blocks import check_statement, extend_chain, open_block, parse_block, start_chain
from tests.second_reader.cbor import RefusedError
from tests.second_reader.commands import open_command
from tests.second_reader.keys import Statement, commit, load_recipient, unwrap_key, verify_statement
from tests.second_reader.messages import open_acknowledgement, open_envelope, open_receipt, open_status
from tests.second_reader.records import decode_plaintext, encode_plaintext

VECTORS = Path(__file__).parents[1] / "sync" / "vectors"
V: dict[str, Any] = json.loads((VECTORS / "format_2.json").read_text())
A: dict[str, Any] = json.loads((VECTORS / "audit_1.json").read_text())
V1: dict[str, Any] = json.loads((VECTORS / "revision_1.json").read_text())
R: dict[str, Any] = json.loads((VECTORS / "records_2.json").read_text())
C: dict[str, Any] = json.loads((VECTORS / "commands_1.json").read_text())
HUB, SUBJECT, EPOCH, PREVIOUS = V["hub"], V["subject"], V["epoch"], V["previous_epoch"]
KEY_ID, DATA_KEY = bytes.fromhex(V["key_id"]), bytes.fromhex(V["data_key"])
DEVICE = bytes.fromhex(V["device_public"])
STATEMENT = Statement(KEY_ID, bytes.fromhex(V["commitment"]), SUBJECT, V["day"], bytes.fromhex(V["statement_signature"]))
BLOCKS = [bytes.fromhex(block["block"]) for block in V["blocks"]]
WRAPPED = bytes.fromhex(V["wrapped_key"])
RECIPIENT = load_recipient(bytes.fromhex(V["recipient_private"]))
FINGERPRINT = bytes.fromhex(V["recipient_fingerprint"])
MESSAGES: dict[str, tuple[Callable[[bytes, bytes], dict[str, Any]], str]] = {
    "envelope": (open_envelope, "device_public"),
    "acknowledgement": (open_acknowledgement, "acknowledgement_public"),
    "receipt": (open_receipt, "receipt_public"),
}
DIGESTS = [bytes.fromhex(block["digest"]) for block in V["blocks"]]
CHAINS = [bytes.fromhex(block["chain"]) for block in V["blocks"]]
STORE, ZEROS = bytes(range(16, 32)), bytes(32)


def flips(data: bytes) -> list[bytes]:
    """Every change of one bit."""
    number, n_bytes = int.from_bytes(data), len(data)
    return [(number ^ (1 << bit)).to_bytes(n_bytes) for bit in range(8 * n_bytes)]


def count_accepted(function: Callable[[bytes], object], inputs: list[bytes]) -> int:
    n_accepted = 0
    for data in inputs:
        try:
            function(data)
        except RefusedError:
            continue
        n_accepted += 1
    return n_accepted


def to_json(value: Any) -> str:
    """A text that tells integers, floats and the two zeros apart."""
    return json.dumps(value, default=bytes.hex, sort_keys=True)


def open_message(name: str, data: bytes) -> dict[str, Any]:
    opener, key = MESSAGES[name]
    return opener(data, bytes.fromhex(V[key]))


@pytest.mark.parametrize("name", ["device", "acknowledgement", "receipt"])
def test_public_keys_belong_to_the_private_keys(name):
    private = ec.derive_private_key(int(V[f"{name}_private"], 16), ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert public.hex() == V[f"{name}_public"]


def test_recipient_statement_and_wrapped_key():
    assert RECIPIENT.public.hex() == V["recipient_public"]
    assert RECIPIENT.fingerprint == FINGERPRINT
    assert commit(DATA_KEY, KEY_ID).hex() == V["commitment"]
    verify_statement(DEVICE, HUB, STATEMENT)
    assert unwrap_key(WRAPPED, RECIPIENT, HUB, STATEMENT) == DATA_KEY


def test_blocks_open_and_chain():
    chain = start_chain(HUB, "wave", EPOCH)
    assert chain.hex() == V["chain_start"]
    for data, expected in zip(BLOCKS, V["blocks"], strict=True):
        block = parse_block(data)
        check_statement(block, STATEMENT, DEVICE)
        assert open_block(block, DATA_KEY).decode() == expected["plaintext"]
        assert block.digest.hex() == expected["digest"]
        chain = extend_chain(chain, block.digest)
        assert chain.hex() == expected["chain"]
        header = {"hub": HUB, "subject": SUBJECT, "epoch": EPOCH, "lane": "wave", "seq": expected["seq"], "key": KEY_ID}
        assert {name: block.header[name] for name in header} == header
    assert parse_block(BLOCKS[0]).header["prev"] == [PREVIOUS, 7, bytes(range(32))]
    assert "prev" not in parse_block(BLOCKS[1]).header


def seal(header: dict[str, Any], plaintext: bytes) -> bytes:
    encoded = cbor.encode(header)
    prefix = b"PG\x02" + len(encoded).to_bytes(2) + encoded
    return prefix + AESGCMSIV(DATA_KEY).encrypt(header["nonce"], plaintext, prefix)


def test_blocks_are_written_as_the_document_says():
    for data, expected in zip(BLOCKS, V["blocks"], strict=True):
        assert seal(parse_block(data).header, expected["plaintext"].encode()) == data


def test_envelope():
    wave = ["wave", 2, CHAINS[1], 1]
    assert open_message("envelope", bytes.fromhex(V["envelope"])) | {"sig": None} == {
        "v": 2,
        "hub": HUB,
        "epoch": [EPOCH, PREVIOUS],
        "heads": [*([lane, 0, start_chain(HUB, lane, EPOCH), 0] for lane in ("alert", "vital")), wave],
        "seen": [bytes(16), 3, 1000],
        "blocks": BLOCKS,
        "keys": [[KEY_ID, STATEMENT.commitment, SUBJECT, V["day"], STATEMENT.signature]],
        "wraps": [[KEY_ID, FINGERPRINT, WRAPPED]],
        "dropped": [["wave", PREVIOUS, 3, 5, ZEROS]],
        "sig": None,
    }


def test_acknowledgement():
    assert open_message("acknowledgement", bytes.fromhex(V["acknowledgement"])) | {"sig": None} == {
        "v": 2,
        "hub": HUB,
        "site": "main",
        "store": STORE,
        "fence": 4,
        "commits": 1001,
        "epoch": EPOCH,
        "marks": [["wave", EPOCH, 2, CHAINS[1]]],
        "held": [["wave", EPOCH, 1, DIGESTS[0] + DIGESTS[1]]],
        "keys": [KEY_ID],
        "wraps": [[KEY_ID, FINGERPRINT]],
        "aside": [["alert", EPOCH, 1, ZEROS, "conflict"]],
        "refused": [["vital", EPOCH, 2, ZEROS, "erased"]],
        "live_s": 600,
        "copied": True,
        "sig": None,
    }


def test_receipt():
    assert open_message("receipt", bytes.fromhex(V["receipt"])) | {"sig": None} == {
        "v": 2,
        "hub": HUB,
        "store": STORE,
        "fence": 4,
        "opened": [["alert", EPOCH, 3, ZEROS]],
        "aside": [["wave", EPOCH, 2, DIGESTS[1], "damaged"]],
        "refused": [["vital", EPOCH, 2, ZEROS, "erased"]],
        "sig": None,
    }


def test_status():
    assert open_status(bytes.fromhex(V1["status"]), DEVICE) | {"sig": None} == {
        "v": 2,
        "hub": HUB,
        "epoch": 1_790_000_000 << 20,
        "seq": 7,
        "at_us": 1_790_000_123_456_789,
        "version": "0.1.0",
        "revision": 1,
        "backlog": [["alert", 0, None], ["vital", 3, 12], ["wave", 40, 86_400], ["archive", 0, None]],
        "battery": [81, True],
        "clock_offset_us": -1500,
        "certificate_days": None,
        "models": 4,
        "free_bytes": 5_000_000_000,
        "links": [["absent", 2], ["streaming", 1]],
        "audit": b"head",
        "sig": None,
    }


def test_no_status_is_accepted_with_a_bit_changed():
    status = bytes.fromhex(V1["status"])
    assert count_accepted(lambda data: open_status(data, DEVICE), flips(status)) == 0
    assert count_accepted(lambda data: open_status(data, DEVICE), [status + bytes(2048)]) == 0


def test_what_revision_1_added_to_acknowledgements():
    message = open_message("acknowledgement", bytes.fromhex(V1["acknowledgement"]))
    assert (message["retry_after_s"], message["update_by_s"]) == (40, 1_800_000_000)
    assert message["refused"] == [["vital", 1_790_000_000 << 20, 3, ZEROS, "outdated"]]


@pytest.mark.parametrize("block", BLOCKS)
def test_no_block_opens_with_a_bit_changed(block):
    assert open_block(parse_block(block), DATA_KEY)
    assert count_accepted(lambda data: open_block(parse_block(data), DATA_KEY), flips(block)) == 0


@pytest.mark.parametrize("name", MESSAGES)
def test_no_message_is_accepted_with_a_bit_changed(name):
    message = bytes.fromhex(V[name])
    assert open_message(name, message)
    assert count_accepted(lambda data: open_message(name, data), flips(message)) == 0


@pytest.mark.parametrize("name", MESSAGES)
def test_no_message_is_accepted_with_another_key(name):
    message = bytes.fromhex(V[name])
    others = [bytes.fromhex(V[key]) for _, key in MESSAGES.values() if key != MESSAGES[name][1]]
    assert count_accepted(lambda key: MESSAGES[name][0](message, key), others) == 0


def test_no_wrapped_key_opens_with_a_bit_changed():
    assert count_accepted(lambda data: unwrap_key(data, RECIPIENT, HUB, STATEMENT), flips(WRAPPED)) == 0


@pytest.mark.parametrize("vector", R["records"], ids=lambda vector: vector["name"])
def test_records_are_read(vector):
    records = decode_plaintext(bytes.fromhex(vector["plaintext"]))
    assert to_json(records) == to_json(vector["records"])
    assert (encode_plaintext(records).hex() == vector["plaintext"]) == vector["canonical"]


@pytest.mark.parametrize("vector", R["refused"], ids=lambda vector: vector["name"])
def test_plaintexts_are_refused(vector):
    plaintext = bytes.fromhex(vector["plaintext"])
    with pytest.raises(RefusedError):
        decode_plaintext(plaintext)


def test_audit_rows_chain_to_the_signed_head():
    for end, name in (("site", A["site"]), ("hub", A["hub"])):
        rows = [bytes.fromhex(row["row"]) for row in A[f"{end}_rows"]]
        hashes = audit.check_chain(end, name, rows)
        head = cbor.decode(bytes.fromhex(A[f"{end}_head"]))
        assert audit.start(end, name).hex() == A[f"{end}_start"]
        assert [digest.hex() for digest in hashes] == [row["hash"] for row in A[f"{end}_rows"]]
        assert head[:2] == [len(rows), hashes[-1]]
        audit.check_head(head, bytes.fromhex(A[f"{end}_audit_public"]), end, name)


def test_no_audit_log_is_accepted_with_a_bit_changed():
    rows = [bytes.fromhex(row["row"]) for row in A["site_rows"]]
    public, head = bytes.fromhex(A["site_audit_public"]), cbor.decode(bytes.fromhex(A["site_head"]))

    def check(data: bytes, index: int) -> None:
        changed = [*rows[:index], data, *rows[index + 1 :]]
        if audit.check_chain("site", A["site"], changed)[-1] != head[1]:
            raise RefusedError("another head")

    for index, row in enumerate(rows):
        check(row, index)
        assert count_accepted(lambda data, index=index: check(data, index), flips(row)) == 0
    check_head = lambda data: audit.check_head(cbor.decode(data), public, "site", A["site"])  # noqa: E731
    assert count_accepted(check_head, flips(bytes.fromhex(A["site_head"]))) == 0


def test_the_cut_and_the_status_of_an_audit_log():
    public = bytes.fromhex(A["site_audit_public"])
    cut = cbor.decode(bytes.fromhex(A["site_cut"]))
    audit.check_cut(cut, public, "site", A["site"])
    assert cut[:2] == [2, bytes.fromhex(A["site_rows"][1]["hash"])]
    assert (
        count_accepted(
            lambda data: audit.check_cut(cbor.decode(data), public, "site", A["site"]), flips(bytes.fromhex(A["site_cut"]))
        )
        == 0
    )
    audit.check_status(cbor.decode(bytes.fromhex(A["status_audit"])), DEVICE, A["hub"], public, A["site"])


def test_an_acknowledgement_with_the_heads_of_the_audit_logs():
    signer = bytes.fromhex(V["acknowledgement_public"])
    message = open_acknowledgement(bytes.fromhex(A["acknowledgement"]), signer)
    assert message["audit"] == [cbor.decode(bytes.fromhex(A[name])) for name in ("site_head", "hub_head")]
    assert count_accepted(lambda data: open_acknowledgement(data, signer), flips(bytes.fromhex(A["acknowledgement"]))) == 0


def open_sent(payload: bytes, hub: str = "hub-1") -> dict[str, Any]:
    recipient = load_recipient(bytes.fromhex(C["hub_command_private"]))
    return open_command(payload, bytes.fromhex(C["command_public"]), hub, recipient)


@pytest.mark.parametrize("command", C["commands"], ids=lambda command: command["kind"])
def test_a_command_of_every_kind(command):
    expected = {name: value for name, value in command.items() if name != "payload"}
    assert open_sent(bytes.fromhex(command["payload"])) == expected


def test_a_command_that_was_changed_or_is_for_another_hub():
    (restart,) = (bytes.fromhex(command["payload"]) for command in C["commands"] if command["kind"] == "restart")
    assert count_accepted(open_sent, flips(restart)[::16]) == 0
    with pytest.raises(RefusedError, match="another hub"):
        open_sent(restart, "hub-2")
    with pytest.raises(RefusedError, match="another key"):
        open_command(restart, bytes.fromhex(C["command_public"]), "hub-1", RECIPIENT)

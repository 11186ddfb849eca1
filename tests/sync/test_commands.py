"""Commands: what the clinic sends is what the hub carries out, and nothing that others made, changed, moved or kept is."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sync import commands
from sync.cbor import decode_cbor, encode_cbor
from sync.commands import (
    ARGUMENTS,
    LIFE_LIMIT_S,
    Command,
    CommandKey,
    CommandKind,
    CommandRefusedError,
    check_applicable,
    decode_command,
    encode_command,
)
from sync.errors import PermanentError
from sync.key_files import KeyFileError
from sync.recipients import RecipientKeyPair
from sync.signed_maps import encode_signed
from sync.signing import Label, SignatureError, SigningKey, Use, VerifyingKey
from sync.wire import WireError

NOW_S = 1_800_000_000
HUB_KEY = CommandKey(RecipientKeyPair.generate())
KEY = SigningKey.generate(Use.COMMAND)
EXAMPLES: dict[CommandKind, dict[str, Any]] = {
    CommandKind.LIMITS: {"values": {"tachycardia_rate": 120, "pause": 2.5}},
    CommandKind.CONTEXTS: {"values": {"paced": True, "age_years": 71}},
    CommandKind.UPLOAD: {"policy": "evidence"},
    CommandKind.CLOSE_ALERT: {"alert": "5e0f"},
    CommandKind.MARK_FALSE: {"alert": "5e0f"},
    CommandKind.LOG_LEVEL: {"level": "debug"},
    CommandKind.RESTART: {},
    CommandKind.REQUEST: {"lane": "archive", "from_s": NOW_S - 600, "to_s": NOW_S},
}


def make(kind: CommandKind = CommandKind.UPLOAD, **changes: Any) -> Command:
    subject = None if kind in (CommandKind.LOG_LEVEL, CommandKind.RESTART) else "subject-1"
    fields: dict[str, Any] = {"number": 7, "issued_s": NOW_S, "expires_s": NOW_S + 3600, "subject": subject}
    return Command(hub="hub-1", kind=kind, **(fields | {"arguments": EXAMPLES[kind]} | changes))


def encode(command: Command) -> bytes:
    return encode_command(command, HUB_KEY.public, KEY)


PAYLOAD = encode(make())


def decode(payload: bytes, hub: str = "hub-1", hub_key: CommandKey = HUB_KEY, key: SigningKey = KEY) -> Command:
    return decode_command(payload, hub, hub_key, key.public)


@pytest.mark.parametrize("kind", CommandKind)
def test_a_command_comes_out_as_it_went_in(kind: CommandKind) -> None:
    assert decode(encode(make(kind))) == make(kind)


def test_no_argument_is_readable_on_the_way() -> None:
    payload = encode(make(CommandKind.LIMITS))
    assert not any(word in payload for word in (b"limits", b"tachycardia", b"subject-1"))


@given(st.integers(0, 8 * len(PAYLOAD) - 1))
@settings(max_examples=300, deadline=None)
def test_every_change_is_refused(bit: int) -> None:
    changed = bytearray(PAYLOAD)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((WireError, SignatureError)):
        decode(bytes(changed))


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((WireError, SignatureError)):
        decode(data)


def test_a_command_by_a_stranger_is_refused() -> None:
    with pytest.raises(SignatureError):
        decode(encode_command(make(), HUB_KEY.public, SigningKey.generate(Use.COMMAND)))


def test_a_key_of_another_use_cannot_sign_a_command() -> None:
    with pytest.raises(ValueError, match="does not sign"):
        encode_command(make(), HUB_KEY.public, SigningKey.generate(Use.ACKNOWLEDGEMENT))


def test_a_command_for_another_hub_is_refused() -> None:
    with pytest.raises(WireError, match="not hub-2"):
        decode(PAYLOAD, hub="hub-2")


def test_a_command_for_an_earlier_key_of_the_hub_is_refused() -> None:
    with pytest.raises(WireError, match="enrol the hub again"):
        decode(PAYLOAD, hub_key=CommandKey(RecipientKeyPair.generate()))


@pytest.mark.parametrize("field", ["n", "issued", "expires"])
def test_a_body_does_not_open_in_another_command(field: str) -> None:
    """Even the holder of the signing key cannot move it: the encryption names the command."""
    message = decode_cbor(PAYLOAD, limit_bytes=10_000)
    message[field] += 1
    del message["sig"]
    with pytest.raises(WireError, match="does not open"):
        decode(encode_signed(message, lambda content: KEY.sign(Label.COMMAND, "hub-1", content)))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (CommandKind.UPLOAD, {"arguments": {}}),
        (CommandKind.UPLOAD, {"arguments": {"policy": "some"}}),
        (CommandKind.UPLOAD, {"arguments": {"policy": "all", "more": 1}}),
        (CommandKind.UPLOAD, {"subject": None}),
        (CommandKind.RESTART, {"subject": "subject-1"}),
        (CommandKind.LIMITS, {"arguments": {"values": {"pause": "long"}}}),
        (CommandKind.LIMITS, {"arguments": {"values": {"pause": True}}}),
        (CommandKind.CLOSE_ALERT, {"arguments": {"alert": ""}}),
        (CommandKind.LOG_LEVEL, {"arguments": {"level": ["debug"]}}),
        (CommandKind.REQUEST, {"arguments": {"lane": "archive", "from_s": 2, "to_s": 2}}),
        (CommandKind.UPLOAD, {"number": 0}),
        (CommandKind.UPLOAD, {"expires_s": NOW_S}),
        (CommandKind.UPLOAD, {"expires_s": NOW_S + LIFE_LIMIT_S + 1}),
    ],
)
def test_a_command_that_is_not_allowed_is_not_sent(kind: CommandKind, changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        encode(make(kind, **changes))


def test_every_kind_has_arguments_and_an_example() -> None:
    assert set(ARGUMENTS) == set(CommandKind) == set(EXAMPLES)


@pytest.mark.parametrize(
    ("last", "now_s", "subjects", "why"),
    [
        (7, NOW_S, {"subject-1"}, "not newer"),
        (9, NOW_S, {"subject-1"}, "not newer"),
        (6, NOW_S + 3600, {"subject-1"}, "expired 0 s ago"),
        (6, None, {"subject-1"}, "does not know the time"),
        (6, NOW_S, {"subject-2"}, "does not seal for"),
    ],
)
def test_a_command_is_carried_out_once_in_time_and_for_a_known_subject(
    last: int, now_s: int | None, subjects: set[str], why: str
) -> None:
    with pytest.raises(CommandRefusedError, match=why):
        check_applicable(make(), last, now_s, frozenset(subjects))


def test_a_command_that_comes_in_time_is_carried_out() -> None:
    assert check_applicable(make(), 6, NOW_S + 3599, frozenset({"subject-1"})) is None


def test_the_command_key_stays_the_same_and_private(tmp_path: Path) -> None:
    path = tmp_path / "command.key"
    key = CommandKey.load_or_create(path)
    assert CommandKey.load_or_create(path).public.to_bytes() == key.public.to_bytes()
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="accessible to other users"):
        CommandKey.load_or_create(path)


def test_a_body_of_a_newer_kind_asks_for_an_update() -> None:
    header = {"v": 2, "hub": "hub-1", "n": 1, "issued": NOW_S, "expires": NOW_S + 1, "to": HUB_KEY.public.fingerprint}
    body = encode_cbor({"kind": "fly", "subject": None, "arguments": {}})
    public = MLKEM768X25519PublicKey(HUB_KEY.public.mlkem, HUB_KEY.public.x25519)
    sealed = commands._SUITE.encrypt(body, public, commands._info(header))
    payload = encode_signed(header | {"sealed": sealed}, lambda content: KEY.sign(Label.COMMAND, "hub-1", content))
    with pytest.raises(PermanentError, match="update pulsegate"):
        decode(payload)


VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "commands_1.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["commands"], ids=lambda vector: vector["kind"])
def test_frozen_commands_open(vector: dict[str, Any]) -> None:
    hub_key = CommandKey(RecipientKeyPair.from_bytes(bytes.fromhex(VECTORS["hub_command_private"])))
    key = VerifyingKey.from_bytes(Use.COMMAND, bytes.fromhex(VECTORS["command_public"]))
    command = decode_command(bytes.fromhex(vector["payload"]), "hub-1", hub_key, key)
    assert (command.number, command.issued_s, command.expires_s) == (vector["n"], vector["issued"], vector["expires"])
    assert (command.kind, command.subject, command.arguments) == (vector["kind"], vector["subject"], vector["arguments"])

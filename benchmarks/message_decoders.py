"""Every decoder of what comes over a wire between hub and clinic: what it may raise, and messages that it accepts.

Signatures are not checked: an input must reach the code behind them, which a hub or a clinic that was taken over reaches too.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from cloud.validate import validate_record
from sync import commands, enrolment
from sync.audit import AuditRow
from sync.audit_heads import SignedHead, SiteAudit, cut_from_bytes, head_from_bytes, hub_audit_from_bytes
from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.commands import Command, CommandKey, CommandKind
from sync.data_keys import DataKey, KeyStatement, WrappedKey
from sync.enrolment import Broker, EnrolRequest, Grant, RenewRequest, SignedTime
from sync.invitation import Invitation, InvitationError
from sync.message_rows import Dropped, Head, Held, Mark, Outcome, SeenStore
from sync.messages import (
    Ack,
    Envelope,
    Receipt,
    decode_ack,
    decode_envelope,
    decode_receipt,
    encode_ack,
    encode_envelope,
    encode_receipt,
)
from sync.recipients import RecipientKeyPair
from sync.record_codec import decode_readable_records, decode_records
from sync.records import RecordError
from sync.registration import Registration, RegistrationError
from sync.seal import BlockHeader, LaneEnd, SealError, parse_header, seal_block
from sync.signed_maps import encode_signed
from sync.signing import SIGNATURE_BYTES, Label, SigningKey, Use, VerifyingKey
from sync.status import Backlog, Battery, HubStatus, decode_status, encode_status, read_verified_status
from sync.wire import PLAINTEXT_LIMIT_BYTES, WireError

VECTORS: Final = Path(__file__).parents[1] / "tests" / "sync" / "vectors"
NOW_S: Final = 1_790_000_000
EPOCH: Final = NOW_S << 20
DIGEST: Final = bytes(range(32))
SIGNATURE: Final = bytes(SIGNATURE_BYTES)
ID: Final = bytes(16)
FINGERPRINT: Final = bytes(8)
HUB: Final = "hub-1"


class Decoder(NamedTuple):
    """A decoder, the errors that its docstring declares, and messages that it accepts.

    `make` turns what is changed into what is sent, for content that is encrypted or inside of something else.
    """

    name: str
    decode: Callable[[bytes], object]
    declared: type[Exception]
    seeds: tuple[bytes, ...]
    make: Callable[[bytes], bytes] = bytes


class _Accepting(VerifyingKey):
    """Accepts every signature."""

    def verify(self, signature: bytes, label: Label, hub: str, *values: Any) -> None:
        """Check nothing."""


def list_decoders() -> tuple[Decoder, ...]:
    """Return all decoders, with new keys."""
    return (*_message_decoders(), *_command_decoders(), *_enrolment_decoders(), *_content_decoders(), *_audit_decoders())


def _accept(use: Use) -> VerifyingKey:
    return _Accepting(use, SigningKey.generate(use).public.key)


def _message_decoders() -> tuple[Decoder, ...]:
    device, ack_key, receipt_key = (SigningKey.generate(use) for use in (Use.DEVICE, Use.ACKNOWLEDGEMENT, Use.RECEIPT))
    any_device, any_ack, any_receipt = (_accept(use) for use in (Use.DEVICE, Use.ACKNOWLEDGEMENT, Use.RECEIPT))
    held, outcome = Held("alert", EPOCH, 1, (DIGEST, DIGEST)), Outcome("vital", EPOCH, 3, DIGEST, "unreadable")
    head = SignedHead(7, DIGEST, SIGNATURE)
    envelope = Envelope(
        HUB,
        EPOCH,
        EPOCH - 1,
        (Head("alert", 9, DIGEST, 1), Head("wave", 3, DIGEST, 2)),
        SeenStore(ID, 3, 9),
        (_make_block(), b"PG\x02\x00\x00"),
        (KeyStatement(ID, DIGEST, "subject-1", 20717, SIGNATURE),),
        (WrappedKey(ID, FINGERPRINT, bytes(50)),),
        (Dropped("wave", EPOCH, 4, 6, DIGEST),),
    )
    ack = Ack(HUB, "main", ID, 1, 12, EPOCH, (Mark("alert", EPOCH, 9, DIGEST),), (held,), (ID,), ((ID, FINGERPRINT),))
    full_ack = replace(ack, aside=(outcome,), refused=(outcome,), live_s=600, retry_after_s=30, update_by_s=NOW_S)
    full_ack = replace(full_ack, audit=SiteAudit(head, head))
    status = HubStatus(
        hub=HUB,
        epoch=EPOCH,
        seq=7,
        at_us=NOW_S * 1_000_000,
        version="0.1.0",
        revision=1,
        backlog=(Backlog("alert", 0, None), Backlog("vital", 3, 12), Backlog("wave", 40, 9), Backlog("archive", 0, None)),
        battery=Battery(81, is_charging=True),
        clock_offset_us=-1500,
        certificate_days=3,
        models=4,
        free_bytes=5_000_000_000,
        links=(("absent", 2), ("streaming", 1)),
        audit=_vector("audit_1.json", "status_audit"),
    )
    statuses = encode_status(status, device), encode_status(replace(status, battery=None, audit=None, links=()), device)
    return (
        Decoder("envelope", _read_envelope, WireError, (encode_envelope(envelope, device),)),
        Decoder("acknowledgement", lambda data: decode_ack(data, any_ack), WireError, (encode_ack(full_ack, ack_key),)),
        Decoder(
            "receipt",
            lambda data: decode_receipt(data, any_receipt),
            WireError,
            (encode_receipt(Receipt(HUB, ID, 1, (held,), (outcome,), (outcome,)), receipt_key),),
        ),
        Decoder("status", lambda data: decode_status(data, any_device), WireError, statuses),
        Decoder("stored status", read_verified_status, WireError, statuses),
    )


def _read_envelope(data: bytes) -> None:
    for block in decode_envelope(data).envelope.blocks:
        try:
            parse_header(block)
        except SealError:
            continue


def _command_decoders() -> tuple[Decoder, ...]:
    hub_key, key, accepting = CommandKey(RecipientKeyPair.generate()), SigningKey.generate(Use.COMMAND), _accept(Use.COMMAND)
    sample = Command(HUB, 7, NOW_S, NOW_S + 3600, CommandKind.UPLOAD, "subject-1", {"policy": "evidence"})
    bodies = (
        {"kind": "upload", "subject": "subject-1", "arguments": {"policy": "evidence"}},
        {"kind": "limits", "subject": "subject-1", "arguments": {"values": {"tachycardia_rate": 120, "pause": 2.5}}},
        {"kind": "log_level", "subject": None, "arguments": {"level": "debug"}},
        {"kind": "request", "subject": "subject-1", "arguments": {"lane": "archive", "from_s": NOW_S, "to_s": NOW_S + 9}},
    )

    def seal(body: bytes) -> bytes:
        header = {"v": 2, "hub": HUB, "n": 7, "issued": NOW_S, "expires": NOW_S + 60, "to": hub_key.public.fingerprint}
        public = commands.MLKEM768X25519PublicKey(hub_key.public.mlkem, hub_key.public.x25519)
        sealed = commands._SUITE.encrypt(body, public, commands._info(header))
        return encode_signed(header | {"sealed": sealed}, lambda _content: SIGNATURE)

    def decode(data: bytes) -> Command:
        return commands.decode_command(data, HUB, hub_key, accepting)

    return (
        Decoder("command", decode, WireError, (commands.encode_command(sample, hub_key.public, key),)),
        Decoder("body of a command", decode, WireError, tuple(map(encode_cbor, bodies)), seal),
    )


def _enrolment_decoders() -> tuple[Decoder, ...]:
    device, tls, time = (SigningKey.generate(use) for use in (Use.DEVICE, Use.TLS, Use.TIME))
    pair = RecipientKeyPair.generate()
    acknowledgement, receipt = (SigningKey.generate(use).public for use in (Use.ACKNOWLEDGEMENT, Use.RECEIPT))
    registration = Registration(HUB, "main", acknowledgement, receipt, 24, NOW_S, {"subject-1": pair.public}).to_text()
    invitation = Invitation.generate("clinic.example", 8443, DIGEST)
    enrol = EnrolRequest.make(ID, device, tls, pair.public).encode()
    renew = RenewRequest.make(HUB, bytes(40), device, tls).encode()
    grant = Grant(HUB, "subject-1", (b"leaf", b"ca"), (b"root",), (Broker("mqtt.example", 8883, "DE"),), registration)
    time_answer = SignedTime.make(ID, NOW_S, time, (b"leaf", b"ca")).encode()
    return (
        Decoder("request to enrol", EnrolRequest.decode, WireError, (enrol,)),
        Decoder("request to renew", RenewRequest.decode, WireError, (renew,)),
        Decoder("grant", Grant.decode, WireError, (grant.encode(),)),
        Decoder("signed time", SignedTime.decode, WireError, (time_answer,)),
        Decoder("request for the time", enrolment.decode_time_request, WireError, (enrolment.encode_time_request(ID),)),
        Decoder("request for a nonce", enrolment.decode_nonce_request, WireError, (enrolment.encode_nonce_request(HUB),)),
        Decoder("nonce", enrolment.decode_nonce, WireError, (enrolment.encode_nonce(bytes(40)),)),
        Decoder("roots", enrolment.decode_roots, WireError, (enrolment.encode_roots([b"root", b"next"]),)),
        Decoder("refusal", enrolment.decode_refusal, WireError, (enrolment.encode_refusal("used"),)),
        Decoder("registration", _read_registration, RegistrationError, (registration.encode(),)),
        Decoder("invitation", Invitation.from_bytes, InvitationError, (invitation.to_bytes(),)),
        Decoder("typed invitation", _read_invitation, InvitationError, ("".join(invitation.rows()).encode(),)),
    )


def _read_registration(data: bytes) -> None:
    Registration.parse(data.decode("utf-8", "replace"), Path("registration"), HUB)


def _read_invitation(data: bytes) -> None:
    Invitation.parse(data.decode("utf-8", "replace"))


def _content_decoders() -> tuple[Decoder, ...]:
    found = json.loads((VECTORS / "records_2.json").read_text())
    records = tuple(bytes.fromhex(row["plaintext"]) for row in found["records"])
    return (
        Decoder("CBOR", lambda data: decode_cbor(data, limit_bytes=PLAINTEXT_LIMIT_BYTES), CborError, records),
        Decoder("block header", parse_header, SealError, (_make_block(),)),
        Decoder("fields of a block header", parse_header, SealError, (_header_fields(),), _wrap_header),
        Decoder("records", decode_records, RecordError, records),
        Decoder("readable records", _read_records, RecordError, tuple(filter(_is_readable, records))),
    )


def _read_records(data: bytes) -> None:
    decode_readable_records(data, validate_record)


def _is_readable(data: bytes) -> bool:
    try:
        _read_records(data)
    except RecordError:  # a clinic refuses some records of our vectors
        return False
    return True


def _make_block() -> bytes:
    key = DataKey(ID, bytes(32))
    header = BlockHeader(HUB, "subject-1", EPOCH, "alert", 1, ID, bytes(12), LaneEnd(EPOCH - 1, 9, DIGEST))
    return seal_block(header, b"\xa1eitems\x80", key)


def _header_fields() -> bytes:
    block = _make_block()
    return block[5 : 5 + int.from_bytes(block[3:5], "big")]


def _wrap_header(fields: bytes) -> bytes:
    return b"PG\x02" + (len(fields) & 0xFFFF).to_bytes(2, "big") + fields + bytes(16)


def _audit_decoders() -> tuple[Decoder, ...]:
    rows = json.loads((VECTORS / "audit_1.json").read_text())
    return (
        Decoder(
            "row of an audit log",
            AuditRow.from_bytes,
            ValueError,
            tuple(bytes.fromhex(row["row"]) for row in rows["site_rows"]),
        ),
        Decoder("audit field of a status", hub_audit_from_bytes, WireError, (_vector("audit_1.json", "status_audit"),)),
        Decoder("head of an audit log", head_from_bytes, WireError, (_vector("audit_1.json", "site_head"),)),
        Decoder("cut of an audit log", cut_from_bytes, WireError, (_vector("audit_1.json", "site_cut"),)),
    )


def _vector(file: str, name: str) -> bytes:
    return bytes.fromhex(json.loads((VECTORS / file).read_text())[name])

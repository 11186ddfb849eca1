"""Commands of the clinic to a hub (`down/command`): signed, counted, expiring, and sealed for the hub that carries them out.

A command names what it is about: a limit, an alert, a stretch of recorded data. So its body is encrypted for the hub's command
key (HPKE, RFC 9180), like data keys for a recipient. The clinic's command key signs everything, the encrypted body included.
`docs/protocol.md` is the reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite

from sync.cbor import encode_cbor
from sync.errors import PermanentError
from sync.key_files import Sealer, create_private_file, load_private_file, load_public_file, write_public_file
from sync.recipients import RecipientKeyPair, RecipientPublicKey
from sync.signed_maps import check_valid, decode_message, encode_signed
from sync.signing import Label, SigningKey, VerifyingKey
from sync.wire import FINGERPRINT_BYTES, FORMAT, LANES, MAX_COUNT, WireError, decode_cbor_map, is_bytes, is_count, is_name

LIFE_LIMIT_S: Final = 7 * 24 * 3600
"""The longest life of a command: a hub that was away for a week gets none that its sender has forgotten."""
BODY_LIMIT_BYTES: Final = 8 * 1024
"""The largest body: all limits of a patient take 2 kB."""
APPLIED_KIND: Final = "command_applied"
REFUSED_PREFIX: Final = "command_refused_"
"""The reason of the refusal follows it."""
_SEAL_LABEL: Final = "pulsegate command for a hub"
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_KEY_TITLE: Final = f"pulsegate command private key, version {FORMAT}"
_PUBLIC_TITLE: Final = f"pulsegate command public key, version {FORMAT}"
_MAX_TEXT: Final = 128
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_POLICIES: Final = ("all", "evidence", "none")


class Refusal(StrEnum):
    """Why a hub does not carry out a command of its clinic."""

    EXPIRED = "expired"
    OLDER = "older"
    TIME = "time"
    """The hub does not know the time yet."""
    SUBJECT = "subject"
    """It is about a subject that the hub does not seal for."""
    VALUES = "values"
    """An argument is outside what this version allows."""
    ALERT = "alert"
    """No such alert is open: it has ended, was never raised, or is a technical one, which ends with its cause."""
    UNSUPPORTED = "unsupported"
    """This version cannot do it."""


REFUSED_KINDS: Final[Mapping[str, Refusal]] = {f"{REFUSED_PREFIX}{reason}": reason for reason in Refusal}
ANSWER_KINDS: Final = frozenset({APPLIED_KIND, *REFUSED_KINDS})
"""Kinds of the hub's own status records about commands. Their value is the number of the command."""


class CommandRefusedError(PermanentError):
    """A command is by the clinic, but must not be carried out, for this reason."""

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CommandKind(StrEnum):
    """What a hub can be told to do."""

    LIMITS = "limits"
    CONTEXTS = "contexts"
    UPLOAD = "upload"
    CLOSE_ALERT = "close_alert"
    MARK_FALSE = "mark_false"
    LOG_LEVEL = "log_level"
    RESTART = "restart"
    REQUEST = "request"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(cast("float", value)) <= MAX_COUNT


def _are_limits(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and _is_number(limit) for name, limit in value.items())


def _are_contexts(value: object) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and (is_count(one) or one is True) for name, one in value.items())


ARGUMENTS: Final[Mapping[CommandKind, Mapping[str, Callable[[object], bool]]]] = {
    CommandKind.LIMITS: {"values": _are_limits},
    CommandKind.CONTEXTS: {"values": _are_contexts},
    CommandKind.UPLOAD: {"policy": _POLICIES.__contains__},
    CommandKind.CLOSE_ALERT: {"alert": _is_text},
    CommandKind.MARK_FALSE: {"alert": _is_text},
    CommandKind.LOG_LEVEL: {"level": _LOG_LEVELS.__contains__},
    CommandKind.RESTART: {},
    CommandKind.REQUEST: {"lane": LANES.__contains__, "from_s": is_count, "to_s": is_count},
}
"""The arguments of each kind, and whether a value is allowed. `values` are all limits or contexts of a patient: others end."""
SUBJECT_KINDS: Final = frozenset(CommandKind) - {CommandKind.LOG_LEVEL, CommandKind.RESTART}
"""Kinds that are about a subject."""


@dataclass(frozen=True, slots=True)
class Command:
    """What one hub shall do. `number` grows with every command of the clinic to this hub; times are seconds since 1970.

    `subject` is None for a command about the hub itself.
    """

    hub: str
    number: int
    issued_s: int
    expires_s: int
    kind: CommandKind
    subject: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise WireError if a field or argument is not allowed."""
        rules = ARGUMENTS[self.kind]
        valid = {
            "subject": is_name(self.subject) if self.kind in SUBJECT_KINDS else self.subject is None,
            "arguments": set(self.arguments) == set(rules),
        }
        valid |= {name: name in self.arguments and is_valid(self.arguments[name]) for name, is_valid in rules.items()}
        if self.kind is CommandKind.REQUEST and all(valid.values()):
            valid["to_s"] = self.arguments["from_s"] < self.arguments["to_s"]
        check_valid(valid, f"command {self.kind}")


@dataclass(frozen=True, slots=True)
class CommandKey:
    """The hub's key pair for which the clinic seals commands. It opens nothing else."""

    pair: RecipientKeyPair = field(repr=False)

    @classmethod
    def load_or_create(cls, path: Path, sealer: Sealer | None = None) -> Self:
        """Read the key file, or create it with a new random key, sealed if there is a sealer.

        Raises:
            KeyFileError: the file is damaged, accessible to other users, or cannot be created.
        """
        if not path.exists():
            create_private_file(path, _KEY_TITLE, RecipientKeyPair.generate().to_bytes(), sealer)
        return cls(load_private_file(path, _KEY_TITLE, RecipientKeyPair.from_bytes, sealer))

    @property
    def public(self) -> RecipientPublicKey:
        return self.pair.public


def save_command_key(key: RecipientPublicKey, path: Path) -> None:
    """Write a hub's public command key; a file of that name is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    write_public_file(path, _PUBLIC_TITLE, key.to_bytes())


def load_command_key(path: Path) -> RecipientPublicKey:
    """Read a file that `save_command_key` wrote.

    Raises:
        KeyFileError: the file is missing, of another kind, or damaged.
    """
    return load_public_file(path, _PUBLIC_TITLE, RecipientPublicKey.from_bytes)


def encode_command(command: Command, hub_key: RecipientPublicKey, key: SigningKey) -> bytes:
    """The payload of a message on `down/command`: sealed for the hub's command key, signed by the clinic's.

    Raises:
        WireError: a field or argument is not allowed, the command lives longer than a week, or it is too large.
    """
    command.check()
    header = {
        "v": FORMAT,
        "hub": command.hub,
        "n": command.number,
        "issued": command.issued_s,
        "expires": command.expires_s,
        "to": hub_key.fingerprint,
    }
    _check_header(header)
    body = encode_cbor({"kind": str(command.kind), "subject": command.subject, "arguments": dict(command.arguments)})
    if len(body) > BODY_LIMIT_BYTES:
        raise WireError(f"command {command.kind}: its arguments take {len(body)} bytes, over the limit of {BODY_LIMIT_BYTES}")
    public = MLKEM768X25519PublicKey(hub_key.mlkem, hub_key.x25519)
    fields = header | {"sealed": _SUITE.encrypt(body, public, _info(header))}
    return encode_signed(fields, lambda content: key.sign(Label.COMMAND, command.hub, content))


def decode_command(data: bytes, hub: str, hub_key: CommandKey, key: VerifyingKey) -> Command:
    """Verify a command for this hub, and open it.

    Raises:
        WireError: not a command, for another hub or another key of it, or one that this version does not know.
        SignatureError: not signed by the clinic's command key.
    """
    names = ("v", "hub", "n", "issued", "expires", "to", "sealed", "sig")
    message, content = decode_message(data, "command", names)
    key.verify(message["sig"], Label.COMMAND, message["hub"], content)
    if message["hub"] != hub:
        raise WireError(f"command for hub {message['hub']}, not {hub}")
    _check_header(message)
    if message["to"] != hub_key.public.fingerprint:
        raise WireError("command sealed for another command key of this hub: enrol the hub again")
    body = _open(message, hub_key)
    try:
        kind = CommandKind(body["kind"])
    except ValueError as error:
        raise WireError("command of a kind that this version does not know: update pulsegate") from error
    check_valid({"arguments": isinstance(body["arguments"], dict)}, "command")
    command = Command(hub, message["n"], message["issued"], message["expires"], kind, body["subject"], body["arguments"])
    command.check()
    return command


def check_applicable(command: Command, last_number: int, now_s: int | None, subjects: frozenset[str]) -> None:
    """Check that a verified command may be carried out. `now_s` is None while the hub does not know the time.

    Raises:
        CommandRefusedError: it was carried out before, is older than the last one, expired, or is about a stranger.
    """
    if command.number <= last_number:
        raise CommandRefusedError(Refusal.OLDER, f"command {command.number} is not newer than the last one, {last_number}")
    if now_s is None:
        raise CommandRefusedError(Refusal.TIME, f"command {command.number} must wait: the hub does not know the time yet")
    if now_s >= command.expires_s:
        message = f"command {command.number} expired {now_s - command.expires_s} s ago"
        raise CommandRefusedError(Refusal.EXPIRED, message)
    if command.subject is not None and command.subject not in subjects:
        message = f"command {command.number} is about a subject that this hub does not seal for"
        raise CommandRefusedError(Refusal.SUBJECT, message)


def _check_header(header: Mapping[str, Any]) -> None:
    times = is_count(header["issued"]) and is_count(header["expires"])
    valid = {
        "n": is_count(header["n"]) and header["n"] > 0,
        "issued": is_count(header["issued"]),
        "expires": times and 0 < header["expires"] - header["issued"] <= LIFE_LIMIT_S,
        "to": is_bytes(header["to"], FINGERPRINT_BYTES),
    }
    check_valid(valid, "command")


def _open(message: Mapping[str, Any], hub_key: CommandKey) -> dict[str, Any]:
    private = MLKEM768X25519PrivateKey(hub_key.pair.mlkem, hub_key.pair.x25519)
    try:
        body = _SUITE.decrypt(message["sealed"], private, _info(message))
    except (InvalidTag, ValueError, TypeError) as error:
        raise WireError("command that the hub's command key does not open") from error
    return decode_cbor_map(
        body, limit_bytes=BODY_LIMIT_BYTES, fields=("kind", "subject", "arguments"), what="body of a command"
    )


def _info(header: Mapping[str, Any]) -> bytes:
    """What the encryption binds the body to: a body that is moved into another command does not open."""
    return encode_cbor([_SEAL_LABEL, FORMAT, *(header[name] for name in ("hub", "n", "issued", "expires"))])

"""The messages between a hub and its site's enrolment service: enrol, renew, time. CBOR maps, sent by HTTPS.

Every map has exactly the fields that `docs/protocol.md` lists. The device key certifies the key of the hub's TLS certificate,
and that key proves by a signature of its own that its holder asks.
"""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from config.endpoint import parse_port
from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.invitation import SECRET_BYTES
from sync.recipients import RecipientPublicKey
from sync.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Label, SigningKey, Use, VerifyingKey
from sync.wire import FORMAT, WireError, is_bytes, is_count, is_name

REQUEST_LIMIT_BYTES: Final = 2048
"""Largest request: keys, signatures and names take 400 bytes, the hub's command key 1,216."""
ANSWER_LIMIT_BYTES: Final = 64 * 1024
"""Largest answer. Certificates take some 3 KiB, a registration 3 KiB for each subject that the hub ever had."""
TIME_NONCE_BYTES: Final = 16
RENEWAL_NONCE_BYTES: Final = 40
"""Expiry (u64), 16 random bytes, 16 bytes of HMAC: only the service that made it reads it."""
TIME_SERVICE_NAME: Final = "time.pulsegate.invalid"
"""Name in the certificate of the key that signs the time. No server can have it (RFC 6761, 6.4)."""
MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE_BYTES: Final = 4096
MAX_BROKERS: Final = 8
NO_HUB: Final = ""
"""Hub in the signatures of messages that belong to no hub, or to one that does not know its name yet."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a hub sends, and the country where that is (ISO 3166-1 alpha-2)."""

    host: str
    port: int
    region: str


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """A hub that has a code asks for its first certificate. Commands to it are sealed for `command`."""

    secret: bytes = field(repr=False)
    device: VerifyingKey
    tls: VerifyingKey
    command: RecipientPublicKey
    signature: bytes
    tls_signature: bytes

    @classmethod
    def make(cls, secret: bytes, device: SigningKey, tls: SigningKey, command: RecipientPublicKey) -> Self:
        values = (hashlib.sha256(secret).digest(), device.public.to_bytes(), tls.public.to_bytes(), command.to_bytes())
        signature = device.sign(Label.ENROLMENT, NO_HUB, *values)
        return cls(secret, device.public, tls.public, command, signature, tls.sign(Label.TLS_KEY, NO_HUB, *values))

    def verify(self) -> None:
        """Raise SignatureError unless the sender holds both private keys."""
        values = (hashlib.sha256(self.secret).digest(), self.device.to_bytes(), self.tls.to_bytes(), self.command.to_bytes())
        self.device.verify(self.signature, Label.ENROLMENT, NO_HUB, *values)
        self.tls.verify(self.tls_signature, Label.TLS_KEY, NO_HUB, *values)

    def encode(self) -> bytes:
        return _encode(
            secret=self.secret,
            device=self.device.to_bytes(),
            tls=self.tls.to_bytes(),
            command=self.command.to_bytes(),
            sig=self.signature,
            tls_sig=self.tls_signature,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raise WireError if it is not such a message."""
        reader = _Reader(data, REQUEST_LIMIT_BYTES, ("secret", "device", "tls", "command", "sig", "tls_sig"))
        return cls(
            reader.octets("secret", SECRET_BYTES),
            reader.key("device", Use.DEVICE),
            reader.key("tls", Use.TLS),
            reader.recipient("command"),
            reader.octets("sig", SIGNATURE_BYTES),
            reader.octets("tls_sig", SIGNATURE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """An enrolled hub asks for a certificate for a new TLS key. The nonce comes from the service."""

    hub: str
    nonce: bytes
    tls: VerifyingKey
    signature: bytes
    tls_signature: bytes

    @classmethod
    def make(cls, hub: str, nonce: bytes, device: SigningKey, tls: SigningKey) -> Self:
        values = (nonce, tls.public.to_bytes())
        return cls(hub, nonce, tls.public, device.sign(Label.RENEWAL, hub, *values), tls.sign(Label.TLS_KEY, hub, *values))

    def verify(self, device: VerifyingKey) -> None:
        """Raise SignatureError unless the hub's device key certifies the TLS key, whose private key the sender holds."""
        values = (self.nonce, self.tls.to_bytes())
        device.verify(self.signature, Label.RENEWAL, self.hub, *values)
        self.tls.verify(self.tls_signature, Label.TLS_KEY, self.hub, *values)

    def encode(self) -> bytes:
        return _encode(hub=self.hub, nonce=self.nonce, tls=self.tls.to_bytes(), sig=self.signature, tls_sig=self.tls_signature)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raise WireError if it is not such a message."""
        reader = _Reader(data, REQUEST_LIMIT_BYTES, ("hub", "nonce", "tls", "sig", "tls_sig"))
        return cls(
            reader.name("hub"),
            reader.octets("nonce", RENEWAL_NONCE_BYTES),
            reader.key("tls", Use.TLS),
            reader.octets("sig", SIGNATURE_BYTES),
            reader.octets("tls_sig", SIGNATURE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to both requests: what the hub needs to send to its clinic.

    `chain` is the hub's certificate and that of the CA that issued it, `roots` are the site's root certificates (DER each),
    `registration` is the file that `sync.registration` reads.
    """

    hub: str
    subject: str
    chain: tuple[bytes, ...]
    roots: tuple[bytes, ...]
    brokers: tuple[Broker, ...]
    registration: str

    def encode(self) -> bytes:
        """Encode the answer.

        Raises:
            WireError: larger than `ANSWER_LIMIT_BYTES`.
        """
        data = _encode(
            hub=self.hub,
            subject=self.subject,
            chain=list(self.chain),
            roots=list(self.roots),
            brokers=[[broker.host, broker.port, broker.region] for broker in self.brokers],
            registration=self.registration,
        )
        if len(data) > ANSWER_LIMIT_BYTES:
            raise WireError(f"the registration of hub {self.hub} has {len(data)} bytes: end the hub, and give it a new name")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raise WireError if it is not such a message."""
        names = ("hub", "subject", "chain", "roots", "brokers", "registration")
        reader = _Reader(data, ANSWER_LIMIT_BYTES, names)
        return cls(
            reader.name("hub"),
            reader.name("subject"),
            reader.certificates("chain"),
            reader.certificates("roots"),
            tuple(_parse_broker(row) for row in reader.rows("brokers", MAX_BROKERS)),
            reader.text("registration"),
        )


@dataclass(frozen=True, slots=True)
class SignedTime:
    """The site's time (seconds since 1970), signed over the hub's nonce. `chain` certifies the key."""

    time_s: int
    chain: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def make(cls, nonce: bytes, time_s: int, key: SigningKey, chain: tuple[bytes, ...]) -> Self:
        return cls(time_s, chain, key.sign(Label.TIME, NO_HUB, nonce, time_s))

    def verify(self, nonce: bytes, key: VerifyingKey) -> None:
        """Raise SignatureError if the key did not sign this time over this nonce."""
        key.verify(self.signature, Label.TIME, NO_HUB, nonce, self.time_s)

    def encode(self) -> bytes:
        return _encode(time=self.time_s, chain=list(self.chain), sig=self.signature)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raise WireError if it is not such a message."""
        reader = _Reader(data, ANSWER_LIMIT_BYTES, ("time", "chain", "sig"))
        time_s = reader.field("time", is_count)
        return cls(time_s, reader.certificates("chain"), reader.octets("sig", SIGNATURE_BYTES))


def encode_time_request(nonce: bytes) -> bytes:
    """Encode the request for a signed time."""
    return _encode(nonce=nonce)


def decode_time_request(data: bytes) -> bytes:
    """Return the hub's nonce. Raises WireError if it is not such a message."""
    return _Reader(data, REQUEST_LIMIT_BYTES, ("nonce",)).octets("nonce", TIME_NONCE_BYTES)


def encode_nonce_request(hub: str) -> bytes:
    """Encode the request for a nonce to renew with."""
    return _encode(hub=hub)


def decode_nonce_request(data: bytes) -> str:
    """Return the hub. Raises WireError if it is not such a message."""
    return _Reader(data, REQUEST_LIMIT_BYTES, ("hub",)).name("hub")


def encode_nonce(nonce: bytes) -> bytes:
    """Encode the answer to a request for a nonce."""
    return _encode(nonce=nonce)


def decode_nonce(data: bytes) -> bytes:
    """Return the nonce. Raises WireError if it is not such a message."""
    return _Reader(data, ANSWER_LIMIT_BYTES, ("nonce",)).octets("nonce", RENEWAL_NONCE_BYTES)


def encode_roots(roots: Collection[bytes]) -> bytes:
    """Encode the site's root certificates."""
    return _encode(roots=list(roots))


def decode_roots(data: bytes) -> tuple[bytes, ...]:
    """Return root certificates that nobody has verified. Raises WireError if it is not such a message."""
    return _Reader(data, ANSWER_LIMIT_BYTES, ("roots",)).certificates("roots")


def encode_refusal(reason: str) -> bytes:
    """Encode why a request was refused."""
    return _encode(refused=reason)


def decode_refusal(data: bytes) -> str:
    """Return why a request was refused. Raises WireError if it is not such a message."""
    return _Reader(data, ANSWER_LIMIT_BYTES, ("refused",)).name("refused")


def _encode(**fields: Any) -> bytes:
    return encode_cbor({"v": FORMAT, **fields})


def _parse_broker(row: Any) -> Broker:
    match row:
        case [str(host), int(port), str(region)] if (
            host and type(port) is int and parse_port(str(port)) and len(region) == 2 and region.isalpha()
        ):
            return Broker(host, port, region)
        case _:
            raise WireError("brokers must be lists of host, port and country")


class _Reader:
    """Checks that data is a map with exactly these fields and `v`, and reads them."""

    def __init__(self, data: bytes, limit_bytes: int, names: Collection[str]) -> None:
        try:
            value = decode_cbor(data, limit_bytes=limit_bytes)
        except CborError as error:
            raise WireError(f"not valid CBOR: {error}") from error
        if not isinstance(value, dict) or value.keys() != {"v", *names} or encode_cbor(value) != data:
            raise WireError("not a deterministic CBOR map of the fields that are due")
        if type(value["v"]) is not int or value["v"] != FORMAT:
            raise WireError(f"version {value['v']!r} is not {FORMAT}: update the older of hub and clinic")
        self._fields: dict[str, Any] = value

    def field(self, name: str, is_valid: Callable[[Any], bool]) -> Any:
        value = self._fields[name]
        if not is_valid(value):
            raise WireError(f"{name} has another type, length or range")
        return value

    def octets(self, name: str, length: int) -> bytes:
        data: bytes = self.field(name, lambda value: is_bytes(value, length))
        return data

    def name(self, name: str) -> str:
        text: str = self.field(name, is_name)
        return text

    def text(self, name: str) -> str:
        text: str = self.field(name, lambda value: isinstance(value, str) and value != "")
        return text

    def rows(self, name: str, limit: int) -> list[Any]:
        rows: list[Any] = self.field(name, lambda value: isinstance(value, list) and 0 < len(value) <= limit)
        return rows

    def certificates(self, name: str) -> tuple[bytes, ...]:
        rows = self.rows(name, MAX_CERTIFICATES)
        if not all(isinstance(row, bytes) and 0 < len(row) <= MAX_CERTIFICATE_BYTES for row in rows):
            raise WireError(f"{name} is not a list of certificates")
        return tuple(rows)

    def key(self, name: str, use: Use) -> VerifyingKey:
        try:
            return VerifyingKey.from_bytes(use, self.octets(name, PUBLIC_KEY_BYTES))
        except ValueError as error:
            raise WireError(f"{name} is not a public key") from error

    def recipient(self, name: str) -> RecipientPublicKey:
        try:
            return RecipientPublicKey.from_bytes(self.field(name, lambda value: isinstance(value, bytes)))
        except ValueError as error:
            raise WireError(f"{name} is not a key pair's public part") from error

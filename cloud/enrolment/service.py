"""Answers the requests of hubs: roots, time, enrol, nonce, renew. Bytes in, bytes out; `cloud.enrolment.app` speaks HTTP.

A stranger learns only that a request was refused. Who sends the secret of an invitation, or the signature of a hub's device
key, also learns why.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.audit_log import AuditLog
from cloud.enrolment.identities import TimeSigner
from cloud.enrolment.invitations import Invitations, RefusedCodeError, StoredInvitation
from cloud.enrolment.nonces import RenewalNonces
from cloud.enrolment.throttle import Throttle
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.register import HubPublicKeys, describe_hub, enrol_hub
from cloud.registry import hub_file, load_hub
from cloud.site import Authority, Kind
from cloud.site_name import SITE
from cloud.store.audit_refusals import UNREGISTERED, Refusal
from sync.audit import Action, Actor, AuditEvent, Category, Role, object_id
from sync.enrolment import (
    Broker,
    EnrolRequest,
    Grant,
    RenewRequest,
    decode_nonce_request,
    decode_time_request,
    encode_nonce,
    encode_refusal,
    encode_roots,
)
from sync.errors import SyncError
from sync.registration import Registration
from sync.signing import SignatureError, VerifyingKey
from sync.wire import WireError

log: Final = logging.getLogger(__name__)

REFUSED: Final = "refused"
"""The reason that strangers are given."""


class RefusedError(Exception):
    """A request that is not granted. `reason` is for the sender; it names no hub, subject or file."""

    def __init__(self, reason: str = REFUSED) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a request: wall clock (seconds since 1970), and a monotonic clock in seconds."""

    wall_s: int
    mono_s: float


@dataclass(slots=True)
class EnrolmentService:
    """Admits invited hubs and renews their certificates. Thread-safe except for `signer`, which a timer replaces."""

    folder: ClinicFolder
    authority: Authority
    brokers: Sequence[Broker]
    signer: TimeSigner
    audit: AuditLog
    _throttle: Throttle = field(default_factory=Throttle)
    _nonces: RenewalNonces = field(default_factory=RenewalNonces)

    def roots(self) -> bytes:
        """Return the site's root certificates. Hubs compare them with the fingerprint in their code."""
        return encode_roots(self._roots())

    def sign_time(self, data: bytes, moment: Moment) -> bytes:
        """Return the site's time, signed over the hub's nonce. Raises WireError if it is not such a request."""
        return self.signer.sign(decode_time_request(data), moment.wall_s).encode()

    def make_nonce(self, data: bytes, moment: Moment) -> bytes:
        """Return a nonce for a renewal. Raises WireError if it is not such a request."""
        return encode_nonce(self._nonces.make(decode_nonce_request(data), moment.mono_s))

    def enrol(self, data: bytes, address: str, moment: Moment) -> bytes:
        """Admit an invited hub.

        Raises:
            WireError: not such a request.
            RefusedError: no such invitation or one that has ended, a false signature, or too many wrong codes.
            ClinicError, SyncError: a file or the store of the clinic cannot be used.
        """
        request = EnrolRequest.decode(data)
        if not self._throttle.allows(address, moment.mono_s):
            raise RefusedError("throttled")
        invitation = invitations_of(self.folder).find(request.secret)
        if invitation is None:
            self._throttle.note_failure(address, moment.mono_s)
            self.audit.count_refusal(Refusal(UNREGISTERED, "wrong-code"))
            log.warning("a wrong invitation code came from %s", address)
            raise RefusedError
        try:
            request.verify()
            invitations_of(self.folder).claim(invitation, request.device, moment.wall_s)
        except SignatureError as error:
            raise RefusedError from error
        except RefusedCodeError as error:
            log.warning("the invitation %s of hub %s was refused: it is %s", invitation.id, invitation.hub, error.reason)
            self.audit.count_refusal(Refusal(invitation.hub, f"invitation-{error.reason}"))
            raise RefusedError(error.reason) from error
        admitted = _event(Action.ENROL, invitation.hub, invitation.subject, object_id("invitation", invitation.id))
        keys = HubPublicKeys(request.device, request.command)
        with self.folder.issuing(), self.audit.logging(admitted):
            self._check_not_ended(invitation, request.device)
            registration = enrol_hub(self.folder, invitation.hub, keys, invitation.subject, moment.wall_s)
            grant = self._grant(invitation.subject, registration, request.tls, moment.wall_s)
        log.info("hub %s enrolled by invitation %s", invitation.hub, invitation.id)
        return grant

    def _check_not_ended(self, invitation: StoredInvitation, device: VerifyingKey) -> None:
        """Check that neither a revocation nor another device has ended what an invitation began.

        Raises:
            RefusedError: the hub was revoked after it was invited, or the repetition is by a device that was replaced.
        """
        issued = self.authority.list_issued(Kind.HUBS, invitation.hub)
        revoked_s = issued[-1].revoked_s if issued else None
        if revoked_s is not None and revoked_s >= invitation.created_s:
            log.warning("the invitation %s of hub %s was refused: the hub was revoked after it", invitation.id, invitation.hub)
            raise RefusedError("revoked")
        path = hub_file(self.folder.hubs, invitation.hub)
        if invitation.end is None or not path.exists():
            return
        known = load_hub(path)
        if device != known.device and device in [former.key for former in known.former_keys]:
            raise RefusedError("used")

    def renew(self, data: bytes, moment: Moment) -> bytes:
        """Certify a new TLS key of a registered hub, whose certificate may have expired.

        Raises:
            WireError: not such a request.
            RefusedError: an unknown or revoked hub, a false signature, or a nonce that is not valid for it any more.
            ClinicError, SyncError: a file or the store of the clinic cannot be used.
        """
        request = RenewRequest.decode(data)
        path = hub_file(self.folder.hubs, request.hub)
        if not self._nonces.is_valid(request.nonce, request.hub, moment.mono_s) or not path.exists():
            raise RefusedError
        try:
            request.verify(load_hub(path).device)
        except SignatureError as error:
            raise RefusedError from error
        with self.folder.issuing():
            if not self._nonces.use(request.nonce, moment.mono_s):
                raise RefusedError
            if self.authority.is_revoked(Kind.HUBS, request.hub):
                log.warning("hub %s is revoked and asked for a new certificate", request.hub)
                self.audit.count_refusal(Refusal(request.hub, "revoked"))
                raise RefusedError("revoked")
            subject, registration = describe_hub(self.folder, request.hub, moment.wall_s)
            self.audit.append(_event(Action.RENEW, request.hub, subject))
            return self._grant(subject, registration, request.tls, moment.wall_s)

    def _grant(self, subject: str, registration: Registration, tls: VerifyingKey, now_s: int) -> bytes:
        hub = registration.hub
        chain = _as_der(self.authority.issue_hub(hub, tls.key, now_s))
        return Grant(hub, subject, chain, self._roots(), tuple(self.brokers), registration.to_text()).encode()

    def _roots(self) -> tuple[bytes, ...]:
        return _as_der(self.authority.roots)


def answer(service: EnrolmentService, path: str, body: bytes, address: str, moment: Moment) -> tuple[int, bytes]:
    """Return the HTTP status and the body of the answer to a request. The log names what fails here, the answer does not."""
    try:
        match path:
            case "/v2/roots":
                return 200, service.roots()
            case "/v2/time":
                return 200, service.sign_time(body, moment)
            case "/v2/nonce":
                return 200, service.make_nonce(body, moment)
            case "/v2/enrol":
                return 200, service.enrol(body, address, moment)
            case "/v2/renew":
                return 200, service.renew(body, moment)
            case _:
                return 404, b""
    except WireError:
        return 400, b""
    except RefusedError as error:
        return 429 if error.reason == "throttled" else 403, encode_refusal(error.reason)
    except (ClinicError, SyncError) as error:
        log.error("cannot answer %s: %s", path, error)
        return 500, b""


def invitations_of(folder: ClinicFolder) -> Invitations:
    """Return the invitations of a clinic."""
    return Invitations(folder.path / "invitations")


def _event(action: Action, hub: str, subject: str, *objects: str) -> AuditEvent:
    actor = Actor(hub, Role.HUB, SITE)
    return AuditEvent(actor, action, Category.CERTIFICATES, subject, (object_id("hub", hub), *objects))


def _as_der(pem: bytes) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(pem))

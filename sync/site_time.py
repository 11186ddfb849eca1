"""Verifies the site's signed time: the certificate of the key leads to a root of the site, and is valid at that time."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from sync.enrolment import TIME_SERVICE_NAME, SignedTime
from sync.signing import SignatureError, Use, VerifyingKey


def verify_time(answer: SignedTime, nonce: bytes, roots: Sequence[bytes]) -> int:
    """Return the site's time in seconds since 1970. `roots` are the certificates (DER) that the hub trusts.

    Raises:
        SignatureError: the answer is not by the site, not over this nonce, or its certificate is not valid at that time.
    """
    try:
        leaf, *others = (x509.load_der_x509_certificate(data) for data in answer.chain)
        store = Store([x509.load_der_x509_certificate(root) for root in roots])
        at = datetime.fromtimestamp(answer.time_s, UTC)
        verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(TIME_SERVICE_NAME))
        verifier.verify(leaf, others)
        key = leaf.public_key()
    except (ValueError, OverflowError, OSError, VerificationError) as error:
        raise SignatureError(
            "the time is not signed by a key that the site certified and that is valid at that time"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError("the time is not signed by a key of P-256")
    answer.verify(nonce, VerifyingKey(Use.TIME, key))
    return answer.time_s

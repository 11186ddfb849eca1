"""Sends a request to the site's enrolment service. Only `pulsegate enroll` and `pulsegate renew` import it: it needs `http`."""

import http.client
import ssl
from dataclasses import dataclass
from typing import Final

from config.egress import allow_endpoint
from config.tls import PeerError, explain_failure
from sync.enrolment import ANSWER_LIMIT_BYTES, decode_refusal
from sync.errors import PermanentError
from sync.wire import WireError

TIMEOUT_S: Final = 30.0
"""Time for a connection, and for each answer: a slow 2G link needs ten for the handshake."""
_REFUSALS: Final = {
    "refused": "the clinic does not know this code, or does not know this hub: check that you copied the newest code",
    "expired": "this code has expired: ask your clinic for a new one",
    "used": "this code was used already, by another device: ask your clinic for a new one, and tell them about it",
    "cancelled": "your clinic has cancelled this code: ask them for a new one",
    "throttled": "too many wrong codes reached the clinic: wait ten minutes, then try again",
    "revoked": "your clinic has blocked this hub: call your clinic",
}


class SiteError(PermanentError):
    """The site cannot be reached, or is not the right one, or refuses. The message is for the patient."""


@dataclass(frozen=True, slots=True)
class SiteAddress:
    """Where the enrolment service is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def request(address: SiteAddress, context: ssl.SSLContext, path: str, body: bytes | None = None) -> bytes:
    """Send one request on a connection of its own; return the answer. Without a body it is a GET.

    Raises:
        SiteError: no connection, a server that is not the site, or a refusal.
    """
    allow_endpoint(address.host, address.port)  # that of the code or of the settings; the context checks the country
    connection = http.client.HTTPSConnection(address.host, address.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        data = response.read(ANSWER_LIMIT_BYTES + 1)
    except ssl.SSLError as error:
        raise SiteError(f"the server {address} {_explain(error)}") from error
    except (OSError, http.client.HTTPException) as error:
        raise SiteError(
            f"your clinic cannot be reached at {address} ({error}): check the Internet connection of this hub, then try again"
        ) from error
    finally:
        connection.close()
    if response.status == http.client.OK:
        return data
    raise SiteError(_describe_refusal(address, response.status, data))


def _explain(error: ssl.SSLError) -> str:
    if isinstance(error, PeerError) or not isinstance(error, ssl.SSLCertVerificationError):
        return explain_failure(error)
    return f"is not your clinic: {explain_failure(error)}"


def _describe_refusal(address: SiteAddress, status: int, data: bytes) -> str:
    try:
        return _REFUSALS[decode_refusal(data)]
    except (WireError, KeyError):
        return f"your clinic's server {address} cannot answer now (status {status}): try again later, or call your clinic"

"""What hub and clinic tell each other of a subject's consent: the hub in its status, the clinic in an acknowledgement.

    hub     status           consent: [tag, number, withdrawal]            what it knows, and what the patient withdrew here
    clinic  acknowledgement  consent: [tag, number, purposes, withdrawal]  what holds, if the hub does not know it

Neither names the subject: `subject_tag` stands for it. The clinic numbers the changes of a subject upwards; the higher number
is the later change. `docs/protocol.md`, "Consent", is the reference.
"""

import hashlib
from typing import Any, Final, NamedTuple

from sync.cbor import encode_cbor
from sync.wire import FORMAT, is_bytes, is_count, is_epoch, is_name

CARE: Final = "care"
"""The purpose for which everything here is collected: the clinic looks after the patient (DiGAV section 4(2), number 1)."""
PURPOSES: Final = (CARE,)
"""All purposes. The other three of DiGAV section 4(2) are not pursued: decision 24 says what a new one needs."""
NO_CONSENT: Final = "no consent"
"""Reason to refuse a block: its subject does not consent. The hub deletes the block."""


TAG_BYTES: Final = 8
MAX_PURPOSES: Final = 16
"""Purposes in an answer of a later version at most."""


def subject_tag(hub: str, subject: str) -> bytes:
    """Return what stands for a subject between its hub and the clinic, where no pseudonym may be."""
    return hashlib.sha256(encode_cbor(["pulsegate subject", FORMAT, hub, subject])).digest()[:TAG_BYTES]


class ToldConsent(NamedTuple):
    """What a hub says: the last change that it knows of its subject (0: none), and a withdrawal that was made at the hub.

    `withdrawal` is a random number that the hub repeats until the clinic has recorded it; None if nothing was withdrawn here.
    """

    tag: bytes
    number: int
    withdrawal: int | None

    @classmethod
    def from_list(cls, value: object) -> "ToldConsent | None":
        """Return what the field of a status says; None if it is malformed."""
        if not isinstance(value, list) or len(value) != len(cls._fields):
            return None
        tag, number, withdrawal = value
        is_valid = is_bytes(tag, TAG_BYTES) and is_count(number) and (withdrawal is None or is_epoch(withdrawal))
        return cls(tag, number, withdrawal) if is_valid else None


class ConsentAnswer(NamedTuple):
    """What the clinic says: the last change of a subject, the purposes for which it consents since, and what it answers.

    `withdrawal` repeats that of the status if there was one: the clinic has recorded it.
    """

    tag: bytes
    number: int
    purposes: tuple[str, ...]
    withdrawal: int | None

    def as_list(self) -> list[Any]:
        """Return the field as CBOR writes it."""
        return [self.tag, self.number, list(self.purposes), self.withdrawal]

    @classmethod
    def from_list(cls, value: object) -> "ConsentAnswer | None":
        """Return what the field of an acknowledgement says; None if it is malformed. Unknown purposes are kept."""
        if not isinstance(value, list) or len(value) != len(cls._fields):
            return None
        tag, number, purposes, withdrawal = value
        are_purposes = isinstance(purposes, list) and len(purposes) <= MAX_PURPOSES and all(map(is_name, purposes))
        is_valid = (
            is_bytes(tag, TAG_BYTES) and is_epoch(number) and are_purposes and (withdrawal is None or is_epoch(withdrawal))
        )
        return cls(tag, number, tuple(purposes), withdrawal) if is_valid else None

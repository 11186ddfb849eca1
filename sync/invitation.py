"""Invitation codes: what an operator hands to a patient, so that one hub can enrol at one site, once.

A code holds the address of the site's enrolment service, the fingerprint of the site's root certificate, and a secret. It is
written in rows of five groups of five characters. The last two characters of a row check it, so a typing mistake is found in
its row. `docs/protocol.md` is the reference.
"""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from sync.errors import PermanentError

SECRET_BYTES: Final = 16
"""128 bits: nobody guesses a code, whatever the number of attempts."""
FINGERPRINT_BYTES: Final = 32
"""SHA-256 over the root certificate (DER)."""
MAX_HOST_BYTES: Final = 253
"""The longest DNS name (RFC 1035, 2.3.4)."""
ROW_CHARACTERS: Final = 25
_DATA_CHARACTERS: Final = 23
_GROUP_CHARACTERS: Final = 5
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: without I, L, O and U, which are mistaken for others."""
_READ_AS: Final = str.maketrans("OIL", "011", " -\t\r\n")
_VERSION: Final = 1
_HEAD_BYTES: Final = 4
_CHECK_LABEL: Final = b"pulsegate invitation row"
_CHECK_BITS: Final = 10
"""A random mistake in a row passes once in 1,024 times. The site then refuses the code."""


class InvitationError(PermanentError):
    """A text is not an invitation code. The message says in which row the mistake is."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where a hub enrols, which root certificate it trusts there, and the secret that admits it once."""

    host: str
    port: int
    root_fingerprint: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, host: str, port: int, root_fingerprint: bytes) -> Self:
        return cls(host, port, root_fingerprint, secrets.token_bytes(SECRET_BYTES))

    def to_bytes(self) -> bytes:
        """Return version (u8) | length of host (u8) | port (u16) | secret | fingerprint | host (ASCII)."""
        host = self.host.encode("ascii")
        return bytes([_VERSION, len(host)]) + self.port.to_bytes(2, "big") + self.secret + self.root_fingerprint + host

    def rows(self) -> list[str]:
        """Return the code as rows of groups, such as `04G0A-…-…-…-…`."""
        return [_group(row + _check(number, row)) for number, row in enumerate(_split(_encode(self.to_bytes())))]

    @classmethod
    def parse(cls, code: str) -> "Invitation":
        """Read a code. Small letters, spaces, hyphens and line ends do not matter; O is read as 0, I and L as 1.

        Raises:
            InvitationError: a row has a mistake, or the code is not complete.
        """
        rows = CodeRows()
        rows.add(code)
        return rows.invitation()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises InvitationError if it names no address."""
        secret_end = _HEAD_BYTES + SECRET_BYTES
        host_start = secret_end + FINGERPRINT_BYTES
        host, port = data[host_start:].decode("ascii", "replace"), int.from_bytes(data[2:_HEAD_BYTES], "big")
        if not (host.isascii() and host.isprintable() and port and 0 < len(host) <= MAX_HOST_BYTES):
            raise InvitationError("the code names no address: ask the clinic for a new code")
        return cls(host, port, data[secret_end:host_start], data[_HEAD_BYTES:secret_end])


class CodeRows:
    """The rows of a code that were typed so far. `count` is the number of all rows, once the first is there."""

    def __init__(self) -> None:
        self._rows: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def count(self) -> int:
        """The number of rows of the whole code."""
        return -(-self._n_characters // _DATA_CHARACTERS)

    @property
    def is_complete(self) -> bool:
        return bool(self._rows) and len(self._rows) == self.count

    def add(self, text: str) -> None:
        """Add the next rows. Rows before a mistake are kept.

        Raises:
            InvitationError: a row has a mistake, or there are more rows than the code has.
        """
        rest = text.upper().translate(_READ_AS)
        while rest:
            if self.is_complete:
                raise InvitationError(f"the code has {self.count} rows, and more was given: check that it is one code")
            length = self._next_length()
            row, rest = rest[:length], rest[length:]
            self._add_row(row, length)

    def invitation(self) -> Invitation:
        """Return the code.

        Raises:
            InvitationError: rows are missing, or the code names no address.
        """
        if not self.is_complete:
            count = f"it has {self.count} rows, and " if self._rows else ""
            raise InvitationError(f"the code is not complete: {count}row {len(self) + 1} is missing")
        return Invitation.from_bytes(self._to_bytes())

    def _to_bytes(self) -> bytes:
        characters = "".join(self._rows)
        value = int("".join(f"{_ALPHABET.index(character):05b}" for character in characters), 2)
        excess = len(characters) * 5 % 8
        return (value >> excess).to_bytes(len(characters) * 5 // 8, "big")

    def _add_row(self, row: str, length: int) -> None:
        number = len(self._rows)
        data = row[:-2]
        if len(row) != length or not set(row) <= set(_ALPHABET) or _check(number, data) != row[-2:]:
            raise InvitationError(f"there is a typing mistake in row {number + 1} of the code: compare it with the paper")
        self._rows.append(data)
        if number == 0 and self._head()[0] != _VERSION:
            self._rows.clear()
            raise InvitationError("the code is of a newer pulsegate: update pulsegate on this hub")

    def _next_length(self) -> int:
        """Characters of the next row; the last one may be shorter."""
        if not self._rows:
            return ROW_CHARACTERS
        left = self._n_characters - len(self._rows) * _DATA_CHARACTERS
        return min(left, _DATA_CHARACTERS) + 2

    @property
    def _n_characters(self) -> int:
        n_bytes = _HEAD_BYTES + SECRET_BYTES + FINGERPRINT_BYTES + (self._head()[1] if self._rows else 0)
        return -(-n_bytes * 8 // 5)

    def _head(self) -> bytes:
        value = int("".join(f"{_ALPHABET.index(character):05b}" for character in self._rows[0][:4]), 2)
        return (value >> 4).to_bytes(2, "big")


def _encode(data: bytes) -> str:
    """Base 32, most significant bits first; the last character is filled with zero bits."""
    n = -(-len(data) * 8 // 5)
    value = int.from_bytes(data, "big") << (n * 5 - len(data) * 8)
    return "".join(_ALPHABET[value >> 5 * (n - 1 - i) & 31] for i in range(n))


def _split(characters: str) -> list[str]:
    return [characters[i : i + _DATA_CHARACTERS] for i in range(0, len(characters), _DATA_CHARACTERS)]


def _check(number: int, row: str) -> str:
    """The two characters that check a row: the first 10 bits of SHA-256 over label, row number (from 0) and characters."""
    digest = hashlib.sha256(_CHECK_LABEL + bytes([number]) + row.encode()).digest()
    bits = int.from_bytes(digest[:2], "big") >> (16 - _CHECK_BITS)
    return _ALPHABET[bits >> 5] + _ALPHABET[bits & 31]


def _group(row: str) -> str:
    return "-".join(row[i : i + _GROUP_CHARACTERS] for i in range(0, len(row), _GROUP_CHARACTERS))

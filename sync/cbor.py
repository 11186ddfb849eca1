"""CBOR from outside, decoded within bounds: a small input cannot take much memory or time.

Tags are refused. With value sharing (tags 28 and 29) 200 bytes expand to gigabytes, and a big integer (tags 2 and 3) fits no
column of a database. Our messages, block headers and records use neither.
"""

import io
from typing import Any, Final, NoReturn

import cbor2

MAX_DEPTH: Final = 16
"""Nested lists and maps. Our deepest value, the samples of an alert's strip, is at level 4."""


class CborError(ValueError):
    """The bytes are not one CBOR item within the bounds of `decode_cbor`."""


class _RefusedTags(dict[int, Any]):
    """Gives the decoder a function that refuses, for every tag and before its content is decoded."""

    refused: int | None = None
    """The tag that was found."""

    def __missing__(self, tag: int) -> Any:
        def refuse(*_: object) -> NoReturn:
            self.refused = tag
            raise CborError

        return refuse


def encode_cbor(value: Any) -> bytes:
    """Encode a value in deterministic CBOR (RFC 8949, section 4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def decode_cbor(data: bytes, *, limit_bytes: int) -> Any:
    """Decode one CBOR item of at most `limit_bytes`, whose map keys are texts or byte strings.

    Raises:
        CborError: it is larger, has a tag, another kind of key, more than `MAX_DEPTH` levels, bytes after it, or is not CBOR.
    """
    if len(data) > limit_bytes:
        raise CborError(f"{len(data)} bytes, over the limit of {limit_bytes}")
    source = io.BytesIO(data)
    # Keys of other kinds could have equal hashes, and would make a map of 6,000 keys take a second.
    tags = _RefusedTags()
    decoder = cbor2.CBORDecoder(
        source, semantic_decoders=tags, max_depth=MAX_DEPTH, strict_hashable_types=True, str_errors="strict"
    )
    try:
        value = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        reason = type(error).__name__ if tags.refused is None else f"tag {tags.refused} is not allowed"
        raise CborError(reason) from error
    if source.tell() != len(data):
        raise CborError(f"{len(data) - source.tell()} bytes after the item")
    return value

"""What `benchmarks.fuzz_decoders` does with an input for the decoders of messages, and how it changes valid messages.

An input selects a decoder (`benchmarks.message_decoders`) by its first byte; if the second is `OVERSIZE`, the rest is repeated
beyond every limit. `check_input` fails if the decoder raises anything but its declared error, or takes more than `LIMIT_S`.
"""

import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import cbor2

from benchmarks.message_decoders import Decoder, list_decoders

OVERSIZE: Final = 0xFF
OVERSIZE_BYTES: Final = 64 * 1024 + 1
"""More than any limit (`sync.wire.MESSAGE_LIMIT_BYTES`)."""
LIMIT_S: Final = 5.0
"""An input hangs if it takes longer. The slowest one of a million took 0.05 s by itself."""
_DEEP: Final = 40
"""More levels than `sync.cbor.MAX_DEPTH` allows."""


class Harness:
    """Checks inputs, and counts by decoder those that were accepted and those that were refused."""

    def __init__(self, decoders: Sequence[Decoder] | None = None) -> None:
        self.decoders = decoders or list_decoders()
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.slowest_s = 0.0

    def check_input(self, data: bytes) -> None:
        """Run one input. Raises AssertionError, or what a decoder raised against its contract."""
        index, mark, content = data[:1], data[1:2], data[2:]
        decoder = self.decoders[(index or b"\0")[0] % len(self.decoders)]
        message = decoder.make(content)
        if mark and mark[0] == OVERSIZE:
            message *= OVERSIZE_BYTES // max(1, len(message)) + 1
        began_s = time.perf_counter()
        is_refused = False
        try:
            decoder.decode(message)
        except decoder.declared as error:
            if decoder.declared is ValueError and type(error) is not ValueError:
                raise  # a subclass, such as UnicodeDecodeError, is not declared
            is_refused = True
        self.slowest_s = max(self.slowest_s, took_s := time.perf_counter() - began_s)
        assert took_s < LIMIT_S, f"{decoder.name} took {took_s:.1f} s"
        self.counts[decoder.name, is_refused] += 1

    def make_seeds(self) -> Iterator[bytes]:
        """Inputs that are valid messages, and one of each that is too large."""
        for index, decoder in enumerate(self.decoders):
            for seed in decoder.seeds:
                yield bytes((index, 0)) + seed
            yield bytes((index, OVERSIZE)) + decoder.seeds[0]

    def list_counts(self) -> dict[str, tuple[int, int]]:
        """Return for each decoder how many inputs were accepted and refused."""
        return {found.name: (self.counts[found.name, False], self.counts[found.name, True]) for found in self.decoders}


class Mutator:
    """Makes inputs from valid messages: changes of values, which stay deterministic CBOR, and changes of bytes."""

    def __init__(self, decoders: Sequence[Decoder], seed: int) -> None:
        self._random = random.Random(seed)
        self._seeds = [[(seed, _parse(seed)) for seed in decoder.seeds] for decoder in decoders]
        self._others = [seed for decoder in decoders for seed in decoder.seeds]

    def inputs(self, count: int) -> Iterator[bytes]:
        """Yield inputs, for each decoder in turn."""
        for number in range(count):
            index = number % len(self._seeds)
            seed, value = self._random.choice(self._seeds[index])
            yield bytes((index, OVERSIZE if self._random.random() < 0.01 else 0)) + self._change(seed, value)

    def change(self, data: bytes, seed: int) -> bytes:
        """Return a changed input; the same one for the same seed."""
        self._random.seed(seed)
        index = data[:1] if data and self._random.random() < 0.9 else self._random.randbytes(1)
        mark = OVERSIZE if self._random.random() < 0.01 else 0
        return index + bytes((mark,)) + self._change(data[2:], _parse(data[2:]))

    def _change(self, content: bytes, value: Any) -> bytes:
        if isinstance(value, dict | list) and self._random.random() < 0.6:
            for _ in range(self._random.choice((1, 1, 1, 2, 3))):
                value = self._change_value(value)
            with suppress(cbor2.CBORError, TypeError):
                return cbor2.dumps(value, canonical=True)
        return self._change_bytes(content)

    def _change_value(self, value: Any) -> Any:
        """Return a copy in which one value is another one; only the path to it is copied."""
        if isinstance(value, dict) and value and self._random.random() < 0.9:
            key = self._random.choice(list(value))
            changed = dict(value)
            choice = self._random.random()
            if choice < 0.08:
                del changed[key]
            elif choice < 0.14:
                changed[self._random.choice(_KEYS)] = self._make_value()
            else:
                changed[key] = self._change_value(value[key])
            return changed
        if isinstance(value, list) and value and self._random.random() < 0.8:
            at = self._random.randrange(len(value))
            choice = self._random.random()
            if choice < 0.1:
                return value[:at] + value[at + 1 :]
            if choice < 0.2:
                times = 2 if isinstance(value[at], list | dict) else self._random.choice((2, 5, 300))
                return value[:at] + [value[at]] * times + value[at:]
            return [*value[:at], self._change_value(value[at]), *value[at + 1 :]]
        if isinstance(value, bytes) and value and self._random.random() < 0.6:
            return self._change_bytes(value)
        if isinstance(value, int) and self._random.random() < 0.5:
            return value + self._random.choice((-1, 1, -value, 1 << 20))
        return self._make_value()

    def _make_value(self) -> Any:
        make = self._random.choice(_VALUES)
        return make(self._random) if callable(make) else make

    def _change_bytes(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 4))):
            self._random.choice(_BYTE_CHANGES)(changed, self._random)
        if self._random.random() < 0.05:
            other = self._random.choice(self._others)
            changed[self._random.randrange(len(changed) + 1) :] = other[self._random.randrange(len(other)) :]
        return bytes(changed)


def _parse(data: bytes) -> Any:
    try:
        return cbor2.loads(data)
    except (cbor2.CBORError, ValueError):
        return None


def _nest(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


_KEYS: Final = ("", "v", "crit", "sig", "x" * 300, 1, b"v", "\ud7ff")
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -(2**64)),
    *(0.0, -0.0, 1.5, float("nan"), float("inf"), -float("inf"), 5e-324, 1.7976931348623157e308),
    *("", "a", "\x00", "\u202e", "é" * 100, "9" * 5000, "alert", "hub-1", b"", b"\0" * 16, b"\xff" * 65, bytes(5000)),
    *([], {}, [None] * 50, {"type": 10**18}, {"a": {"b": [1, 2]}}, ["crit"], [[]] * 20, {"": 0}),
    lambda source: source.randbytes(source.randrange(70)),
    lambda source: source.getrandbits(source.randrange(1, 65)),
    lambda source: -source.getrandbits(source.randrange(1, 64)),
    lambda source: struct.unpack("<d", source.randbytes(8))[0],
    lambda source: _nest(source.randrange(_DEEP)),
    lambda source: [source.getrandbits(8)] * source.randrange(3000),
    lambda source: {str(number): number for number in range(source.randrange(200))},
)


def _flip(data: bytearray, source: random.Random) -> None:
    if data:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _put(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data) + 1)
    data[at:at] = source.choice(_PIECES)


def _replace(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data) + 1)
    piece = source.choice(_PIECES)
    data[at : at + len(piece)] = piece


def _cut(data: bytearray, source: random.Random) -> None:
    del data[source.randrange(len(data) + 1) :]


def _remove(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data) + 1)
    del data[at : at + source.randrange(1, 9)]


def _randomise(data: bytearray, source: random.Random) -> None:
    at = source.randrange(len(data) + 1)
    data[at : at + 8] = source.randbytes(source.randrange(1, 9))


_BYTE_CHANGES: Final[tuple[Callable[[bytearray, random.Random], None], ...]] = (
    _flip,
    _flip,
    _put,
    _replace,
    _cut,
    _remove,
    _randomise,
)
_PIECES: Final = (
    *(b"\xff", b"\xf6", b"\xf7", b"\xf8\x20", b"\x00", b"\x80", b"\xa0", b"\x9f", b"\xbf", b"\x5f", b"\x7f", b"\x61\xff"),
    *(b"\xc0", b"\xc2\x49\x01" + bytes(8), b"\xd8\x1c", b"\xd8\x1d\x00", b"\xd9\xd9\xf7", b"\xdb" + b"\xff" * 8),
    *(head + b"\xff" * 8 for head in (b"\x1b", b"\x3b", b"\x5b", b"\x7b", b"\x9b", b"\xbb")),
    *(head + b"\x7f\xff\xff\xff" for head in (b"\x5a", b"\x7a", b"\x9a", b"\xba")),
    *(b"\xf9\x7e\x00", b"\xfa\x7f\xc0\x00\x00", b"\xfb\x7f\xf0" + bytes(6), b"\x81" * _DEEP, b"\xa1\x00" * _DEEP),
)
"""Heads of CBOR items with false lengths, tags, indefinite lengths, special floats, reserved values and deep nesting."""

"""Damaged and oversize messages at every decoder: only declared errors, no hang, no growth. `make fuzz` runs a million."""

from collections.abc import Callable
from pathlib import Path

import pytest

import sync
from benchmarks import fuzz_messages
from benchmarks.fuzz_decoders import MORE_OBJECTS, count_objects
from benchmarks.fuzz_messages import OVERSIZE, Harness, Mutator
from benchmarks.message_decoders import Decoder, list_decoders
from sync.cbor import CborError

INPUTS = 20_000
SEED = 28
WITHOUT_A_LIMIT = {"block header", "fields of a block header", "typed invitation"}
"""The first two are inside of an envelope, which has one; the last one has a limit of rows, and is typed by a person."""


@pytest.fixture(scope="module")
def decoders() -> tuple[Decoder, ...]:
    return list_decoders()


def test_damaged_and_oversize_messages_raise_declared_errors_only(decoders: tuple[Decoder, ...]) -> None:
    harness = Harness(decoders)
    mutator, objects = Mutator(decoders, SEED), 0
    for number, data in enumerate(mutator.inputs(INPUTS)):
        harness.check_input(data)
        if number == INPUTS // 2:
            objects = count_objects()

    assert count_objects() < objects + MORE_OBJECTS
    for name, (accepted, refused) in harness.list_counts().items():
        assert accepted + refused >= INPUTS // len(decoders), name
        assert accepted, f"no changed message gets through to the end of {name}"
        assert refused, name


def test_every_decoder_accepts_its_messages_and_refuses_them_when_they_are_too_large(decoders: tuple[Decoder, ...]) -> None:
    harness = Harness(decoders)
    for seed in harness.make_seeds():
        harness.check_input(seed)
    assert len({decoder.name for decoder in decoders}) == len(decoders)
    for decoder in decoders:
        accepted, refused = harness.list_counts()[decoder.name]
        assert (accepted, refused) == (len(decoder.seeds), 1) or decoder.name in WITHOUT_A_LIMIT


def test_every_module_that_decodes_cbor_is_fuzzed() -> None:
    """A new decoder must come into `benchmarks.message_decoders`."""
    folder = Path(sync.__file__).parent
    readers = {
        path.stem for path in folder.glob("*.py") if "decode_cbor" in path.read_text() or "decode_message" in path.read_text()
    }
    assert readers == {
        "audit",
        "audit_heads",
        "cbor",
        "commands",
        "enrolment",
        "messages",
        "record_codec",
        "seal",
        "signed_maps",
        "status",
        "wire",
    }


def raise_index_error(data: bytes) -> None:
    raise IndexError(data)


def raise_subclass(data: bytes) -> None:
    data.decode()
    raise CborError(data)


@pytest.mark.parametrize("decode", [raise_index_error, raise_subclass])
def test_an_error_that_is_not_declared_is_found(decode: Callable[[bytes], None]) -> None:
    harness = Harness((Decoder("planted", decode, ValueError, (b"",)),))
    with pytest.raises((IndexError, UnicodeDecodeError, CborError)):
        harness.check_input(b"\0\0\xff")


def test_an_input_that_hangs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_messages, "LIMIT_S", -1.0)
    with pytest.raises(AssertionError, match=r"CBOR took 0\.0 s"):
        Harness().check_input(bytes((next(i for i, each in enumerate(list_decoders()) if each.name == "CBOR"), 0)) + b"\x80")


def test_the_same_seed_makes_the_same_inputs() -> None:
    decoder = Decoder("any", bytes, ValueError, (b"\xa2\x61a\x01\x61b\x82\x01\x02",))
    first, again, other = ([*Mutator((decoder,), seed).inputs(200)] for seed in (1, 1, 2))
    assert first == again != other
    assert Mutator((decoder,), 1).change(b"\0\0\x80", 7) == Mutator((decoder,), 2).change(b"\0\0\x80", 7)
    assert any(data[1] == OVERSIZE for data in first)

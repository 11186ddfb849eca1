"""Columns and delta compression against a reader that takes one bit at a time."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.delta_frames import MAX_VALUES, decode_deltas, read_column
from drivers.readings import DecodeError


@dataclass(frozen=True)
class Block:
    """Differences of `width` bits: for each sample, one of each channel."""

    width: int
    samples: list[list[int]]


def to_signed(value: int, bits: int) -> int:
    return value - 2**bits if value >= 2 ** (bits - 1) else value


def bits_of(value: int, width: int) -> list[int]:
    """The lowest bit first, of the two's complement."""
    return [value >> place & 1 for place in range(width)]


def pack(reference: list[int], size: int, blocks: list[Block]) -> bytes:
    """A compressed frame, written bit by bit."""
    frame = b"".join((value % 2 ** (8 * size)).to_bytes(size, "little") for value in reference)
    for block in blocks:
        bits = [bit for sample in block.samples for delta in sample for bit in bits_of(delta, block.width)]
        bits += [0] * (-len(bits) % 8)
        body = bytes(sum(bit << place for place, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))
        frame += bytes((block.width, len(block.samples))) + body
    return frame


def read_slowly(frame: bytes, channels: int, size: int) -> tuple[tuple[int, ...], ...]:
    """The samples of each channel, read one bit at a time; sums keep 32 bits, as the vendor's `Int` does."""
    sample = [to_signed(int.from_bytes(frame[at * size : (at + 1) * size], "little"), 8 * size) for at in range(channels)]
    samples = [sample]
    at = channels * size
    while at < len(frame):
        width, count = frame[at], frame[at + 1]
        at += 2
        place = 0
        for _ in range(count):
            following = []
            for previous in sample:
                bits = [frame[at + (place + i) // 8] >> (place + i) % 8 & 1 for i in range(width)]
                delta = sum(bit << i for i, bit in enumerate(bits))
                following.append(to_signed((previous + (to_signed(delta, width) if width else 0)) % 2**32, 32))
                place += width
            sample = following
            samples.append(sample)
        at += (place + 7) // 8
    return tuple(zip(*samples, strict=True))


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """A frame with its number of channels and their size."""
    channels, size = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    reference = draw(
        st.lists(st.integers(-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1), min_size=channels, max_size=channels)
    )
    blocks = []
    for width in draw(st.lists(st.integers(0, 32), max_size=4)):
        limit = 2 ** (width - 1) if width else 0
        delta = st.integers(-limit, limit - 1) if width else st.just(0)
        sample = st.lists(delta, min_size=channels, max_size=channels)
        blocks.append(Block(width, draw(st.lists(sample, max_size=6))))
    return pack(reference, size, blocks), channels, size


@given(frame=frames())
def test_frames_of_any_width_decode_as_the_slow_reader_reads_them(frame: tuple[bytes, int, int]) -> None:
    data, channels, size = frame
    assert decode_deltas(data, channels, size) == read_slowly(data, channels, size)


@given(data=st.binary(max_size=512), channels=st.sampled_from([1, 3, 4, 17, 21, 25]), size=st.integers(1, 4))
def test_random_bytes_decode_as_the_slow_reader_reads_them_or_are_rejected(data: bytes, channels: int, size: int) -> None:
    try:
        columns = decode_deltas(data, channels, size)
    except DecodeError:
        return
    assert columns == read_slowly(data, channels, size)
    assert sum(map(len, columns)) <= MAX_VALUES


@given(frame=frames(), data=st.data())
def test_a_frame_cut_within_a_block_is_rejected(frame: tuple[bytes, int, int], data: st.DataObject) -> None:
    """A cut at the end of a block leaves a shorter frame; every other cut is an error."""
    whole, channels, size = frame
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        columns = decode_deltas(cut, channels, size)
    except DecodeError:
        return
    complete = decode_deltas(whole, channels, size)
    assert columns == tuple(column[: len(columns[0])] for column in complete)
    assert pack([column[0] for column in columns], size, []) == cut[: channels * size]


@given(
    records=st.lists(st.binary(min_size=7, max_size=7), min_size=1, max_size=80),
    start=st.integers(0, 3),
    size=st.integers(1, 4),
)
def test_columns_are_the_signed_integers_at_their_place(records: list[bytes], start: int, size: int) -> None:
    expected = tuple(int.from_bytes(record[start : start + size], "little", signed=True) for record in records)
    assert read_column(b"".join(records), start, 7, size) == expected


@pytest.fixture
def peak_bytes() -> Iterator[Callable[[], int]]:
    """The largest amount of memory in use since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize(("width", "count"), [(0, 255), (1, 255), (0, 1), (32, 1)])
def test_hostile_counts_cost_neither_time_nor_memory(width: int, count: int, peak_bytes: Callable[[], int]) -> None:
    """The longest attribute value, filled with blocks that claim as many samples as they can."""
    channels, size = 3, 2
    block = bytes((width, count)) + bytes((width * count * channels + 7) // 8)
    blocks = (512 - channels * size) // len(block)
    frame = bytes(channels * size) + block * blocks
    claimed = channels * (1 + count * blocks)
    begin = time.process_time()
    if claimed > MAX_VALUES:
        with pytest.raises(DecodeError, match=f"more than {MAX_VALUES} values"):
            decode_deltas(frame, channels, size)
    else:
        assert sum(map(len, decode_deltas(frame, channels, size))) == claimed
    assert time.process_time() - begin < 0.2
    assert peak_bytes() < 2**20


def test_the_limit_counts_the_reference_sample() -> None:
    blocks = bytes((0, 255)) * 16
    assert sum(map(len, decode_deltas(b"\0" + blocks + bytes((0, 15)), 1, 1))) == MAX_VALUES
    with pytest.raises(DecodeError, match=f"more than {MAX_VALUES} values"):
        decode_deltas(b"\0" + blocks + bytes((0, 16)), 1, 1)


def test_a_block_of_width_0_repeats_the_sample() -> None:
    assert decode_deltas(bytes.fromhex("0500FBFF 0003"), 2, 2) == ((5,) * 4, (-5,) * 4)


def test_sums_wrap_around_at_32_bits() -> None:
    assert decode_deltas(bytes.fromhex("FFFFFF7F 0101 01"), 1, 4) == ((2**31 - 1, 2**31 - 2),)
    assert decode_deltas(bytes.fromhex("FFFFFF7F 0201 01"), 1, 4) == ((2**31 - 1, -(2**31)),)

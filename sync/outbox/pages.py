"""Reads the rows of a SQLite file page by page, without its b-trees, because these may be damaged.

Every leaf page of a table is read, also one that no other page leads to. What a row claims has to be checked by the caller. The
reference is https://www.sqlite.org/fileformat2.html. Our files reserve no bytes at the end of a page.
"""

import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from sync.outbox.database import PAGE_BYTES

_MAGIC: Final = b"SQLite format 3\0"
_FILE_HEADER_BYTES: Final = 100
_OTHER_PAGES: Final = (0, 2, 5, 10)
"""First bytes of pages that are not leaves of a table: overflow and free pages, and those of indices and inner nodes. A leaf
begins with 13; any other byte is a damaged one."""
_LEAF_HEADER_BYTES: Final = 8
_ROW_LIMIT_BYTES: Final = 1024 * 1024
"""Longest row that is believed: blocks have less than 60 kB, the state of a sensor less than 100 kB."""
_WAL_HEADER: Final = struct.Struct(">8I")
_WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
_FRAME_HEADER: Final = struct.Struct(">6I")
_OLDER_PAGE_BYTES: Final = 4096
"""Page size of the buffers of versions before 2."""
_INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)
_CHUNK_BYTES: Final = 64 * 1024
"""Read at once; a multiple of every page size."""
_CHUNKS: Final = 64
"""Chunks in memory: a row's overflow pages are rarely further away than 4 MiB."""
IsWanted = Callable[[Sequence[int]], bool]
"""Whether a row is wanted whose columns have these types ("serial types" of the file format)."""


class RawRow(NamedTuple):
    """A row as it is on its page; what its damaged pages held are zeros."""

    row_id: int
    values: tuple[Any, ...]


class PageFile:
    """The pages of a database file, each in its latest committed version of the file or its WAL. Close it after use."""

    def __init__(self, path: Path, page_bytes: int) -> None:
        self._bytes = page_bytes
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._read_chunk = lru_cache(_CHUNKS)(self._read_chunk_from_disk)
        self._newer = dict(_committed_pages(read_wal(path), page_bytes))
        self._free = self._free_pages()

    def close(self) -> None:
        os.close(self._file)

    def rows(self, is_wanted: IsWanted) -> Iterator[RawRow]:
        """The rows whose columns have wanted types, in the order of their pages."""
        in_file = os.fstat(self._file).st_size // self._bytes
        behind = sorted(number for number in self._newer if number > in_file)
        for number in chain(range(1, in_file + 1), behind):
            if number not in self._free:
                yield from self._rows_of(self._page(number), _FILE_HEADER_BYTES if number == 1 else 0, is_wanted)

    def _rows_of(self, page: bytes, start: int, is_wanted: IsWanted) -> Iterator[RawRow]:
        if len(page) < self._bytes or page[start] in _OTHER_PAGES:
            return
        first = start + _LEAF_HEADER_BYTES
        n_cells = min(int.from_bytes(page[start + 3 : start + 5]), (self._bytes - first) // 2)
        for at in range(first, first + 2 * n_cells, 2):
            try:
                row = self._read_cell(page, int.from_bytes(page[at : at + 2]), is_wanted)
            except (IndexError, ValueError):
                continue
            if row is not None:
                yield row

    def _read_cell(self, page: bytes, at: int, is_wanted: IsWanted) -> RawRow | None:
        size, at = _read_varint(page, at)
        row_id, at = _read_varint(page, at)
        header_bytes, types_at = _read_varint(page, at)
        types: list[int] = []
        while types_at < at + header_bytes:
            type_, types_at = _read_varint(page, types_at)
            types.append(type_)
        if size > _ROW_LIMIT_BYTES or header_bytes + sum(map(_type_bytes, types)) != size or not is_wanted(types):
            return None
        payload = self._read_payload(page, at, size)
        values: list[Any] = []
        value_at = header_bytes
        for type_ in types:
            length = _type_bytes(type_)
            values.append(_read_value(type_, payload[value_at : value_at + length]))
            value_at += length
        return RawRow(row_id, tuple(values))

    def _read_payload(self, page: bytes, at: int, size: int) -> bytes:
        """A row's bytes from its leaf and its overflow pages; zeros where these are missing."""
        longest, shortest = self._bytes - 35, (self._bytes - 12) * 32 // 255 - 23
        if size <= longest:
            return page[at : at + size]
        local = shortest + (size - shortest) % (self._bytes - 4)
        local = local if local <= longest else shortest
        parts, missing = [page[at : at + local]], size - local
        next_page = int.from_bytes(page[at + local : at + local + 4])
        while missing > 0:
            overflow = self._page(next_page)
            if len(overflow) < self._bytes:
                parts.append(bytes(missing))
                break
            parts.append(overflow[4 : 4 + missing])
            missing -= len(parts[-1])
            next_page = int.from_bytes(overflow[:4])
        return b"".join(parts)

    def _page(self, number: int) -> bytes:
        """A page; shorter if the file ends before its end."""
        newer = self._newer.get(number)
        if newer is not None or number <= 0:
            return newer or b""
        chunk, at = divmod((number - 1) * self._bytes, _CHUNK_BYTES)
        return self._read_chunk(chunk)[at : at + self._bytes]

    def _read_chunk_from_disk(self, chunk: int) -> bytes:
        """Zeros stand for what the disk cannot read."""
        try:
            return os.pread(self._file, _CHUNK_BYTES, chunk * _CHUNK_BYTES)
        except OSError:
            places = range(chunk * _CHUNK_BYTES, (chunk + 1) * _CHUNK_BYTES, self._bytes)
            return b"".join(_read_or_zeros(self._file, place, self._bytes) for place in places)

    def _free_pages(self) -> frozenset[int]:
        """The free pages, which may hold rows that were deleted; none if their list is damaged."""
        header = self._page(1)
        trunk, count = int.from_bytes(header[32:36]), int.from_bytes(header[36:40])
        free: set[int] = set()
        while trunk and trunk not in free:
            page = self._page(trunk)
            n_leaves = int.from_bytes(page[4:8])
            if n_leaves > self._bytes // 4:
                return frozenset()
            free |= {trunk, *(int.from_bytes(page[at : at + 4]) for at in range(8, 8 + 4 * n_leaves, 4))}
            trunk = int.from_bytes(page[:4])
        return frozenset(free) if len(free) == count else frozenset()


def possible_page_sizes(path: Path) -> list[int]:
    """The sizes that the pages of a file may have, the likeliest first."""
    with path.open("rb") as file:
        head = file.read(_FILE_HEADER_BYTES)
    wal = read_wal(path)
    claimed = [int.from_bytes(head[16:18])] if head.startswith(_MAGIC) else []
    claimed += [_WAL_HEADER.unpack_from(wal)[2]] if len(wal) >= _WAL_HEADER.size else []
    sizes = [size for size in claimed if size in {2**n for n in range(9, 16)}]
    return list(dict.fromkeys((*sizes, PAGE_BYTES, _OLDER_PAGE_BYTES)))


def read_wal(path: Path) -> bytes:
    """The WAL of a database file; empty if there is none."""
    try:
        return path.with_name(path.name + "-wal").read_bytes()
    except FileNotFoundError:
        return b""


def is_wal_damaged(path: Path) -> bool:
    """Whether the WAL holds transactions behind a damaged one: SQLite would ignore them without an error.

    A power cut can damage only the last transaction, because each is on the disk before the next one is written.
    """
    wal = read_wal(path)
    if len(wal) < _WAL_HEADER.size:
        return False
    magic, _, page_bytes, _, *salts_and_sums = _WAL_HEADER.unpack_from(wal)
    order, salts = ">" if magic & 1 else "<", tuple(salts_and_sums[:2])
    sums = _checksum(wal[: _WAL_HEADER.size - 8], (0, 0), order)
    if magic not in _WAL_MAGIC or sums != tuple(salts_and_sums[2:]):
        return len(wal) > _WAL_HEADER.size  # SQLite would ignore all of it
    is_intact, commits_behind = True, 0
    for frame in _frames(wal, page_bytes):
        is_current = frame.salts == salts
        if is_current and commits_behind:
            return True
        sums = _checksum(frame.page, _checksum(frame.head, sums, order), order) if is_intact else sums
        is_intact = is_intact and is_current and sums == frame.sums
        commits_behind += is_current and not is_intact and frame.size_after != 0
    return False


class _Frame(NamedTuple):
    """A frame of a WAL. `size_after` is 0 unless it ends a transaction. `head` are the bytes of the header that are summed."""

    number: int
    size_after: int
    salts: tuple[int, int]
    sums: tuple[int, int]
    head: bytes
    page: bytes


def _frames(wal: bytes, page_bytes: int) -> Iterator[_Frame]:
    step = _FRAME_HEADER.size + page_bytes
    for at in range(_WAL_HEADER.size, len(wal) - step + 1, step):
        number, size_after, *others = _FRAME_HEADER.unpack_from(wal, at)
        page_at = at + _FRAME_HEADER.size
        salts, sums = (others[0], others[1]), (others[2], others[3])
        yield _Frame(number, size_after, salts, sums, wal[at : at + 8], wal[page_at : page_at + page_bytes])


def _committed_pages(wal: bytes, page_bytes: int) -> list[tuple[int, bytes]]:
    """The pages in a WAL up to its last commit, in their order.

    Frames of an earlier use of the file have other salts. If the header is damaged, the most frequent ones are believed.
    """
    frames = list(_frames(wal, page_bytes))
    counts = Counter(frame.salts for frame in frames)
    claimed = _WAL_HEADER.unpack_from(wal)[4:6] if frames else ()
    salts = claimed if claimed in counts else max(counts, key=counts.__getitem__, default=())
    current = [frame for frame in frames if frame.salts == salts]
    commits = [index for index, frame in enumerate(current) if frame.size_after]
    return [(frame.number, frame.page) for frame in current[: commits[-1] + 1]] if commits else []


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data[: len(data) // 4 * 4])
    for even, odd in zip(words[::2], words[1::2], strict=False):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def _read_or_zeros(file: int, place: int, length: int) -> bytes:
    try:
        return os.pread(file, length, place)
    except OSError:
        return bytes(length)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number of up to nine bytes at a place, and the place behind it."""
    value = 0
    for index in range(at, at + 8):
        byte = data[index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, index + 1
    return value << 8 | data[at + 8], at + 9


def _type_bytes(type_: int) -> int:
    if type_ >= 12:
        return (type_ - 12) // 2
    return _INTEGER_BYTES[type_] if type_ < len(_INTEGER_BYTES) else 8 if type_ == 7 else 0


def _read_value(type_: int, data: bytes) -> Any:
    """Raises ValueError if the bytes are no such value."""
    if type_ >= 12:
        return data.decode() if type_ % 2 else data
    if type_ in (8, 9):
        return type_ - 8
    if type_ in (7, 10, 11):
        raise ValueError("the buffer has no such values")
    return int.from_bytes(data, signed=True) if type_ else None

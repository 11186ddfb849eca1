"""Streams give the bytes of plain and gzipped files, and never much more than a file can hold."""

import gzip
import io
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.recording import RecordingError
from captures.streams import open_stream


def read(path: Path, size: int = 1000) -> tuple[bytes, bool]:
    pieces = []
    with open_stream(path) as stream:
        while piece := stream.read(size):
            pieces.append(piece)
        return b"".join(pieces), stream.is_cut


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), padding=st.integers(0, 5), size=st.integers(1, 400))
def test_a_gzip_file_gives_what_its_members_hold(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], padding: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("gzip") / "file.gz"
    path.write_bytes(b"".join(map(gzip.compress, parts)) + bytes(padding))
    assert read(path, size) == (b"".join(parts), False)


def test_a_plain_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x1fplain")
    assert read(path) == (b"\x1fplain", False)


def test_a_cut_gzip_file_gives_what_is_there(tmp_path: Path) -> None:
    content = bytes(range(256)) * 400
    packed = gzip.compress(content)
    path = tmp_path / "file.gz"
    for length in range(2, len(packed), 7):
        path.write_bytes(packed[:length])
        found, is_cut = read(path)
        assert is_cut
        assert content.startswith(found)
    path.write_bytes(packed[:-1])
    assert read(path) == (content, True)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    packer, out = zlib.compressobj(9, zlib.DEFLATED, 31), io.BytesIO()
    for _ in range(100):
        out.write(packer.compress(bytes(1 << 20)))
    path.write_bytes(out.getvalue() + packer.flush())
    assert path.stat().st_size < 110_000
    with open_stream(path) as stream:
        assert len(stream.read(5 << 20)) == 5 << 20
        with pytest.raises(RecordingError, match="expands more than 100 times"):
            stream.read(10 << 20)


def test_damage_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    for damaged in (b"\x1f\x8b" + bytes(30), gzip.compress(b"x") + b"junk"):
        path.write_bytes(damaged)
        with pytest.raises(RecordingError, match="damaged gzip file"):
            read(path)
    with pytest.raises(RecordingError, match="not a regular file"):
        read(Path("/dev/null"))

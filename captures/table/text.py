"""Reads a text of any length in blocks of lines: plain or gzip, in the encodings that recorders and spreadsheets write."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from captures.recording import RecordingError
from captures.streams import check_complete, open_stream
from captures.table.layout import HEAD_LINES
from captures.table.titles import is_time_title, read_column

BLOCK_BYTES: Final = 1 << 18
"""Bytes that are read at a time: 8 to 20 thousand rows of two columns."""
LINE_LIMIT_BYTES: Final = 1 << 20
"""Longest line: 20,000 columns of 50 characters."""
_HEAD_BYTES: Final = 1 << 20
_LOOK_BYTES: Final = 1 << 16
_ENDLESS_NUMBERS: Final = 50
"""A line of at least so many numbers is a whole recording, not a row."""
_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_TITLE_WORDS: Final = 20
"""Most words of a title line above the numbers."""
_ANY_SEPARATOR: Final = re.compile(r"[ \t,;]+")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Text:
    """A file of text. `skip` is the length of its byte order mark.

    `separators` are the characters between numbers in a text that has all of them in one line; each number is then a line.
    """

    path: Path
    encoding: str
    skip: int = 0
    separators: str = ""


def open_text(path: Path) -> Text:
    """Find the encoding of a file, and whether all its numbers stand in one line.

    Raises:
        RecordingError: not a regular file, not text, or a damaged gzip file.
        OSError: the file cannot be read.
    """
    begin = next(_read_raw(path), b"")[:_LOOK_BYTES]
    encoding, skip = next(((name, len(mark)) for mark, name in _BOMS if begin.startswith(mark)), ("", 0))
    text = Text(path, encoding or _guess_encoding(begin), skip)
    decoded = _decode(begin[skip:], text.encoding)
    if "\0" in decoded:
        raise RecordingError(f"{path}: not text but binary data (it has NUL bytes); give a text of columns")
    return replace(text, separators=_find_separators(decoded))


def read_head(text: Text) -> list[str]:
    """The first lines, without line ends; fewer where they are very long.

    Raises:
        RecordingError: see `read_blocks`.
    """
    lines: list[str] = []
    size = 0
    for block in read_blocks(text):
        lines += block.removesuffix("\n").split("\n")
        size += len(block)
        if len(lines) >= HEAD_LINES or size > _HEAD_BYTES:
            break
    return lines[:HEAD_LINES]


def read_blocks(text: Text) -> Iterator[str]:
    r"""Yield the text in blocks of whole lines, which end with "\n"; the last line may have no end.

    Raises:
        RecordingError: NUL bytes, an endless line, or a gzip file that is damaged or unpacks to far more than its own size.
        OSError: the file cannot be read.
    """
    rest, lines = b"", 0
    for raw in _read_bytes(text):
        data = rest + raw
        cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        rest = data[cut:]
        if len(rest) > LINE_LIMIT_BYTES:
            number = lines + data[:cut].count(b"\n") + 1
            raise RecordingError(
                f"{text.path}: line {number} is longer than {LINE_LIMIT_BYTES} bytes; it is not a"
                " table of samples, or is damaged; check what the file holds"
            )
        if cut:
            block = _clean(text, data[:cut])
            lines += block.count("\n")
            yield block
    if rest:
        yield _clean(text, rest)


def _clean(text: Text, data: bytes) -> str:
    block = _decode(data, "utf-8").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in block:
        raise RecordingError(f"{text.path}: NUL bytes within the text: the file is damaged; fetch or export it again")
    return block


def _read_bytes(text: Text) -> Iterator[bytes]:
    """The bytes after the byte order mark. UTF-16 becomes UTF-8; where all numbers stand in one line, each becomes a line."""
    table = bytes.maketrans(text.separators.encode(), b"\n" * len(text.separators)) if text.separators else None
    decoder = codecs.getincrementaldecoder(text.encoding)("replace") if text.encoding.startswith("utf-16") else None
    skip = text.skip
    for raw in _read_raw(text.path):
        data = raw[skip:]
        skip = 0
        if decoder:
            data = decoder.decode(data).encode("utf-8", "replace")
        yield data.translate(table) if table else data


def _read_raw(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed."""
    with open_stream(path) as stream:
        yield from iter(lambda: stream.read(BLOCK_BYTES), b"")
        check_complete(path, stream)


def _guess_encoding(begin: bytes) -> str:
    """UTF-16 if nearly every second byte is NUL, as in Latin letters and digits; otherwise UTF-8."""
    half = len(begin) // 2
    low, high = begin[0::2].count(0), begin[1::2].count(0)
    if half and high > 0.7 * half and not low:
        return "utf-16-le"
    return "utf-16-be" if half and low > 0.7 * half and not high else "utf-8"


def _decode(data: bytes, encoding: str) -> str:
    """Decode whole lines; text that is not valid UTF-8 is read as Windows-1252."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("cp1252" if encoding == "utf-8" else encoding, "replace")


def _find_separators(decoded: str) -> str:
    """The characters between the numbers of a text whose only line of numbers is a whole recording; empty for a table."""
    lines = [line.strip() for line in decoded.splitlines() if line.strip()]
    titles = [line for line in lines[:-1] if len(_ANY_SEPARATOR.split(line)) <= _TITLE_WORDS]
    words = [word for line in titles for word in _ANY_SEPARATOR.split(line)]
    if not lines or len(titles) < len(lines) - 1 or any(map(_NUMBER.fullmatch, words)):
        return ""
    if any(is_time_title(read_column(1, word)) for word in words):  # the line alternates times and samples
        return ""
    for separators in (" \t", " \t,", " \t;", " \t,;"):
        cells = re.split(f"[{separators}]+", lines[-1])[:-1]
        if len(cells) >= _ENDLESS_NUMBERS and all(_NUMBER.fullmatch(cell) for cell in cells):
            return separators
    return ""

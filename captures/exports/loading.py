"""Loads JSON of limited size: a whole document, or line by line."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from captures.recording import RecordingError
from captures.streams import GZIP_MAGIC, Stream, check_complete, open_stream

DOCUMENT_LIMIT_BYTES: Final = 64 << 20
"""A JSON document is held in memory whole, at about ten times its length. 60 ECGs of a watch with a time for each sample reach
this length; a day of one lead is longer, and is exported line by line."""
CONTAINER_LIMIT: Final = 1_000_000
"""Objects and lists of a document: 60 ECGs of a watch have 900,000."""
NUMBER_LIMIT: Final = 8_000_000
"""Most commas of a document, about one per number: a list of this length takes 450 MB."""
LINE_LIMIT_BYTES: Final = 1 << 20
"""Longest line of JSON lines: a packet of a strap has 73 samples, at most 100 bytes each."""

Object = dict[str, Any]


def load_document(path: Path) -> object:
    """Return the value of a JSON file, in UTF-8, UTF-16 or UTF-32. All its numbers are floats.

    Raises:
        RecordingError: the file is too long, is not JSON, or is nested too deeply.
        OSError: the file cannot be read.
    """
    with open_stream(path) as file:
        text = file.read(DOCUMENT_LIMIT_BYTES + 1)
        check_complete(path, file)
    if len(text) > DOCUMENT_LIMIT_BYTES:
        raise RecordingError(
            f"{path}: a JSON document of more than {DOCUMENT_LIMIT_BYTES >> 20} MiB; export fewer recordings at a time,"
            " or one object a line"
        )
    if text.count(b"{") + text.count(b"[") > CONTAINER_LIMIT or text.count(b",") > NUMBER_LIMIT:
        raise RecordingError(f"{path}: JSON with more values than a recording has; export fewer recordings at a time")
    try:
        return json.loads(text, parse_int=float)
    except RecursionError:
        raise RecordingError(f"{path}: JSON that is nested deeper than any export; check what the file holds") from None
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: JSON that is not text in UTF-8; export it again") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise RecordingError(f"{path}: damaged or cut JSON ({where}); fetch or export the file again") from error


def starts_json_lines(path: Path) -> bool:
    """Whether the first two lines that are not blank hold an object each; a document has one, or spans its lines."""
    with open_stream(path) as file:
        lines = (line for line in _bounded_lines(file) if line is None or line.strip())
        first = list(islice(lines, 2))
    return len(first) == 2 and all(line is not None and _parse_line(line) is not None for line in first)


def read_objects(path: Path, *, cut: bool = False) -> Iterator[tuple[int, Object]]:
    """Yield the objects of JSON lines with the number of their line, from 1. Blank lines are skipped.

    `cut` says that the last line is cut (see `is_cut`); it is left out.

    Raises:
        RecordingError: a line holds no JSON object, or is too long.
        OSError: the file cannot be read.
    """
    with open_stream(path) as file:
        for number, line in enumerate(_bounded_lines(file), 1):
            if line is None:
                raise RecordingError(
                    f"{path}: line {number} is longer than {LINE_LIMIT_BYTES} bytes; check what the file holds"
                )
            if not line.strip():
                continue
            found = _parse_line(line)
            if found is not None:
                yield number, found
            elif not (cut and not line.endswith(b"\n")):
                check_complete(path, file)
                raise RecordingError(f"{path}: line {number} is not a JSON object; correct or remove the line")
        check_complete(path, file)


def is_cut(path: Path) -> bool:
    """Whether the last line of a plain file was cut: it has no line feed and is not a JSON object."""
    with path.open("rb") as file:
        if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
            return False
        file.seek(max(0, file.seek(0, 2) - LINE_LIMIT_BYTES))
        last = file.read().rpartition(b"\n")[2]
    return bool(last.strip()) and _parse_line(last) is None


def _bounded_lines(file: Stream) -> Iterator[bytes | None]:
    """The lines of a file up to one that is too long, for which None is yielded."""
    while line := file.readline(LINE_LIMIT_BYTES + 1):
        if len(line) > LINE_LIMIT_BYTES:
            yield None
            return
        yield line


def _parse_line(line: bytes) -> Object | None:
    try:
        found = json.loads(line, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

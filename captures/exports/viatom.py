"""Reads the one-lead text of Viatom and Lepu: one line `F-0-01,125,II,405,32,45,54,…`.

The cells are the filter, the sampling rate in Hz, the lead, the counts per millivolt, and then the samples as counts. Source:
viatom-develop/Lepu-AI, "ECG file protocol of the AI interface". The file has no start; its name does.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from captures.leads import millivolts_per_unit
from captures.recording import CHUNK_SAMPLES, Chunk, ReadOptions, Recording, RecordingError, Samples
from captures.streams import Stream, check_complete, open_stream

_BEGIN: Final = re.compile(
    rb"\s*[A-Z]-\d{1,2}-\d{1,2}\s*,\s*(\d{1,5})\s*,\s*([A-Za-z]{1,3}\d?)\s*,\s*(\d{1,9}(?:\.\d{1,9})?)\s*,"
)
_LONGEST_CELL: Final = 40
_BLOCK_BYTES: Final = 1 << 17


def starts_viatom(begin: bytes) -> bool:
    """Whether a file with these first bytes is a Viatom text."""
    return _BEGIN.match(begin) is not None


def read_viatom(path: Path, begin: bytes, options: ReadOptions) -> Recording:
    """Open a Viatom text; `begin` are its first bytes.

    Raises:
        RecordingError: the header states no scale.
    """
    found = _BEGIN.match(begin)
    assert found is not None
    lead = found[2].decode()
    rate_hz = options.rate_hz or float(found[1])
    factor = millivolts_per_unit(options.unit or f"{found[3].decode()}/mV")
    if not factor or not rate_hz:
        raise RecordingError(
            f"{path}: its header states {float(found[1]):g} Hz and {float(found[3]):g} counts per mV; give --rate HZ and"
            " --unit N/mV"
        )
    return Recording(
        name=path.name.split(".")[0],
        rate_hz=rate_hz,
        start_us=None,
        notes=(f"lead {lead} at {rate_hz:g} Hz, {1 / factor:g} counts per mV (Viatom text)",),
        read_chunks=lambda: _read_chunks(path, found.end(), rate_hz, factor),
    )


def _read_chunks(path: Path, skip: int, rate_hz: float, factor: float) -> Iterator[Chunk]:
    first = 0
    with open_stream(path) as file:
        file.skip(skip)
        for values in _read_values(path, file):
            for at in range(0, values.size, CHUNK_SAMPLES):
                part = values[at : at + CHUNK_SAMPLES]
                yield Chunk(first / rate_hz, part * factor)
                first += part.size


def _read_values(path: Path, file: Stream) -> Iterator[Samples]:
    rest, count = b"", 0
    while (block := file.read(_BLOCK_BYTES)) and len(rest) <= _LONGEST_CELL:
        cells = (rest + block).split(b",")
        rest = cells.pop()
        yield _parse(path, cells, count)
        count += len(cells)
    check_complete(path, file)
    if rest.strip():
        yield _parse(path, [rest], count)


def _parse(path: Path, cells: list[bytes], before: int) -> Samples:
    """The numbers in some cells; NaN for empty ones."""
    try:
        values = np.array([float(cell) if cell.strip() else np.nan for cell in cells], dtype=np.float64)
    except ValueError:
        bad = next(number for number, cell in enumerate(cells) if not _is_number(cell))
        shown = cells[bad][:_LONGEST_CELL].decode("utf-8", "replace")
        raise RecordingError(f"{path}: sample {before + bad + 1} is {shown!r}, not a number; fetch the file again") from None
    values[~(np.abs(values) <= 1e12)] = np.nan
    return values


def _is_number(cell: bytes) -> bool:
    try:
        float(cell or b"nan")
    except ValueError:
        return not cell.strip()
    return True

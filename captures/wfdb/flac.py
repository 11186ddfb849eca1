"""Reads FLAC signal files (WFDB formats 508, 516 and 524) with the `soundfile` package."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from captures.recording import RecordingError
from captures.wfdb.formats import FLAC_BITS, Adc

_MAGIC: Final = b"fLaC"
_SUBTYPES: Final = {"PCM_S8": (8, "int16", 8), "PCM_16": (16, "int16", 0), "PCM_24": (24, "int32", 8)}
"""Bits of a sample, the type that holds it, and the bits by which `soundfile` shifts it to the left in this type."""
_BLOCK_ROWS: Final = 1024
"""A block with damage is lost as a whole. FLAC itself has some 4096 samples in a block."""


def read_flac(path: Path, number: int, channels: int, channel: int, rows: int) -> Iterator[Adc]:
    """Yield the samples of one channel of a FLAC file, `rows` at a time; it ends early where the file is truncated or damaged.

    `number` is the format in the header, `channels` the number of signals in the file.

    Raises:
        RecordingError: not a FLAC file of this form, or `soundfile` is not installed.
        OSError: the file cannot be read.
    """
    soundfile = _import_soundfile(path)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise RecordingError(f"{path}: not a FLAC file, although the header states format {number}; fetch the file again")
        file.seek(0)
        try:
            with soundfile.SoundFile(file) as stream:
                bits, dtype, shift = _SUBTYPES.get(stream.subtype, (99, "int32", 0))
                if bits > FLAC_BITS[number] or stream.channels != channels:
                    raise RecordingError(
                        f"{path}: holds {stream.channels} channels of {stream.subtype}, not the {channels} signals in format"
                        f" {number} that the header states; correct the header"
                    )
                for block in _read_blocks(soundfile, stream, dtype, rows):
                    yield block[:, channel] >> shift
        except soundfile.SoundFileError as error:
            reason = str(getattr(error, "error_string", ""))[:80]
            raise RecordingError(f"{path}: damaged FLAC file ({reason}); fetch the file again") from error


def _read_blocks(soundfile: Any, stream: Any, dtype: str, rows: int) -> Iterator[Adc]:
    """Yield the rows of a stream, up to the block in which it is damaged."""
    blocks: list[Adc] = []
    while (block := _read_block(soundfile, stream, dtype)).size:
        blocks.append(block)
        if len(blocks) * _BLOCK_ROWS >= rows:
            yield np.concatenate(blocks)
            blocks = []
    if blocks:
        yield np.concatenate(blocks)


def _read_block(soundfile: Any, stream: Any, dtype: str) -> Adc:
    try:
        block: Adc = stream.read(_BLOCK_ROWS, dtype=dtype, always_2d=True)
    except soundfile.SoundFileError:
        return np.empty((0, 1), np.int16)
    return block


def _import_soundfile(path: Path) -> Any:
    try:
        return import_module("soundfile")
    except (ImportError, OSError) as error:
        raise RecordingError(
            f"{path}: a FLAC signal file, which needs the package soundfile; install it with: pip install 'pulsegate[captures]'"
        ) from error

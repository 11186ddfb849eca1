"""The cache of CinC 2017 is used only if the current source code produced it."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from training import cinc


def _write_cache(file: Path, **sources: str) -> Path:
    np.savez(file, names=["A00001"], labels=[0], mv=np.zeros(5), ends=[5], beat_s=[0.01], beat_ends=[1], **sources)
    return file


def test_reads_a_cache_of_the_same_source_code(tmp_path: Path) -> None:
    cache = _write_cache(tmp_path / "cache.npz", sources=cinc.digest())
    (record,) = cinc.load_cinc(tmp_path, Progress(disable=True), cache)
    assert (record.name, record.mv.size, record.beat_s.tolist()) == ("A00001", 5, [0.01])


@pytest.mark.parametrize("sources", [{}, {"sources": "digest of another detector"}])
def test_rebuilds_a_cache_of_other_source_code(tmp_path: Path, sources: dict[str, str]) -> None:
    cache = _write_cache(tmp_path / "cache.npz", **sources)
    with pytest.raises(FileNotFoundError, match=cinc.ARCHIVE):
        cinc.load_cinc(tmp_path, Progress(disable=True), cache)

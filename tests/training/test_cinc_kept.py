"""What is kept of CinC 2017 is used only with the sources that made it."""

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from training import cinc


def _keep(file: Path, **sources: str) -> Path:
    np.savez(file, names=["A00001"], labels=[0], mv=np.zeros(5), ends=[5], beat_s=[0.01], beat_ends=[1], **sources)
    return file


def test_what_the_same_sources_made_is_read(tmp_path: Path) -> None:
    kept = _keep(tmp_path / "kept.npz", sources=cinc.digest())
    (record,) = cinc.load_cinc(tmp_path, Progress(disable=True), kept)
    assert (record.name, record.mv.size, record.beat_s.tolist()) == ("A00001", 5, [0.01])


@pytest.mark.parametrize("sources", [{}, {"sources": "of another detector"}])
def test_what_others_made_is_prepared_again(tmp_path: Path, sources: dict[str, str]) -> None:
    kept = _keep(tmp_path / "kept.npz", **sources)
    with pytest.raises(FileNotFoundError, match=cinc.ARCHIVE):
        cinc.load_cinc(tmp_path, Progress(disable=True), kept)

"""The one-lead text of Viatom and Lepu."""

import numpy as np
import pytest

from captures import ReadOptions, RecordingError, open_recording
from captures.recording import CHUNK_SAMPLES


def write(folder, text):
    (folder / "R20240505123000.txt").write_text(text, "utf-8")
    return folder / "R20240505123000.txt"


def test_counts_are_divided_by_the_factor_of_the_header(tmp_path):
    record = open_recording(write(tmp_path, "F-0-01,125,II,405,32,45,-54,405"))
    assert record.rate_hz == 125
    assert record.mv == pytest.approx([32 / 405, 45 / 405, -54 / 405, 1])
    assert "lead II at 125 Hz, 405 counts per mV" in record.notes[0]


def test_a_long_line_is_read_in_chunks(tmp_path):
    counts = np.arange(100_000) % 700
    record = open_recording(write(tmp_path, "F-0-01,500,I,100.5," + ",".join(map(str, counts)) + ",\n"))
    sizes = [chunk.values.size for chunk in record.read_chunks()]
    assert max(sizes) <= CHUNK_SAMPLES
    assert record.mv[: counts.size] == pytest.approx(counts / 100.5)
    assert len(record.segments) == 1


def test_an_option_replaces_the_scale_and_the_rate(tmp_path):
    record = open_recording(write(tmp_path, "F-0-01,125,II,0,1000,2000"), ReadOptions(unit="uV", rate_hz=250.0))
    assert (record.rate_hz, record.mv.tolist()) == (250, [1, 2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("F-0-01,125,II,0,1,2", "0 counts per mV; give --rate HZ and --unit N/mV"),
        ("F-0-01,125,II,405,1,2,x,4", "sample 3 is 'x', not a number"),
        ("F-0-01,125,II,405,1," + "y" * 1000, "sample 2 is 'yyyyy"),
    ],
)
def test_damage_is_named(text, words, tmp_path):
    with pytest.raises(RecordingError, match=words) as error:
        open_recording(write(tmp_path, text)).mv  # noqa: B018
    assert len(str(error.value)) < 400

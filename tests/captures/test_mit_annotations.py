"""MIT annotation files, compared with wfdb's reader and checked by hand."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.annotations import SYMBOLS, AnnotationError, read_annotations

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # wfdb uses a deprecated feature of pandas
    import wfdb

END = struct.pack("<H", 0)


def word(code: int, value: int) -> bytes:
    return struct.pack("<H", code << 10 | value)


def skip(ticks: int) -> bytes:
    return word(59, 0) + struct.pack("<hH", ticks >> 16, ticks & 0xFFFF)


def note(text: bytes) -> bytes:
    return word(63, len(text)) + text + b"\0" * (len(text) % 2)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb's use of pandas
@pytest.mark.parametrize(
    ("record", "suffix"),
    [
        ("mitdb/203", "atr"),
        ("mitdb/207", "atr"),
        ("mitdb/104", "atr"),
        ("afdb/04936", "qrs"),
        ("afdb/04936", "atr"),
        ("ltafdb/30", "qrs"),
        ("ltafdb/30", "atr"),
        ("nsr2db/nsr001", "atr"),
    ],
)
def test_agrees_with_wfdb(data: Path, record: str, suffix: str) -> None:
    ours = read_annotations(data / f"{record}.{suffix}")
    theirs = wfdb.rdann(str(data / record), suffix)
    assert np.array_equal(ours.sample, theirs.sample)
    assert ours.symbol == tuple(theirs.symbol)
    assert ours.aux == tuple(aux.split("\0")[0] for aux in theirs.aux_note)
    if record.startswith(("afdb", "nsr2db")):
        assert ours.rate_hz == theirs.fs


def test_reads_every_pseudo_annotation(tmp_path: Path) -> None:
    written = tmp_path / "a.atr"
    written.write_bytes(
        word(28, 18) + note(b"(AFIB\0")  # + at 18 with a rhythm of even length
        + word(1, 100) + word(61, 3) + word(62, 1) + word(60, 2)  # N at 118; subtype, channel and number are ignored
        + skip(100_000) + word(5, 7) + note(b"odd")  # V at 100125 after a skip, a padded note
        + skip(-5) + word(22, 1000)  # a skip may be negative, as long as the times of the annotations do not decrease
        + END
    )  # fmt: skip
    found = read_annotations(written)
    assert found.sample.tolist() == [18, 118, 100_125, 101_120]
    assert found.symbol == ("+", "N", "V", '"')
    assert found.aux == ("(AFIB", "", "odd", "")
    assert found.beats().tolist() == [118, 100_125]
    assert found.rhythm_at(np.array([17, 18, 118])) == ["", "(AFIB", "(AFIB"]
    assert found.rate_hz is None


def test_a_file_without_annotations_is_valid(tmp_path: Path) -> None:
    (tmp_path / "a.qrs").write_bytes(END)
    assert len(read_annotations(tmp_path / "a.qrs").sample) == 0


def test_codes_beyond_the_table_are_read_as_the_wfdb_library_shows_them(tmp_path: Path) -> None:
    (tmp_path / "a.atr").write_bytes(word(1, 10) + word(42, 10) + word(5, 10) + word(58, 10) + END)
    found = read_annotations(tmp_path / "a.atr")
    assert found.symbol == ("N", "[42]", "V", "[58]")
    assert found.beats().tolist() == [10, 30]


@pytest.mark.filterwarnings("ignore")  # wfdb's use of pandas
def test_types_that_the_file_defines_agree_with_wfdb(tmp_path: Path) -> None:
    samples = np.array([10, 20, 30, 40])
    wfdb.wrann(
        "a", "atr", samples, symbol=["N", "w", "V", "y"], fs=250, write_dir=str(tmp_path),
        custom_labels=[(42, "w", "wiggle"), (15, "y", "calibration"), (1, "N", "normal")],
    )  # fmt: skip
    found, theirs = read_annotations(tmp_path / "a.atr"), wfdb.rdann(str(tmp_path / "a"), "atr")
    assert found.symbol == tuple(theirs.symbol) == ("N", "w", "V", "y")
    assert found.sample.tolist() == theirs.sample.tolist() == samples.tolist()
    assert found.rate_hz == 250


def test_a_defined_type_cannot_pass_for_a_beat(tmp_path: Path) -> None:
    definitions = [b"## annotation type definitions", b"42 V wobble", b"43 k", b"## end of definitions"]
    content = b"".join(word(22, 0) + note(text) for text in definitions) + word(42, 10) + word(43, 10) + END
    (tmp_path / "a.atr").write_bytes(content)
    found = read_annotations(tmp_path / "a.atr")
    assert found.symbol == ("[42]", "k")
    assert not found.beats().size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.atr: ends at byte 0 without an end mark"),
        (word(1, 100), "a.atr: ends at byte 2 without an end mark"),
        (word(1, 100) + b"\x01", "a.atr: ends at byte 3 without an end mark"),
        (skip(70_000)[:4], "a.atr: ends at byte 4 without an end mark"),
        (word(1, 1) + word(63, 40) + b"(N" + END, "a.atr: the note at byte 4 is truncated or does not follow an annotation"),
        (note(b"(N") + END, "does not follow an annotation"),
        (word(1, 100) + skip(-90) + word(1, 1) + END, "a.atr: times decrease"),
        (word(22, 0) + note(b"## time resolution: x") + END, "a.atr: '## time resolution: x' does not give a time resolution"),
    ],
)
def test_the_error_names_the_damage(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.atr").write_bytes(content)
    with pytest.raises(AnnotationError) as caught:
        read_annotations(tmp_path / "a.atr")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_give_an_annotation_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "random.atr"
    file.write_bytes(content)
    try:
        found = read_annotations(file)
    except AnnotationError:
        return
    assert len(found.sample) == len(found.symbol) == len(found.aux)
    assert {symbol for symbol in found.symbol if not symbol.startswith("[")} <= set(SYMBOLS.values())
    assert (np.diff(found.sample) >= 0).all()

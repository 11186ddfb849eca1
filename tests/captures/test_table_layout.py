"""How tables are laid out: encodings, separators, headers, comments, units, and what is no table."""

import gzip
import math
import os
import time

import numpy as np
import pytest

from captures import ReadOptions, RecordingError, open_recording

SAMPLES = 400
T_S = np.arange(SAMPLES) / 125
MV = np.round(np.sin(T_S * 7) * 0.8 + np.sin(T_S * 40) * 0.1, 4)
TIMES = [f"{t:.3f}" for t in T_S]
VALUES = [f"{v:.4f}" for v in MV]


def table(header, *columns, sep=",", end="\n"):
    lines = [header] if header else []
    return end.join([*lines, *(sep.join(row) for row in zip(*columns, strict=True))]) + end


def read(folder, content, name="r.csv", **options):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_recording(folder / name, ReadOptions(**options))


def comma(cells):
    return [cell.replace(".", ",") for cell in cells]


PLAIN = table("time [s],ecg [mV]", TIMES, VALUES)
MICRO = table("Time (s)\tECG (µV)", TIMES, [f"{v * 1000:.1f}" for v in MV], sep="\t")


@pytest.mark.parametrize(
    "content",
    [
        MICRO.encode("utf-8"),
        MICRO.encode("utf-8-sig"),
        MICRO.encode("cp1252"),
        MICRO.encode("utf-16"),
        MICRO.encode("utf-16-le"),
        MICRO.encode("utf-16-be"),
        b"\xfe\xff" + MICRO.encode("utf-16-be"),
        gzip.compress(MICRO.encode("cp1252")),
        MICRO.replace("\n", "\r\n").encode(),
        MICRO.replace("\n", "\r").encode(),
    ],
)
def test_reads_every_encoding_and_line_end(content, tmp_path):
    record = read(tmp_path, content)
    assert record.mv == pytest.approx(MV, abs=1e-4)
    assert record.rate_hz == pytest.approx(125)
    assert "ECG [µV]" in record.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        table("time [s];ecg [mV]", TIMES, VALUES, sep=";"),
        table("time [s]|ecg [mV]", TIMES, VALUES, sep="|"),
        table("time [s], ecg [mV]", TIMES, VALUES, sep=", "),
        table("Time (s)   ECG (mV)", TIMES, VALUES, sep="    "),
        table("  time_s ecg_mv", [f"{t:>10}" for t in TIMES], VALUES, sep="  "),
        "sep=;\n" + table("time [s];ecg [mV]", TIMES, VALUES, sep=";"),
        '"sep=\t"\n' + table("time [s]\tecg [mV]", TIMES, VALUES, sep="\t"),
        table("time [s];ecg [mV]", comma(TIMES), comma(VALUES), sep=";"),
        table("time [s]\tecg [mV]", comma(TIMES), comma(VALUES), sep="\t"),
        table("time_s ecg_mv", comma(TIMES), comma(VALUES), sep=" "),
        table("time [s],ecg [mV]", [f'"{t}"' for t in comma(TIMES)], [f'"{v}"' for v in comma(VALUES)]),
        table("'time [s]','ecg [mV]'", [f"'{t}'" for t in TIMES], VALUES),
        table("time [s],ecg [mV]", TIMES, [v + "," for v in VALUES]),
        table("time [s],ecg [mV],", TIMES, [v + "," for v in VALUES]),
        table(",time [s],ecg [mV]", list(map(str, range(SAMPLES))), TIMES, VALUES),
        table('"time [s]" "ecg [mV]"', [f'"{n + 1}"' for n in range(SAMPLES)], TIMES, VALUES, sep=" "),
        "# device: strap\n# 125 Hz, filtered\n#\n" + PLAIN,
        "% device\n// more\n; and more, here\n" + PLAIN,
        "Device,Strap X\nSample rate,125\nSerial,0815\n\n" + PLAIN,
        table("# time [s],ecg [mV]", TIMES, VALUES),
        table("Time,ECG\ns,mV", TIMES, VALUES),
        table("Time,ECG\n[s],(mV)", TIMES, VALUES),
        table('"Time","ECG"\n"s","mV"', TIMES, VALUES),
        PLAIN + ",\n" * 20,
        PLAIN.replace("\n1.000,", "\n# electrode touched, again\n\n1.000,"),
    ],
)
def test_reads_every_kind_of_table(text, tmp_path):
    record = read(tmp_path, text)
    assert record.mv == pytest.approx(MV)
    assert (record.rate_hz, len(record.segments)) == (pytest.approx(125), 1)


@pytest.mark.parametrize(
    ("mark", "group", "sep"), [(",", ".", ";"), (",", "\u202f", ";"), (",", "\u00a0", "\t"), (".", ",", ";"), (".", "'", "\t")]
)
def test_reads_thousands_separators(mark, group, sep, tmp_path):
    def write(value):
        return f"{value:,.1f}".replace(",", "G").replace(".", mark).replace("G", group)

    text = table(f"time [ms]{sep}ecg [uV]", [write(t * 1000) for t in T_S], [write(v * 2000) for v in MV], sep=sep)
    assert read(tmp_path, text).mv == pytest.approx(MV * 2, abs=1e-4)
    assert read(tmp_path, text).rate_hz == pytest.approx(125)


def test_a_header_less_table_is_read_by_its_first_column(tmp_path):
    record = read(tmp_path, table("", TIMES, VALUES))
    assert record.mv == pytest.approx(MV)
    assert record.notes[0].startswith("ECG from column '2' in mV (inferred from its amplitude of 1.7), time from '1'")


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(VALUES),
        " ".join(VALUES),
        ",".join(VALUES) + "\n",
        "; ".join(comma(VALUES)),
        "\t".join(comma(VALUES)),
        "ECG\n" + " ".join(VALUES),
        "\n".join(" ".join(VALUES[at : at + 10]) for at in range(0, SAMPLES, 10)),
        "\n".join(", ".join(VALUES[at : at + 16]) for at in range(0, SAMPLES, 16)) + "\n",
    ],
)
def test_a_column_or_line_of_numbers_needs_its_rate(text, tmp_path):
    with pytest.raises(
        RecordingError, match=r"no column of times .* give the sampling rate with --rate, and the unit .* --unit"
    ):
        read(tmp_path, text)
    record = read(tmp_path, text, rate_hz=125.0, unit="mV")
    assert record.mv == pytest.approx(MV)
    assert (record.rate_hz, record.start_us) == (125.0, None)
    assert "evenly spaced samples, 125 Hz stated" in record.notes[0]


def test_missing_numbers_of_a_column_leave_a_gap(tmp_path):
    record = read(tmp_path, "\n".join(["ecg [mV]", *VALUES[:100], *["-"] * 25, *VALUES[125:]]), rate_hz=125.0)
    assert record.segments == ((0.0, 0, 99), (1.0, 100, SAMPLES - 26))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n".join(["time [s],ecg [mV]", *(f"{t},{v}" for t, v in zip(comma(TIMES), comma(VALUES), strict=True))]),
            "decimal mark",
        ),
        (PLAIN + PLAIN, "the header is repeated in line 402, where a second recording begins; split the file there"),
        (PLAIN.replace("1.000,", "1.000,7,"), "row 127 has 3 cells, the others have 2"),
        (PLAIN.replace("1.000,", "1.000;"), "row 127 has 1 cells, the others have 2"),
        ("just some words\n" * 10, "holds no row of numbers"),
        ("time [s],ecg [mV]\n0.000,1\n0.004," + "z" * 100_000 + "\n0.008,1\n", "row 3, column 'ecg': 'zzzz"),
        ("c," * 20_000 + "d\n" + ("1," * 20_000 + "2\n") * 2, r"no ECG among its columns \(c, c.* and 19993 more\)"),
        ("time,ecg\n" + "1,2," * 600_000, "line 2 is longer than 1048576 bytes"),
        (PLAIN + "\0\0\0", "NUL bytes"),
    ],
)
def test_what_is_no_table_is_refused_in_a_short_line(text, message, tmp_path):
    started = time.perf_counter()
    with pytest.raises(RecordingError, match=message) as error:
        read(tmp_path, text)
    assert len(str(error.value)) < 700
    assert time.perf_counter() - started < 10


def test_a_title_of_any_length_takes_little_time(tmp_path):
    for title in (
        "ecg" + "(" * 100_000,
        "ecg" + "[]" * 50_000,
        "ecg " * 25_000,
        "ecg_" * 25_000 + "mv",
        "ecg" + " " * 9000 + "[mV",
    ):
        started = time.perf_counter()
        assert read(tmp_path, table(f"time [s],{title}", TIMES, VALUES), unit="mV").mv == pytest.approx(MV)
        assert time.perf_counter() - started < 5


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "r.csv")
    with pytest.raises(RecordingError, match="not a regular file"):
        open_recording(tmp_path / "r.csv")


def test_a_gzip_bomb_of_rows_is_refused(tmp_path):
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(b"time,ecg\n" + b"0,0\n" * (4 << 20)))
    with pytest.raises(RecordingError, match="expands more than 100 times"):
        open_recording(tmp_path / "r.csv.gz")


def test_a_file_cut_within_utf_16_is_read_up_to_the_cut(tmp_path):
    record = read(tmp_path, MICRO.encode("utf-16")[:-5])
    assert record.mv.size in (SAMPLES - 1, SAMPLES)


@pytest.mark.parametrize("name", ["ecg.asc", "ecg.log", "ecg"])
def test_a_table_is_read_whatever_its_name(name, tmp_path):
    rows = "".join(f"{place / 250:.3f},{math.sin(place / 5):.3f}\n" for place in range(500))
    (tmp_path / name).write_text("time [s],ecg [mV]\n" + rows)
    assert open_recording(tmp_path / name).rate_hz == pytest.approx(250)

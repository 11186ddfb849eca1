"""Tables, RR lists and JSON as odd programs write them: packets out of order, battery voltages, flags, thousands, durations."""

import json

import numpy as np
import pytest

from captures import ReadOptions, RecordingError, RrRecording, open_file, open_recording

RATE_HZ = 125
COUNT = 1_000
TIMES = [f"{place / RATE_HZ:.3f}" for place in range(COUNT)]
PLACES = np.arange(COUNT)
WAVE = np.round(0.1 * np.sin(PLACES / 20) + 1.2 * (PLACES % 110 == 50), 4)
RR_MS = np.round(850 + 40 * np.sin(np.arange(70) * 0.7)).astype(int)


def write(folder, text, name="r.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def table(header, *columns, delimiter=","):
    return "".join(f"{delimiter.join(map(str, row))}\n" for row in (header, *zip(*columns, strict=True)))


def swap(values, size):
    """The values with their fifth and sixth packet exchanged."""
    values = list(values)
    return [*values[: 4 * size], *values[5 * size : 6 * size], *values[4 * size : 5 * size], *values[6 * size :]]


@pytest.mark.parametrize("size", [5, 16, 73, 125])
def test_packets_out_of_order_are_read_in_the_order_of_their_times(size, tmp_path):
    record = open_recording(write(tmp_path, table(["time [s]", "ecg [mV]"], swap(TIMES, size), swap(WAVE, size))))
    assert record.rate_hz == pytest.approx(RATE_HZ)
    assert record.mv == pytest.approx(WAVE)
    assert len(record.segments) == 1
    assert any("out of order" in note for note in record.notes)


def test_packets_out_of_order_at_the_end_of_a_block(tmp_path):
    count, size = 60_000, 73
    times = np.arange(count)
    values = np.round(np.sin(times / 9), 4)
    order = np.concatenate([swap(part, size) for part in np.split(times, range(6 * size, count, 6 * size))])
    record = open_recording(
        write(tmp_path, table(["t [s]", "ecg [mV]"], [f"{at / RATE_HZ:.3f}" for at in order], values[order]))
    )
    assert record.mv == pytest.approx(values)
    assert record.rate_hz == pytest.approx(RATE_HZ)


@pytest.mark.parametrize("size", [10, 25, 50])
def test_a_packet_that_comes_twice_with_one_time_is_read_once(size, tmp_path):
    order = [*range(6 * size), *range(5 * size, COUNT)]
    times = [TIMES[place // size * size] for place in order]
    path = write(tmp_path, table(["time [s]", "ecg [mV]"], times, np.round(np.cos(PLACES / 7), 4)[order]))
    record = open_recording(path, ReadOptions(rate_hz=RATE_HZ))
    assert record.mv == pytest.approx(np.cos(PLACES / 7), abs=1e-4)
    assert len(record.segments) == 1
    assert f"{size} repeated rows (same time and value) are left out" in record.notes


def test_a_recorder_that_starts_again_is_not_sorted(tmp_path):
    times = [*TIMES[:600], *TIMES[:400]]
    with pytest.raises(RecordingError, match=r"goes back by 4\.79 s at row 602"):
        open_recording(write(tmp_path, table(["time [s]", "ecg [mV]"], times, WAVE)))


@pytest.mark.parametrize("size", [16, 40])
def test_json_packets_out_of_order_and_repeated_ones(size, tmp_path):
    packets = [
        {"ecg": {"Samples": WAVE[at : at + size].tolist(), "Timestamp": at * 8}} for at in range(0, COUNT - size + 1, size)
    ]
    shuffled = [*packets[:4], packets[5], packets[4], packets[6], packets[6], *packets[7:]]
    for name, text in (("a.json", json.dumps(shuffled)), ("a.jsonl", "\n".join(map(json.dumps, shuffled)))):
        record = open_recording(write(tmp_path, text, name), ReadOptions(unit="mV"))
        assert record.mv == pytest.approx(WAVE[: len(packets) * size])
        assert len(record.segments) == 1


def test_a_second_recording_within_a_json_document_is_refused(tmp_path):
    packets = [{"ecg": {"Samples": WAVE[at : at + 10].tolist(), "Timestamp": at * 8}} for at in range(0, COUNT, 10)]
    again = [{"ecg": {"Samples": (WAVE[at : at + 10] + 1).tolist(), "Timestamp": at * 8}} for at in range(0, COUNT, 10)]
    for document in (packets + again, packets[:3] + again[:3]):
        with pytest.raises(RecordingError, match=r"go back from .*; split the recordings"):
            open_recording(write(tmp_path, json.dumps(document), "a.json"), ReadOptions(unit="mV"))


def test_a_battery_is_no_ecg_unless_the_user_says_so(tmp_path):
    path = write(tmp_path, table(["time [s]", "T [C]", "V [V]"], TIMES, [33] * COUNT, 3.9 + WAVE / 1000))
    with pytest.raises(RecordingError, match=r"'V \[V\]' has a constant 3.9 V, as a battery has; .* --column"):
        open_recording(path)
    assert open_recording(path, ReadOptions(signal="V")).mv == pytest.approx(WAVE - np.median(WAVE), abs=1e-6)


def test_an_ecg_comes_before_a_voltage_and_before_longer_names(tmp_path):
    other = np.round(np.cos(PLACES / 30), 3)
    for title in ("V [mV]", "ECG baseline [mV]", "ECG average [mV]"):
        record = open_recording(write(tmp_path, table(["time [s]", title, "I [mV]", "ECG [mV]"], TIMES, other, other, WAVE)))
        assert record.mv == pytest.approx(WAVE)


@pytest.mark.parametrize(
    ("other", "state"),
    [
        ((PLACES % 110 == 50).astype(int), "has only two values"),
        (np.where(PLACES > 20, 5.0, WAVE), "is flat or invalid for 88 % of its time"),
        (np.where(PLACES % 97 == 0, -187.49, -187.5), "has only two values"),
    ],
)
def test_flags_and_amplifiers_at_their_limit_are_passed_over(other, state, tmp_path):
    record = open_recording(write(tmp_path, table(["time [s]", "ECG 1 [mV]", "ECG 2 [mV]"], TIMES, other, WAVE)))
    assert record.mv == pytest.approx(WAVE)
    assert f"column ECG 1 {state}: column ECG 2 is read" in record.notes


def test_thousands_of_samples_and_times_as_americans_write_them(tmp_path):
    volts = [f'"{value * 1000:,.1f}"' for value in WAVE]
    times = [f'"{place * 8:,d}"' for place in PLACES]
    assert open_recording(write(tmp_path, table(["time [ms]", "ecg [uV]"], times, volts))).mv == pytest.approx(WAVE)
    whole = [f'"{round(value * 1000):,d}"' for value in WAVE]
    record = open_recording(write(tmp_path, table(["time [s]", "ecg [uV]"], TIMES, whole)))
    assert record.mv == pytest.approx(WAVE, abs=1e-3)


@pytest.mark.parametrize(
    "show",
    [
        lambda place: f"0 days 00:00:{place / RATE_HZ:09.6f}",
        lambda place: f'"May 05, 2024 12:30:{place / RATE_HZ:06.3f}"',
        lambda place: f"{((2**32 - 3_000_000 + place * 8_000) % 2**32) / 1e6:.6f}",
    ],
)
def test_durations_month_names_and_a_counter_of_microseconds_in_seconds(show, tmp_path):
    record = open_recording(write(tmp_path, table(["time", "ecg [mV]"], map(show, PLACES), WAVE)))
    assert record.rate_hz == pytest.approx(RATE_HZ)
    assert len(record.segments) == 1
    if '"' in show(0):
        assert record.start_us == 1_714_912_200_000_000


@pytest.mark.parametrize(
    ("title", "show"),
    [
        ("Čas [s]", lambda place: TIMES[place]),
        ("measured", lambda place: f"2024-05-05T12:30:{place / RATE_HZ:06.3f}Z"),
        ("ts", lambda place: f"{1_714_912_200 + place / RATE_HZ:.3f}"),
    ],
)
def test_times_are_known_by_their_unit_or_their_cells(title, show, tmp_path):
    record = open_recording(write(tmp_path, table([title, "ecg [mV]"], map(show, PLACES), WAVE)))
    assert record.rate_hz == pytest.approx(RATE_HZ)


def test_seconds_since_1904_are_not_seconds_since_1970(tmp_path):
    times = [f"{1_714_912_200 + 2_082_844_800 + place / RATE_HZ:.3f}" for place in PLACES]
    record = open_recording(write(tmp_path, table(["time", "ecg [mV]"], times, WAVE)))
    assert record.start_us is None
    assert record.rate_hz == pytest.approx(RATE_HZ)


def test_the_titles_that_pandas_makes_up_are_no_sample(tmp_path):
    record = open_recording(write(tmp_path, table(["0", "1"], TIMES, WAVE)), ReadOptions(unit="mV"))
    assert record.mv == pytest.approx(WAVE)


def test_titles_with_blanks_in_a_table_split_at_blanks(tmp_path):
    rows = "".join(f"{time:>14}{value:12.4f}{-value:12.4f}\n" for time, value in zip(TIMES, WAVE, strict=True))
    text = f"  Elapsed time        MLII          V5\n     (seconds)        (mV)        (mV)\n{rows}"
    record = open_recording(write(tmp_path, text, "r.txt"))
    assert record.mv == pytest.approx(WAVE)
    assert "'MLII [mV]'" in record.notes[0]


def test_an_empty_row_below_the_units(tmp_path):
    text = "Time,ECG\ns,uV\n,\n" + "".join(f"{time},{value * 1000:.1f}\n" for time, value in zip(TIMES, WAVE, strict=True))
    assert open_recording(write(tmp_path, text)).mv == pytest.approx(WAVE)


@pytest.mark.parametrize(("unit", "per_mv"), [("10 uV", 100), ("2.5 uV/bit", 400), ("0.1 mV", 10), ("200/mV", 200)])
def test_multiples_of_a_unit(unit, per_mv, tmp_path):
    path = write(tmp_path, table(["time [s]", f"ecg [{unit}]"], TIMES, np.round(WAVE * per_mv, 3)))
    assert open_recording(path).mv == pytest.approx(WAVE, abs=0.01)


def test_thousands_of_milliseconds_beside_decimal_commas(tmp_path):
    times = [f"{place * 8:,d}".replace(",", ".") for place in PLACES]
    volts = [str(value).replace(".", ",") for value in WAVE]
    record = open_recording(write(tmp_path, table(["Zeit [ms]", "EKG [mV]"], times, volts, delimiter=";")))
    assert record.mv == pytest.approx(WAVE)
    assert record.rate_hz == pytest.approx(RATE_HZ)


@pytest.mark.parametrize("columns", [3_000, 100_000])
def test_a_wide_table_is_refused_in_one_short_line(columns, tmp_path):
    with pytest.raises(RecordingError, match="column") as error:
        open_recording(write(tmp_path, ",".join(["c"] * columns) + "\n" + (",".join(["1"] * columns) + "\n") * 2))
    assert len(str(error.value).replace(str(tmp_path), "")) < 400


def test_the_note_on_many_flat_leads_is_short(tmp_path):
    titles = ["time [s]", *(f"ecg{number} [mV]" for number in range(200))]
    text = ",".join(titles) + "\n" + "".join(f"{place * 0.008:.3f}" + ",1" * 200 + "\n" for place in range(3))
    assert max(map(len, open_recording(write(tmp_path, text)).notes)) < 1_500


@pytest.mark.parametrize("title", ["RR", "RR-Intervall [ms]", "Intervalle RR (ms)", "Intervalo RR (ms)", "Intervallo R-R"])
@pytest.mark.parametrize("before", ["", "0,"])
def test_intervals_with_titles_in_other_languages_or_beside_row_numbers(title, before, tmp_path):
    numbers = (f"{number}," if before else "" for number in range(RR_MS.size))
    rows = "".join(f"{number}{value}\n" for number, value in zip(numbers, RR_MS, strict=True))
    record = open_file(write(tmp_path, f"{',' if before else ''}{title}\n{rows}"))
    assert isinstance(record, RrRecording)
    assert record.rr_s * 1000 == pytest.approx(RR_MS)


def test_flagged_intervals_comments_and_blank_lines(tmp_path):
    flagged = open_file(write(tmp_path, table(["RR [ms]", "artifact"], RR_MS, (np.arange(70) == 20).astype(int))))
    assert isinstance(flagged, RrRecording)
    assert flagged.rr_s * 1000 == pytest.approx(np.delete(RR_MS, 20))
    for above in ("# Polar H10\n# ms\n", "RR intervals (ms)\n\n"):
        record = open_file(write(tmp_path, above + "\n".join(map(str, RR_MS)), "r.txt"))
        assert isinstance(record, RrRecording)
        assert record.rr_s * 1000 == pytest.approx(RR_MS)


def test_intervals_in_parts_of_a_second_are_not_taken_for_milliseconds(tmp_path):
    with pytest.raises(RecordingError, match="RR"):
        open_file(write(tmp_path, "RR (1/1024 s)\n" + "\n".join(map(str, RR_MS))))


def test_a_fhir_observation_says_in_its_code_that_it_is_an_ecg(tmp_path):
    sampled = {"origin": {"value": 0, "unit": "mV"}, "period": 8, "data": " ".join(map(str, WAVE))}
    coded = {"code": {"coding": [{"code": "131329", "display": "MDC_ECG_ELEC_POTL_I"}]}, "valueSampledData": sampled}
    record = open_recording(write(tmp_path, json.dumps({"component": [coded]}), "a.json"))
    assert (record.rate_hz, record.mv.size) == (RATE_HZ, COUNT)


def test_a_list_of_numbers_is_refused_with_all_options_that_it_takes(tmp_path):
    with pytest.raises(RecordingError, match=r"--signal.*--rate.*--unit"):
        open_recording(write(tmp_path, json.dumps(WAVE.tolist()), "a.json"))

"""JSON exports of vendors: documents and JSON lines, their rates, units and starts, and damaged ones."""

import gzip
import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, RecordingError, open_recording
from captures.exports.loading import LINE_LIMIT_BYTES
from captures.recording import CHUNK_SAMPLES

START_US = 1_714_912_200_000_000
"""2024-05-05T12:30:00Z."""
NS_SINCE_2000 = 768_225_000_000_000_000


def write(folder, content, name="ecg.json"):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, "utf-8")
    return folder / name


def wave(count=500):
    """A slow wave with a peak every 100 samples, in mV."""
    places = np.arange(count)
    return np.round(0.1 * np.sin(places / 20) + 1.2 * (places % 100 == 50), 3)


def fitbit(samples, rate="250", **more):
    reading = {
        "startTime": "2024-05-05T12:30:00.222",
        "averageHeartRate": 71,
        "waveformSamples": samples,
        "samplingFrequencyHz": rate,
        "scalingFactor": 10922,
        "leadNumber": 1,
    }
    return {"ecgReadings": [{**reading, **more}]}


@pytest.mark.parametrize("rate", ["250", 250, "250 Hz", 250.0])
def test_reads_a_fitbit_reading_with_its_scaling_factor(rate, tmp_path):
    counts = np.rint(wave() * 10922).astype(int)
    record = open_recording(write(tmp_path, fitbit(counts.tolist(), rate)))
    assert record.rate_hz == 250
    assert record.start_us == START_US + 222_000
    assert record.mv == pytest.approx(counts / 10922)
    assert "signal 1 (ECG in 10922.000000/mV) at 250 Hz" in record.notes[0]


def test_reads_google_health_with_the_key_of_its_interface(tmp_path):
    item = {
        "interval": {"startTime": "2024-05-05T12:30:00Z"},
        "waveformSamples": [0, 5461, 10922] * 20,
        "samplingFrequencyHertz": 250,
        "millivoltsScalingFactor": 10922,
    }
    record = open_recording(write(tmp_path, {"dataPoints": [{"electrocardiogram": item}]}))
    assert (record.rate_hz, record.mv[:3].tolist()) == (250, [0, 0.5, 1])


def health_auto_export(values, unit="mcV", date=None, rate=128, **more):
    stamp = date or (lambda place: START_US * 1e-6 + 0.994 + place / 128)
    points = [{"date": stamp(place), "voltage": value, "units": unit} for place, value in enumerate(values)]
    ecg = {"classification": "Sinus Rhythm", "start": "2024-05-05 14:30:00 +0200", "voltageMeasurements": points}
    return {"data": {"ecg": [{**ecg, "samplingFrequency": rate, **more}]}}


@pytest.mark.parametrize(("unit", "factor"), [("mcV", 1e-3), ("mV", 1.0), ("V", 1e3), ("µV", 1e-3)])
def test_reads_health_auto_export_in_its_units(unit, factor, tmp_path):
    record = open_recording(write(tmp_path, health_auto_export(wave().tolist(), unit)))
    assert record.rate_hz == 128
    assert record.start_us == START_US + 994_000
    assert record.mv == pytest.approx(wave() * factor)
    assert len(record.segments) == 1


def test_dates_of_whole_seconds_leave_the_stated_rate_and_start(tmp_path):
    document = health_auto_export(wave().tolist(), date=lambda place: f"2024-05-05 14:30:{place // 128:02} +0200")
    record = open_recording(write(tmp_path, document))
    assert (record.rate_hz, record.start_us) == (128, START_US)
    assert record.mv.size == 500


def test_dates_of_another_epoch_do_not_replace_the_stated_start(tmp_path):
    document = health_auto_export(wave().tolist(), date=lambda place: 1_188_745_353.994 + place / 128)
    assert open_recording(write(tmp_path, document)).start_us == START_US


def test_a_gap_between_the_times_of_samples_is_kept(tmp_path):
    document = health_auto_export(wave().tolist(), date=lambda place: START_US * 1e-6 + place / 128 + 2.0 * (place >= 256))
    segments = open_recording(write(tmp_path, document)).segments
    assert [(segment.first, segment.last) for segment in segments] == [(0, 255), (256, 499)]
    assert segments[1].start_s == pytest.approx(4.0, abs=1e-3)


def test_a_rate_that_contradicts_the_times_is_refused_and_settled_by_an_option(tmp_path):
    path = write(tmp_path, health_auto_export(wave().tolist(), rate=512))
    with pytest.raises(RecordingError, match=r"128 Hz, the file states 512 Hz; give the right one with --rate HZ"):
        open_recording(path)
    assert open_recording(path, ReadOptions(rate_hz=128.0)).rate_hz == 128


def test_of_several_recordings_the_first_is_read_and_the_others_are_told(tmp_path):
    first, second = fitbit([0, 10922] * 100), fitbit([10922, 0] * 100)
    path = write(tmp_path, {"ecgReadings": first["ecgReadings"] + second["ecgReadings"]})
    record = open_recording(path)
    assert record.mv[0] == 0
    assert any("1 more ECG signal; choose one with --signal N" in note for note in record.notes)
    assert open_recording(path, ReadOptions(signal="2")).mv[0] == 1


def test_reads_kardia_leads_in_nanovolts_a_count(tmp_path):
    samples = {"leadI": [2000, -2000] * 50, "leadII": [4000, -4000] * 50}
    block = {"frequency": 300, "mainsFrequency": 50, "amplitudeResolution": 500, "samples": samples}
    path = write(tmp_path, {"recordedAt": "2024-05-05T14:30:00+02:00", "data": {"raw": block}})
    record = open_recording(path)
    assert (record.rate_hz, record.start_us, record.mv[:2].tolist()) == (300, START_US, [1, -1])
    assert open_recording(path, ReadOptions(signal="lead II")).mv[:2].tolist() == [2, -2]


def test_reads_a_withings_signal_in_microvolts(tmp_path):
    body = {"signal": [1000, -500] * 50, "sampling_frequency": 500, "wearposition": 1}
    record = open_recording(write(tmp_path, {"status": 0, "body": body}))
    assert (record.rate_hz, record.mv[:2].tolist()) == (500, [1, -0.5])


def test_reads_pairs_of_seconds_and_volts(tmp_path):
    pairs = [[place / 512, value / 1000] for place, value in enumerate(wave().tolist())]
    item = {"startDate": "2024-05-05T08:30:00.000-0400", "samplingFrequency": 512, "voltageMeasurements": pairs}
    record = open_recording(write(tmp_path, [item]))
    assert (record.rate_hz, record.start_us) == (512, START_US)
    assert record.mv == pytest.approx(wave())


def test_reads_sampled_data_of_fhir(tmp_path):
    data = {"origin": {"value": 0, "unit": "uV"}, "period": 4, "factor": 2, "dimensions": 1, "data": "100 E -50 " * 20}
    text = {"code": {"text": "ECG lead I"}, "valueSampledData": data}
    component = {"resourceType": "Observation", "effectiveDateTime": "2024-05-05T12:30:00Z", "component": [text]}
    record = open_recording(write(tmp_path, component), ReadOptions(signal="1"))
    assert (record.rate_hz, record.start_us) == (250, START_US)
    assert record.mv[:3] == pytest.approx([0.2, np.nan, -0.1], nan_ok=True)


def movesense(packets=20, gap_at=None):
    data = []
    for packet in range(packets):
        t_ms = 51_234 + packet * 128 + (2_560 if gap_at is not None and packet >= gap_at else 0)
        data.append({"ecg": {"Samples": [(packet * 16 + place) % 100 for place in range(16)], "Timestamp": t_ms}})
        data.append({"acc": {"ArrayAcc": [{"x": 0.1, "y": 0.2, "z": 9.8}], "Timestamp": t_ms}})
    return data


def test_movesense_packets_need_the_unit_and_are_placed_by_their_times(tmp_path):
    path = write(tmp_path, {"data": movesense(gap_at=10)})
    with pytest.raises(RecordingError, match=r"does not state the unit of its samples \(--unit"):
        open_recording(path)
    record = open_recording(path, ReadOptions(unit="uV"))
    assert record.rate_hz == pytest.approx(125)
    assert record.mv[:3].tolist() == [0, 0.001, 0.002]
    assert record.segments[1].start_s == pytest.approx(10 * 0.128 + 2.56)


def test_movesense_json_lines_are_read_like_the_document(tmp_path):
    lines = [json.dumps(item) for item in movesense(gap_at=10)]
    record = open_recording(write(tmp_path, "\n".join(lines) + "\n", "ecg.jsonl"), ReadOptions(unit="uV"))
    assert record.rate_hz == pytest.approx(125)
    assert (len(record.segments), record.mv.size) == (2, 320)
    assert record.segments[1].start_s == pytest.approx(10 * 0.128 + 2.56)


def polar_line(packet, values, kind="ECG"):
    first = packet * len(values)
    times = [NS_SINCE_2000 + round((first + place) * 1e9 / 130) for place in range(len(values))]
    points = [{"voltage": value, "timeStamp": time} for value, time in zip(values, times, strict=True)]
    arrived_ms = START_US // 1000 + round((first + len(values) - 1) * 1000 / 130)
    return json.dumps({"phoneTimestamp": arrived_ms, "deviceId": "0", "dataType": kind, "data": points})


def polar_lines(packets, size=73):
    counts = np.arange(packets * size) % 1000 - 500
    return counts, [polar_line(packet, counts[packet * size :][:size].tolist()) for packet in range(packets)]


@pytest.mark.parametrize("name", ["ECG.jsonl", "ECG.jsonl.gz", "ECG.json"])
def test_reads_polar_recorder_lines_in_microvolts_from_the_phones_clock(name, tmp_path):
    counts, lines = polar_lines(30)
    text = "\n".join(lines) + "\n"
    path = write(tmp_path, text, name)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    record = open_recording(path)
    assert record.rate_hz == pytest.approx(130, abs=1e-3)
    assert record.start_us == pytest.approx(START_US, abs=2000)
    assert record.mv == pytest.approx(counts / 1000)
    assert len(record.segments) == 1


def test_reads_long_json_lines_in_bounded_chunks(tmp_path):
    counts, lines = polar_lines(950)
    chunks = list(open_recording(write(tmp_path, "\n".join(lines), "ECG.jsonl")).read_chunks())
    assert len(chunks) > 1
    assert max(chunk.values.size for chunk in chunks) <= CHUNK_SAMPLES
    assert np.concatenate([chunk.values for chunk in chunks]) == pytest.approx(counts / 1000)


def test_a_lost_packet_leaves_a_gap_and_a_repeated_one_is_read_once(tmp_path):
    _, lines = polar_lines(6)
    record = open_recording(write(tmp_path, "\n".join([*lines[:2], lines[1], *lines[3:]]) + "\n", "ECG.jsonl"))
    assert record.mv.size == 5 * 73
    assert record.segments[1].start_s == pytest.approx(3 * 73 / 130, abs=1e-3)


def test_times_that_go_back_are_refused(tmp_path):
    _, lines = polar_lines(10)
    record = open_recording(write(tmp_path, "\n".join(lines + lines) + "\n", "ECG.jsonl"))
    with pytest.raises(RecordingError, match=r"go back from .* to 0\.000 s; split the recordings"):
        list(record.read_chunks())


def test_a_cut_last_line_is_told(tmp_path):
    _, lines = polar_lines(4)
    record = open_recording(write(tmp_path, "\n".join(lines)[:-50], "ECG.jsonl"))
    assert any("last line is cut" in note for note in record.notes)
    assert record.mv.size == 3 * 73


@pytest.mark.parametrize(
    ("time", "stamp"),
    [
        ("t", lambda place: place / 250),
        ("timestamp", lambda place: START_US // 1000 + place * 4),
        ("time", lambda place: f"2024-05-05T12:30:0{place // 250}.{place * 4 % 1000:03}Z"),
    ],
)
def test_json_lines_of_single_samples(time, stamp, tmp_path):
    lines = [json.dumps({time: stamp(place), "ecg_mv": value, "hr": 70}) for place, value in enumerate(wave().tolist())]
    record = open_recording(write(tmp_path, "\n".join(lines), "ecg.jsonl"))
    assert record.rate_hz == pytest.approx(250)
    assert record.start_us == (None if time == "t" else START_US)
    assert record.mv == pytest.approx(wave())
    assert len(record.segments) == 1


def test_lines_of_another_sensor_are_refused(tmp_path):
    values = list(range(73))
    lines = [polar_line(packet, values, "PPG") for packet in range(4)]
    with pytest.raises(RecordingError, match="a pulse wave; to read them nevertheless, give --signal 1"):
        open_recording(write(tmp_path, "\n".join(lines), "PPG.jsonl"))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"ecg": list(range(100))}, r"sampling rate \(--rate HZ\) and the unit of its samples \(--unit"),
        ({"ecg": list(range(100)), "fs": 250}, r"does not state the unit"),
        ({"ecg": list(range(100)), "unit": "mV"}, r"does not state its sampling rate \(--rate HZ\); give it"),
        ({"heart": list(range(100)), "fs": 250}, "if one is an ECG, name it with --signal"),
        ({"hello": "world"}, "JSON without a list of samples; give a capture of pulsegate, or an export"),
        ({"features": [{"lat": 1, "lon": 2}] * 50}, "JSON without a list of samples"),
    ],
)
def test_what_the_file_leaves_open_is_asked_for_with_the_option(document, words, tmp_path):
    with pytest.raises(RecordingError, match=words):
        open_recording(write(tmp_path, document))


def test_the_options_settle_what_the_file_leaves_open(tmp_path):
    path = write(tmp_path, {"heart": list(range(100))})
    record = open_recording(path, ReadOptions(signal="heart", unit="uV", rate_hz=250.0))
    assert (record.rate_hz, record.mv[10]) == (250, 0.01)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "damaged or cut JSON|nested deeper than any export"),
        ('{"a":' * 100_000, "damaged or cut JSON|nested deeper than any export"),
        ('{"ecg": [1, 2', "damaged or cut JSON"),
        ('{"ecg": [' + "9" * 100_000 + "]}", "without a list of samples"),
        ("{" + " " * LINE_LIMIT_BYTES + "}", "without a list of samples"),
        ("[[]," + "[]," * 1_100_000 + "[]]", "more values than a recording has"),
        ('{"a": 1}\n{"b": 2}\n', "JSON lines without samples of an ECG"),
    ],
)
def test_hostile_documents_are_refused_in_one_short_line(content, words, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(RecordingError, match=words) as error:
        open_recording(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value).replace(str(path), "")) < 400


SCALARS = st.none() | st.booleans() | st.floats() | st.text("0123456789.-TZ", max_size=5)
KEYS = st.sampled_from(
    ("ecg", "data", "Samples", "Timestamp", "voltage", "date", "unit", "fs", "waveformSamples", "origin", "period")
)
NUMBERS = st.lists(SCALARS, min_size=16, max_size=20)
INNER = (
    SCALARS | NUMBERS | st.lists(st.dictionaries(KEYS, SCALARS | NUMBERS, max_size=3), max_size=3).map(lambda items: items * 8)
)
DOCUMENTS = INNER | st.dictionaries(KEYS, INNER, max_size=3)


@given(document=st.dictionaries(KEYS, DOCUMENTS, max_size=4), lines=st.booleans())
def test_any_document_is_read_or_gives_a_recording_error(document, lines, tmp_path_factory):
    text = json.dumps(document)
    path = write(tmp_path_factory.mktemp("json"), f"{text}\n{text}\n" if lines else text)
    with suppress(RecordingError):
        assert open_recording(path, ReadOptions(signal="1", unit="mV", rate_hz=100.0)).mv.size

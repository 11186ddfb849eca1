"""Times of tables: how they are written, what they count, and where samples are missing."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from captures import ReadOptions, RecordingError, open_recording

RATE_HZ = 125
SAMPLES = 1500
T_S = np.arange(SAMPLES) / RATE_HZ
START = datetime(2024, 5, 25, 23, 59, 55, tzinfo=UTC)
DAYS = [START + timedelta(milliseconds=8 * n) for n in range(SAMPLES)]


def beats(samples, rate_hz):
    """R waves of 1.2 mV every 0.8 s, with noise of 10 µV: no two samples side by side are equal for long."""
    at = np.arange(samples) / rate_hz
    noise = np.random.default_rng(samples).normal(0, 0.01, samples)
    return np.round(1.2 * np.exp(-((((at - 0.3) % 0.8) / 0.012 - 20) ** 2)) + noise, 4)


def read(folder, times, values=None, title="time [s]", **options):
    values = beats(len(times), RATE_HZ) if values is None else values
    (folder / "r.csv").write_text(f"{title};ecg [mV]\n" + "".join(f"{t};{v}\n" for t, v in zip(times, values, strict=True)))
    return open_recording(folder / "r.csv", ReadOptions(**options))


def gaps(record):
    """The number of the first sample after each gap, and its time."""
    return [(segment.first, round(segment.start_s, 3)) for segment in record.segments[1:]]


@pytest.mark.parametrize(
    ("title", "per_second"),
    [
        ("time [s]", 1),
        ("Time (ms)", 1e3),
        ("time_us", 1e6),
        ("timestamp [ns]", 1e9),
        ("time [min]", 1 / 60),
        ("time (hours)", 1 / 3600),
        ("time [days]", 1 / 86400),
        ("time [s/256]", 256),
        ("t/s", 1),
        ("elapsed_s", 1),
        ("timer", 1e3),
        ("time_since_start", 1),
        ("Zeit [ms]", 1e3),
        ("t", 1e6),
    ],
)
def test_reads_times_in_every_unit(title, per_second, tmp_path):
    record = read(tmp_path, [f"{t * per_second:.10f}" for t in T_S], title=title)
    assert record.rate_hz == pytest.approx(RATE_HZ)
    assert (record.start_us, gaps(record)) == (None, [])


def millisecond(day):
    return f"{day.microsecond // 1000:03d}"


@pytest.mark.parametrize(
    ("write", "start"),
    [
        (lambda d: d.isoformat(timespec="milliseconds"), START),
        (lambda d: d.strftime("%Y-%m-%dT%H:%M:%S.") + millisecond(d) + "Z", START),
        (lambda d: d.strftime("%Y-%m-%d %H:%M:%S.%f-04:00"), START + timedelta(hours=4)),
        (lambda d: d.strftime("%Y-%m-%d %H:%M:%S.") + millisecond(d) + " +0200", START - timedelta(hours=2)),
        (lambda d: d.strftime("%Y/%m/%d %H:%M:%S.") + millisecond(d), START),
        (lambda d: d.strftime("%d.%m.%Y %H:%M:%S,") + millisecond(d), START),
        (lambda d: d.strftime("%d/%m/%Y %H:%M:%S.") + millisecond(d), START),
        (lambda d: d.strftime("%m/%d/%Y %I:%M:%S.") + millisecond(d) + d.strftime(" %p"), START),
        (lambda d: d.strftime("%d-%b-%Y %H:%M:%S.") + millisecond(d), START),
        (lambda d: d.strftime("%Y%m%d%H%M%S") + millisecond(d), START),
        (lambda d: d.strftime("%Y%m%dT%H%M%S.") + millisecond(d), START),
        (lambda d: f"{d.timestamp():.3f}", START),
        (lambda d: round(d.timestamp() * 1e3), START),
        (lambda d: round(d.timestamp() * 1e6), START),
        (lambda d: round(d.timestamp() * 1e3) * 1_000_000, START),
        (lambda d: f"{d.timestamp() / 86400 + 25569:.10f}", START),
        (lambda d: f"{d.timestamp() / 86400 + 719529:.10f}", START),
        (lambda d: round(d.timestamp() * 1e3) * 10_000 + 621_355_968_000_000_000, START),
        (lambda d: d.strftime("%H:%M:%S.") + millisecond(d), None),
        (lambda d: d.strftime("%H:%M:%S:") + millisecond(d), None),
        (lambda d: d.strftime("%I:%M:%S.") + millisecond(d) + d.strftime(" %p").lower(), None),
        (lambda d: (d + timedelta(hours=1)).strftime("%I:%M:%S.") + millisecond(d), None),
        (lambda d: d.strftime("%M:%S.") + millisecond(d), None),
        (lambda d: d.replace(day=d.day - 20).strftime("%d/%m/%Y %H:%M:%S.") + millisecond(d), START - timedelta(days=20)),
        (lambda d: d.replace(day=d.day - 19).strftime("%m/%d/%Y %H:%M:%S.") + millisecond(d), None),
        (lambda d: d.strftime("%d-%m-%y %H:%M:%S.") + millisecond(d), None),
    ],
)
def test_reads_dates_and_times_of_day_across_midnight(write, start, tmp_path):
    record = read(tmp_path, [write(day) for day in DAYS], title="Timestamp")
    assert record.rate_hz == pytest.approx(RATE_HZ, rel=1e-3)
    assert gaps(record) == []
    if start is None:
        assert record.start_us is None
    else:
        assert record.start_us == pytest.approx(start.timestamp() * 1e6, abs=50)


def test_joins_dates_and_times_of_day_in_two_columns(tmp_path):
    rows = "".join(f"{d:%d.%m.%Y},{d:%H:%M:%S}.{millisecond(d)},{v}\n" for d, v in zip(DAYS, beats(SAMPLES, 125), strict=True))
    (tmp_path / "r.csv").write_text("Date,Time,ECG [mV]\n" + rows)
    record = open_recording(tmp_path / "r.csv")
    assert (record.start_us, gaps(record)) == (round(START.timestamp() * 1e6), [])


@pytest.mark.parametrize("title", ["time", "t [ticks]", "sample", "index", "#", "time [samples]", ""])
def test_sample_numbers_need_the_rate_and_give_the_gaps(title, tmp_path):
    numbers = np.delete(np.arange(SAMPLES), np.s_[500:750])
    with pytest.raises(RecordingError, match="numbers the samples and holds no times; give the sampling rate with --rate"):
        read(tmp_path, numbers, title=title)
    record = read(tmp_path, numbers, title=title, rate_hz=250.0)
    assert (record.rate_hz, gaps(record)) == (250.0, [(500, 3.0)])


@pytest.mark.parametrize(
    ("title", "wrap", "scale"),
    [
        ("time_us", 2**32, 1e6),
        ("time_us", 2**24, 1e6),
        ("time_ms", 2**16, 1e3),
        ("millis", 2**32, 1e3),
        ("time_ms", 1000, 1e3),
        ("time [s]", 86400, 1),
    ],
)
def test_counters_that_begin_again_are_counted_on(title, wrap, scale, tmp_path):
    record = read(tmp_path, [f"{(wrap + (t - 4) * scale) % wrap:.10g}" for t in T_S], title=title)
    assert record.rate_hz == pytest.approx(RATE_HZ)
    assert gaps(record) == []
    assert any(f"the times restart at {wrap}" in note for note in record.notes)


def test_a_time_that_starts_again_is_a_second_recording(tmp_path):
    with pytest.raises(RecordingError, match="goes back by 60 s at row 7502, where a second recording may begin") as error:
        read(tmp_path, np.tile(np.arange(7500) / RATE_HZ, 2))
    assert "sort" not in str(error.value)


@pytest.mark.parametrize(("digits", "rate_hz"), [(0, 125), (1, 130), (2, 250), (2, 500), (3, 2000)])
def test_the_rate_follows_from_the_count_where_times_are_coarse(digits, rate_hz, tmp_path):
    at = np.floor((np.arange(rate_hz * 20) / rate_hz + 0.0004) * 10**digits) / 10**digits
    record = read(tmp_path, [f"{t:.{digits}f}" for t in at])
    assert record.rate_hz == pytest.approx(rate_hz, rel=5e-3)
    assert gaps(record) == []


def test_a_gap_is_found_between_coarse_times(tmp_path):
    kept = np.delete(np.arange(2500), np.s_[625:1000])
    record = read(tmp_path, kept // RATE_HZ)
    assert (record.rate_hz, gaps(record)) == (pytest.approx(RATE_HZ, rel=5e-3), [(625, 8.0)])


def packets(samples, size, rate_hz, step_s=0.0):
    """The times at which samples came in packets; `step_s` apart within a packet."""
    at = np.arange(samples)
    return 1_714_912_200 + (at // size + 1) * size / rate_hz + at % size * step_s


@pytest.mark.parametrize("step_s", [0.0, 11e-6, 1e-3])
@pytest.mark.parametrize(("size", "rate_hz"), [(73, 130), (16, 125), (25, 250)])
def test_times_of_packets_need_the_rate_and_give_the_gaps(size, rate_hz, step_s, tmp_path):
    times = [f"{t:.6f}" for t in packets(3000, size, rate_hz, step_s)]
    with pytest.raises(RecordingError, match="perhaps each packet has one time; give the sampling rate with --rate"):
        read(tmp_path, times)
    record = read(tmp_path, times, rate_hz=float(rate_hz))
    assert (record.rate_hz, record.mv.size, gaps(record)) == (rate_hz, 3000, [])
    lost = np.delete(np.arange(3000), np.s_[20 * size : 24 * size])
    record = read(tmp_path, [times[n] for n in lost], rate_hz=float(rate_hz))
    assert gaps(record) == [(20 * size, pytest.approx(24 * size / rate_hz, abs=0.01))]


def test_a_time_in_the_first_row_of_each_packet_is_that_of_the_others(tmp_path):
    times = ["" if n % 73 else f"{n / 130:.3f}" for n in range(3000)]
    with pytest.raises(RecordingError, match="perhaps each packet has one time; give the sampling rate with --rate"):
        read(tmp_path, times)
    record = read(tmp_path, times, rate_hz=130.0)
    assert (record.mv.size, gaps(record)) == (3000, [])


@pytest.mark.parametrize("jitter_s", [0.005, 0.02, 0.05])
def test_packets_whose_times_step_back_are_read_in_the_order_of_the_file(jitter_s, tmp_path):
    offsets = np.repeat(np.random.default_rng(3).normal(0, jitter_s, 110), 73)[:7800]
    at = np.arange(7800) / 130 + offsets
    record = read(tmp_path, [round((1.7e9 + t) * 1e9) for t in at], title="timestamp [ns]")
    assert record.rate_hz == pytest.approx(130, rel=0.01)
    assert (record.mv.size, gaps(record)) == (7800, [])
    kept = np.delete(np.arange(7800), np.s_[3650:3796])
    record = read(tmp_path, [round((1.7e9 + at[n]) * 1e9) for n in kept], title="timestamp [ns]")
    assert [first for first, _ in gaps(record)] == [3650]


@pytest.mark.parametrize("acc_hz", [1, 50, 200, 1000])
def test_rows_of_another_sensor_are_no_gaps_but_a_gap_is_one(acc_hz, tmp_path):
    def merge(numbers):
        rows = [(n / 130, f"{v},") for n, v in zip(numbers, beats(numbers.size, 130), strict=True)]
        rows += [(n / acc_hz + 0.0013, ",0.98") for n in range(20 * acc_hz)]
        (tmp_path / "r.csv").write_text("time [s],ecg [mV],acc [g]\n" + "".join(f"{t:.4f},{x}\n" for t, x in sorted(rows)))
        return open_recording(tmp_path / "r.csv")

    record = merge(np.arange(2600))
    assert (record.rate_hz, record.mv.size, gaps(record)) == (pytest.approx(130, rel=1e-3), 2600, [])
    record = merge(np.delete(np.arange(2600), np.s_[1300:1430]))
    assert gaps(record) == [(1300, 11.0)]


@pytest.mark.parametrize("rows", [2, 4, 20])
def test_a_slow_ecg_in_the_rows_of_a_fast_signal_has_its_own_rate(rows, tmp_path):
    values = beats(SAMPLES, RATE_HZ)
    text = "".join(f"{n / RATE_HZ / rows:.5f};{values[n // rows] if n % rows == 0 else ''};1\n" for n in range(SAMPLES * rows))
    (tmp_path / "r.csv").write_text("time [s];ecg [mV];emg [mV]\n" + text)
    record = open_recording(tmp_path / "r.csv")
    assert (record.rate_hz, gaps(record)) == (pytest.approx(RATE_HZ, rel=1e-3), [])
    assert record.mv == pytest.approx(values)


@pytest.mark.parametrize(
    "numbers",
    [
        np.sort(np.concatenate((np.arange(SAMPLES), np.arange(7, SAMPLES, 25)))),
        np.repeat(np.arange(SAMPLES), 3),
        np.concatenate((np.arange(700), np.arange(600, SAMPLES))),
    ],
)
def test_repeated_rows_are_left_out(numbers, tmp_path):
    values = beats(SAMPLES, RATE_HZ)
    record = read(tmp_path, [f"{n / RATE_HZ:.3f}" for n in numbers], values[numbers])
    assert record.mv == pytest.approx(values)
    assert (record.rate_hz, gaps(record)) == (pytest.approx(RATE_HZ), [])
    assert f"{numbers.size - SAMPLES} repeated rows (same time and value) are left out" in record.notes


@pytest.mark.parametrize("rates", [(125, 250), (250, 125)])
def test_a_rate_that_changes_is_refused(rates, tmp_path):
    first = np.arange(6000) / rates[0]
    times = np.concatenate((first, first[-1] + np.arange(1, 6001) / rates[1]))
    with pytest.raises(RecordingError, match=r"split the file there|give the sampling rate"):
        read(tmp_path, [f"{t:.4f}" for t in times])


def test_a_rate_that_changes_after_the_start_is_refused_with_its_row(tmp_path):
    first = np.arange(80_000) / 500
    times = np.concatenate((first, first[-1] + np.arange(1, 6001) / 250))
    with pytest.raises(RecordingError, match="near row 80002, the times give 250 Hz instead of 500 Hz"):
        read(tmp_path, [f"{t:.4f}" for t in times], np.resize(beats(1000, 500), times.size))


def test_a_stated_rate_that_the_times_contradict_is_used_with_a_note(tmp_path):
    record = read(tmp_path, [f"{t:.3f}" for t in T_S], rate_hz=200.0)
    assert (record.rate_hz, gaps(record)) == (200.0, [])
    assert "the times in column 'time' do not fit the stated rate and are not used; gaps are unknown" in record.notes


@pytest.mark.parametrize("rate_hz", [50, 51.2, 2048, 4000])
def test_reads_rates_up_to_those_of_the_pipeline(rate_hz, tmp_path):
    assert read(tmp_path, [f"{n / rate_hz:.6f}" for n in range(8000)]).rate_hz == pytest.approx(rate_hz, rel=1e-4)


def test_of_two_columns_of_times_the_finer_one_is_read(tmp_path):
    rows = "".join(f"31.0,{1714912200 + int(t)},{t * 1000:.0f},{v}\n" for t, v in zip(T_S, beats(SAMPLES, 125), strict=True))
    (tmp_path / "r.csv").write_text("T [C],time [s],time_ms,ecg [mV]\n" + rows)
    record = open_recording(tmp_path / "r.csv")
    assert record.rate_hz == pytest.approx(RATE_HZ)
    assert "time from 'time [ms]'" in record.notes[0]


def test_chunks_of_a_long_table_follow_each_other(tmp_path):
    record = read(tmp_path, [f"{n / 500:.3f}" for n in range(150_000)], np.resize(beats(5000, 500), 150_000))
    chunks = list(record.read_chunks())
    assert sum(chunk.values.size for chunk in chunks) == 150_000
    assert max(chunk.values.size for chunk in chunks) <= 1 << 16
    ends = np.cumsum([chunk.values.size for chunk in chunks]) / 500
    assert [chunk.start_s for chunk in chunks[1:]] == pytest.approx(ends[:-1])
    assert all(chunk.continues for chunk in chunks[1:])

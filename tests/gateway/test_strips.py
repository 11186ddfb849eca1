"""The strips of alerts show the decision: ten seconds before the onset, the episode marked, and every beat labelled or `?`."""

import numpy as np
import pytest
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from gateway.strip_history import StripHistory
from gateway.strips import BEFORE_S, LONGEST_S, PART_S, cut_latest_strip, cut_strip
from models.analysis import EcgAnalysis
from models.findings import Finding
from models.inference.models import Models
from sync.record_codec import encode_records
from sync.records import AlertRecord, Strip
from sync.wire import PLAINTEXT_LIMIT_BYTES
from tests.cloud.synthetic import ecg_mv

RATE_HZ = 130.0
SECONDS = 60.0
BEATS_S = np.arange(0.5, SECONDS, 0.8).tolist()


def to_us(stream_s: float) -> int:
    return round(stream_s * 1e6)


def play(mv: NDArray[np.float64], chunk: int = 13) -> StripHistory:
    """Play an ECG in chunks."""
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, Models())
    history = StripHistory(analysis)
    for at in range(0, mv.size, chunk):
        for step in analysis.push_hops(mv[at : at + chunk]):
            history.add_step(step.beats)
    return history


@pytest.fixture(scope="module")
def played() -> StripHistory:
    """A minute of ECG at 75/min."""
    return play(ecg_mv(BEATS_S, SECONDS))


def cut(history: StripHistory, onset_s: float, end_s: float | None, kind: str = "vt", is_first: bool = True) -> Strip | None:
    return cut_strip(Finding(kind, onset_s, end_s, "rule"), to_us, history, is_first=is_first)


def span_s(strip: Strip | None) -> tuple[float, float]:
    assert strip is not None
    start_s = strip.start_us / 1e6
    return start_s, start_s + strip.samples.size / strip.rate_hz


def test_the_first_strip_begins_ten_seconds_before_the_onset_and_shows_beats_that_are_not_labelled_yet(
    played: StripHistory,
) -> None:
    strip = cut(played, 52.5, None)
    assert strip is not None
    assert span_s(strip) == pytest.approx((52.5 - BEFORE_S, SECONDS), abs=0.1)
    assert (strip.part, strip.mark_from_us) == ("first", to_us(52.5))
    assert strip.mark_to_us == pytest.approx(to_us(SECONDS), abs=100_000)
    real_s = [beat for beat in BEATS_S if 52.5 - BEFORE_S <= beat < SECONDS - 0.5]
    assert [at_us / 1e6 for at_us in strip.beats_us][: len(real_s)] == pytest.approx(real_s, abs=0.02)
    assert len(strip.labels) == len(strip.beats_us)
    assert set(strip.labels[:-3]) == {"N"}
    assert strip.labels[-1] == "?"


@pytest.mark.parametrize(
    ("onset_s", "end_s", "part", "from_s", "to_s"),
    [
        (40.0, 44.0, None, 30.0, 47.0),
        (40.0, 59.0, None, 30.0, 60.0),
        (25.0, 50.0, "last", 40.0, 53.0),
    ],
)
def test_the_strip_is_drawn_again_when_the_episode_ends(
    played: StripHistory, onset_s: float, end_s: float, part: str | None, from_s: float, to_s: float
) -> None:
    strip = cut(played, onset_s, end_s, is_first=False)
    assert strip is not None
    assert strip.part == part
    assert span_s(strip) == pytest.approx((from_s, to_s), abs=0.1)
    assert strip.mark_from_us is not None
    assert strip.mark_from_us / 1e6 == pytest.approx(max(onset_s, from_s), abs=0.02)
    assert strip.mark_to_us == to_us(end_s)


def test_the_worst_part_is_cut_where_a_later_finding_is_worse_and_no_strip_where_it_is_not(played: StripHistory) -> None:
    worst = cut(played, 20.0, None, "tachycardia", is_first=False)
    assert worst is not None
    assert worst.part == "worst"
    assert span_s(worst) == pytest.approx((SECONDS - PART_S, SECONDS), abs=0.1)
    assert cut(played, 20.0, None, "af", is_first=False) is None


def test_strips_are_bounded_in_length_and_size(played: StripHistory) -> None:
    for onset_s in np.arange(0.0, SECONDS, 3.3).tolist():
        for end_s in (None, onset_s, onset_s + 2.0, SECONDS):
            strip = cut(played, onset_s, end_s)
            _, stop_s = span_s(strip)
            assert stop_s - strip.start_us / 1e6 <= LONGEST_S + 0.02
            if strip.mark_from_us is not None and strip.mark_to_us is not None:
                assert strip.start_us <= strip.mark_from_us < strip.mark_to_us <= to_us(stop_s) + 1
            alert = AlertRecord("id", "strap", "vt", "high", 0, None, 0, "rule", (), strip=strip)
            assert len(encode_records([alert])) < PLAINTEXT_LIMIT_BYTES / 5
    latest = cut_latest_strip(to_us, played)
    assert latest is not None
    assert (latest.part, latest.mark_from_us) == ("first", None)

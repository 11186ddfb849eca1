"""Counts of matched beats, compared with an independent implementation and with the definition."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import open_recording
from captures.annotations import BEATS, read_annotations
from evaluation.matching import BeatCounts, compare, match
from models.signal.chain import EcgChain

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 uses functions that pandas 3 deprecates
    import wfdb.processing

instants = st.lists(st.integers(0, 60), max_size=6, unique=True).map(lambda ticks: np.array(sorted(ticks)) / 20)


def count_with_wfdb(reference, found, window):
    """Count matches with wfdb. Its window excludes its end: with a window of 54, beats 54 samples apart do not match."""
    result = wfdb.processing.compare_annotations(reference, found, window)
    return BeatCounts(result.tp, result.fp, result.fn)


@pytest.mark.parametrize("seed", range(8))
def test_counts_agree_with_wfdb(seed):
    """The detections are jittered, some are missed and some are false. None lies within the window of two
    reference beats: there wfdb pairs the nearest beats and may find fewer pairs.
    """
    rng = np.random.default_rng(seed)
    reference = np.cumsum(rng.integers(300, 430, 400))
    jittered = reference + np.clip(rng.normal(0, 30, 400), -75, 75).astype(int)
    found = np.sort(np.concatenate((jittered[rng.random(400) > 0.1], reference[::17] + 150)))
    assert compare(reference / 360, found / 360, 53.5 / 360) == count_with_wfdb(reference, found, 54)


def test_counts_of_a_detector_on_a_recording_agree_with_wfdb(data):
    record = open_recording(data / "mitdb" / "203.hea")
    notes = read_annotations(data / "mitdb" / "203.atr")
    reference = np.array([sample for sample, symbol in zip(notes.sample, notes.symbol, strict=True) if symbol in BEATS])
    found = np.array([round(beat.t_s * 360) for beat in EcgChain(360).push(record.mv)])
    assert compare(reference / 360, found / 360, 53.5 / 360) == count_with_wfdb(reference, found, 54)


@given(instants, instants)
def test_matching_has_the_largest_possible_number_of_pairs(reference, found):
    pairs = match(reference, found, 0.151)
    assert all(abs(reference[i] - found[j]) <= 0.151 for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert len(pairs) == max_pairs(reference, found)


def max_pairs(reference, found):
    """Search exhaustively: match the first reference beat with each possible detection, or with none."""
    if not reference.size:
        return 0
    partners = np.flatnonzero(np.abs(found - reference[0]) <= 0.151)
    return max([max_pairs(reference[1:], found), *(1 + max_pairs(reference[1:], np.delete(found, j)) for j in partners)])


def test_rates_from_counts():
    counts = BeatCounts(8, 2, 0) + BeatCounts(1, 0, 1)
    assert counts == BeatCounts(9, 2, 1)
    assert counts.sensitivity == 0.9
    assert counts.predictivity == 9 / 11
    assert counts.f1 == 18 / 21
    nothing = compare(np.empty(0), np.empty(0))
    assert all(np.isnan(value) for value in (nothing.sensitivity, nothing.predictivity, nothing.f1))

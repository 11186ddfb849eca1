"""Which beats count and which are paired: by hand, against WFDB's comparison, and against a port of `bxb`."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.annotations import BEATS, Annotations
from evaluation.ec57 import LABELS, Reference, load_reference, nearest_pairs, pair, reference
from evaluation.matching import match

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb
    import wfdb.processing


def read_with_wfdb(path: str) -> "wfdb.Annotation":
    with warnings.catch_warnings(action="ignore"):
        return wfdb.rdann(path, "atr")


instants = st.lists(st.integers(0, 60), max_size=8, unique=True).map(lambda ticks: np.array(sorted(ticks)) / 20)


def notes(*entries: tuple[float, str], rate_hz: float | None = None) -> Annotations:
    """Annotations from (seconds, symbol), at 100 ticks per second."""
    return Annotations(
        np.array([round(100 * t) for t, _ in entries], np.int64), tuple(s for _, s in entries), ("",) * len(entries), rate_hz
    )


def beats_at(*times_s: float, excluded: tuple[tuple[float, float], ...] = ()) -> Reference:
    return Reference(np.array(times_s, np.float64), ("N",) * len(times_s), excluded)


def counts(truth: Reference, *detected_s: float) -> tuple[int, int, int]:
    found = pair(truth, np.array(detected_s, np.float64)).counts
    return found.tp, found.fp, found.fn


def test_every_beat_symbol_has_a_class() -> None:
    assert LABELS.keys() == BEATS
    assert set(LABELS.values()) == set("NSVFQ")


def test_classes_are_those_of_de_chazal() -> None:
    """de Chazal, O'Dwyer & Reilly 2004, table I."""
    classes = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
    assert {symbol: name for name, symbols in classes.items() for symbol in symbols}.items() <= LABELS.items()


def test_the_first_five_minutes_do_not_count() -> None:
    truth = beats_at(299.0, 299.95, 300.0, 301.0)
    assert counts(truth, 298.0, 299.0, 300.05, 301.0) == (2, 0, 0)
    assert counts(truth, 299.9, 299.98, 301.0) == (2, 0, 0)  # 299.98 is the beat at 300.0
    assert counts(truth, 300.05) == (1, 0, 1)


def test_a_detection_after_five_minutes_paired_with_a_beat_before_is_not_false() -> None:
    assert counts(beats_at(299.95, 301.0), 300.02, 301.0) == (1, 0, 0)


def test_the_window_includes_its_end() -> None:
    assert counts(beats_at(400.0), 400.125) == (1, 0, 0)
    assert counts(beats_at(400.0), 399.875) == (1, 0, 0)
    assert counts(beats_at(400.0), 400.151) == (0, 1, 1)


def test_a_beat_is_paired_with_the_nearer_of_two_detections() -> None:
    assert nearest_pairs(np.array([1.0]), np.array([0.9, 1.01]), 0.15).tolist() == [[0, 1]]
    assert nearest_pairs(np.array([0.9, 1.01]), np.array([1.0]), 0.15).tolist() == [[1, 0]]


def test_detections_during_flutter_do_not_count() -> None:
    truth = reference(notes((310, "N"), (311, "["), (312, "!"), (313, "!"), (314, "V"), (315, "]"), (316, "N")), 100)
    assert truth.times_s.tolist() == [310, 316]
    assert counts(truth, 310, 311.5, 313, 314.9, 316, 317) == (2, 1, 0)


def test_flutter_without_an_end_mark_lasts_to_the_end_of_the_record() -> None:
    truth = reference(notes((310, "N"), (320, "[")), 100)
    assert counts(truth, 310, 319, 321, 999) == (1, 1, 0)


def test_a_detection_at_a_flutter_wave_without_brackets_is_not_false() -> None:
    truth = reference(notes((310, "N"), (320, "!")), 100)
    assert counts(truth, 310, 320.1, 321) == (1, 1, 0)


def test_beats_that_were_not_received_do_not_count() -> None:
    known = beats_at(301.0, 302.0, 303.0).only(np.array([True, False, True]))
    assert known.times_s.tolist() == [301.0, 303.0]
    assert counts(known, 301.0, 302.1, 303.0) == (2, 0, 0)
    assert counts(known, 301.0, 302.2, 303.0) == (2, 1, 0)
    assert counts(known, 301.0) == (1, 0, 1)


def test_uses_the_tick_rate_of_the_file_where_it_states_one() -> None:
    assert reference(notes((310, "N")), 200).times_s.tolist() == [155]
    assert reference(notes((310, "N"), rate_hz=100), 200).times_s.tolist() == [310]


def test_recognises_paced_records(data: Path) -> None:
    paced = {path.stem for path in (data / "mitdb").glob("*.atr") if load_reference(path, 360.0).paced}
    assert paced & {"102", "104", "107", "217"} == paced  # Moody & Mark 2001


def test_leaves_out_the_flutter_of_record_207(data: Path) -> None:
    path = data / "mitdb" / "207.atr"
    truth = load_reference(path, 360.0)
    noted = read_with_wfdb(str(path.with_suffix("")))
    assert len(truth.excluded) == noted.symbol.count("[") == 6
    assert sum(end - start for start, end in truth.excluded) == pytest.approx(
        142.6, abs=0.5
    )  # 2:24 of VFL by the database's notes


@pytest.mark.parametrize("name", ["203", "208", "119"])
def test_counts_agree_with_wfdb(name: str, data: Path, detected: Callable[[str], np.ndarray]) -> None:
    """WFDB's window excludes its end, and WFDB pairs each reference beat with the nearest detection."""
    path = data / "mitdb" / name
    noted = read_with_wfdb(str(path))
    counted = (noted.sample >= 300 * 360) & (noted.sample < 600 * 360)
    beats = noted.sample[[symbol in BEATS for symbol in noted.symbol] & counted]
    found = np.round(detected(name) * 360).astype(int)
    truth = load_reference(path.with_suffix(".atr"), 360.0).until(600.0)
    for window, width in ((53.5, 54), (17.5, 18)):
        by_wfdb = wfdb.processing.compare_annotations(beats, found[found >= 300 * 360], width)
        ours = pair(truth, found / 360, window / 360).counts
        assert (ours.tp, ours.fp, ours.fn) == (by_wfdb.tp, by_wfdb.fp, by_wfdb.fn)


@given(instants, instants)
def test_pairs_are_within_the_window_unique_and_in_order(one: np.ndarray, other: np.ndarray) -> None:
    pairs = nearest_pairs(one, other, 0.151)
    assert (np.abs(one[pairs[:, 0]] - other[pairs[:, 1]]) <= 0.151).all()
    assert (np.diff(pairs, axis=0) > 0).all()
    assert len(pairs) <= len(match(one, other, 0.151))


@given(instants, instants)
def test_pairs_agree_with_a_port_of_bxb(one: np.ndarray, other: np.ndarray) -> None:
    assert [tuple(both) for both in nearest_pairs(one, other, 0.151).tolist()] == by_bxb(one.tolist(), other.tolist(), 0.151)


def by_bxb(reference_s: list[float], test_s: list[float], window_s: float) -> list[tuple[int, int]]:
    """The four actions of WFDB's `bxb.c`, from its comments: each step pairs or discards the earlier of the two annotations."""
    huge = float("inf")
    pairs, i, j = [], 0, 0
    while i < len(reference_s) or j < len(test_s):
        here, next_here = [*reference_s, huge, huge][i : i + 2]
        there, next_there = [*test_s, huge, huge][j : j + 2]
        if there < here:
            matched = here - there <= window_s and here - there < abs(here - next_there)
        else:
            matched = there - here <= window_s and there - here < abs(there - next_here)
        if matched:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif there < here:
            j += 1
        else:
            i += 1
    return pairs

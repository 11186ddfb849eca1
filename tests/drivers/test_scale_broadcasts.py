"""Scales that advertise: the frames of one weighing make one result."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from drivers.mi_body_scale import decode_frame as decode_body_frame
from drivers.mi_scale import decode_frame
from drivers.readings import Vital

SET: Final = bytes.fromhex("E607020E10293A")
"""14 February 2022, 16:41:58."""
LATER: Final = bytes.fromhex("E607020E10293B")
RAWS: Final = st.integers(1, 0xFFFF)
Result = dict[tuple[int, str], float]


def results(*frames: bytes) -> Result:
    """The readings as the hub keeps them: one for each group and kind."""
    decode = decode_frame if len(frames[0]) == 10 else decode_body_frame
    readings = [reading for frame in frames for reading in decode(frame)]
    return {(r.origin.group, r.kind): r.value for r in readings if isinstance(r, Vital) and r.origin}


def frame(state: int, raw: int, time: bytes = SET) -> bytes:
    return bytes((state,)) + raw.to_bytes(2, "little") + time


def body_frame(state: int, raw: int, impedance: int = 0xFFFD, time: bytes = SET) -> bytes:
    return state.to_bytes(2, "little") + time + impedance.to_bytes(2, "little") + raw.to_bytes(2, "little")


@given(raw=RAWS, repeats=st.integers(1, 5))
def test_repeated_and_removed_frames_are_one_weighing(raw: int, repeats: int) -> None:
    settling = [frame(0x02, raw // 2), frame(0x02, raw)]
    one = results(*settling, *[frame(0x22, raw)] * repeats, *[frame(0xA2, raw)] * repeats)
    assert list(one.values()) == [raw / 200]


@given(raw=RAWS, impedance=st.integers(1, 0xFFFC))
def test_the_impedance_that_follows_belongs_to_the_same_weighing(raw: int, impedance: int) -> None:
    frames = body_frame(0x0402, raw), body_frame(0x2402, raw), body_frame(0x2602, raw, impedance)
    one = results(*frames, body_frame(0xA602, raw, impedance), body_frame(0xA602, raw, impedance))
    assert len({group for group, _ in one}) == 1
    assert {kind: value for (_, kind), value in one.items()} == {"weight": raw / 200, "impedance": impedance}


@given(raw=RAWS)
def test_another_time_or_weight_is_another_weighing(raw: int) -> None:
    assert len(results(frame(0x22, raw), frame(0x22, raw, LATER))) == 2
    assert len(results(frame(0x22, raw), frame(0x22, raw ^ 0x8000))) == 2
    assert len(results(body_frame(0x2402, raw), body_frame(0x2402, raw, time=LATER))) == 2


@given(raw=RAWS, state=st.integers(0, 0xFFFF))
def test_only_a_stable_weight_of_a_person_is_a_reading(raw: int, state: int) -> None:
    single = state & 0xFF & ~0x11
    assert bool(results(frame(single, raw))) == (bool(single & 0x20) and not single & 0x40)
    double = state & ~0x4001
    assert bool(results(body_frame(double, raw))) == (bool(double & 0x2000) and not double & 0x0004)

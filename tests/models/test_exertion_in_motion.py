"""A rate that rises gradually while the wearer moves waits longer; nothing else does."""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS, Limits
from models.findings import Finding
from models.rules.exertion import MOVING_REASON, RECOVERY_S, ExertionRule
from models.rules.rates import RateRule
from tests.models.test_exertion import REST, ramp, steady

Moving = Callable[[float], bool | None]
RISE: Final = [*REST, *ramp(75, 140, 120)]
RISEN_S: Final = sum(REST) + 120 * (131 - 75) / (140 - 75)
"""When the rate of this rise passes 131/min."""
SHORT: Final = DEFAULT_LIMITS.with_values({"exertion_persistence": 30.0, "exertion_moving_persistence": 90.0})
"""The waits of a rule that is tested many times."""


def play(rr_s: Iterable[float], is_moving: Moving, limits: Limits = DEFAULT_LIMITS) -> list[tuple[float, Finding]]:
    """The findings of the rule, each with the time of the beat at which it was reported."""
    exertion = ExertionRule(limits)
    rule, found = RateRule("tachycardia", limits, exertion), list[tuple[float, Finding]]()
    beats = list(rr_s)
    for t_s, rr in zip(accumulate(beats), beats, strict=True):
        exertion.is_moving = is_moving(t_s)
        found += [(t_s, finding) for finding in rule.on_beat(t_s, rr)]
    return found


def test_a_walk_of_25_min_is_not_raised() -> None:
    walk = [*RISE, *steady(140, 1400), *ramp(140, 75, 90), *REST]
    assert not play(walk, lambda t_s: t_s < sum(RISE) + 1400)


@pytest.mark.parametrize("is_moving", [False, None])
def test_the_same_rate_at_rest_is_raised_after_10_min_and_does_not_tell_of_motion(is_moving: bool | None) -> None:
    ((at_s, finding),) = play([*RISE, *steady(140, 900)], lambda _t_s: is_moving)
    assert at_s - RISEN_S == pytest.approx(600, abs=10)
    assert finding.reasons == ()


def test_a_walk_without_an_end_is_raised_after_30_min_and_tells_of_the_motion() -> None:
    ((at_s, finding),) = play([*RISE, *steady(140, 2000)], lambda _t_s: True)
    assert at_s - RISEN_S == pytest.approx(1800, abs=10)
    assert finding.reasons == (MOVING_REASON,)


def test_a_rate_that_stays_fast_after_the_motion_is_raised_two_minutes_later() -> None:
    stopped_s = sum(RISE) + 900
    ((at_s, finding),) = play([*RISE, *steady(140, 1200)], lambda t_s: t_s < stopped_s)
    assert at_s - stopped_s == pytest.approx(RECOVERY_S, abs=2)
    assert finding.reasons == ()


def test_a_rate_that_rose_at_rest_is_not_that_of_a_later_motion() -> None:
    ((at_s, finding),) = play([*RISE, *steady(140, 900)], lambda t_s: t_s > RISEN_S + 90)
    assert at_s - RISEN_S == pytest.approx(600, abs=10)
    assert finding.reasons == (MOVING_REASON,)


def test_motion_that_is_known_a_minute_after_the_rise_counts() -> None:
    assert not play([*RISE, *steady(140, 1400)], lambda t_s: t_s > RISEN_S + 55)


def test_a_standstill_in_a_walk_does_not_end_it() -> None:
    assert not play([*RISE, *steady(140, 1400)], lambda t_s: not 300 < t_s < 300 + RECOVERY_S - 5)


def test_an_end_tells_of_the_motion_at_the_onset() -> None:
    found = play([*RISE, *steady(140, 2000), *ramp(140, 75, 60), *REST], lambda _t_s: True)
    assert [finding.reasons for _, finding in found] == [(MOVING_REASON,)] * 2
    found = play([*REST, *steady(170, 60), *steady(75, 60), *ramp(75, 140, 60), *steady(140, 700)], lambda t_s: t_s < 150)
    assert [finding.reasons for _, finding in found] == [(MOVING_REASON,), (MOVING_REASON,), ()]


MOTION = st.lists(st.tuples(st.floats(1, 120), st.sampled_from([True, False, None])), min_size=1, max_size=12)
"""Stretches of motion, rest and of what is not known, each with its length in seconds."""
NOT_EXERTION: Final = {
    "sudden 135": [*REST, *steady(135, 30)],
    "sudden 170": [*REST, *steady(170, 30)],
    "sudden during a walk": [*RISE, *steady(170, 30)],
    "critical": [*REST, *ramp(75, 205, 40), *steady(205, 30)],
    "from the start": steady(140, 30),
    "gradual to 155": [*REST, *ramp(75, 155, 60), *steady(155, 90)],
}


def follow(stretches: list[tuple[float, bool | None]]) -> Moving:
    ends_s = list(accumulate(seconds for seconds, _ in stretches))

    def is_moving(t_s: float) -> bool | None:
        left_s = t_s % ends_s[-1]
        return next(moves for end_s, (_, moves) in zip(ends_s, stretches, strict=True) if left_s <= end_s)

    return is_moving


@pytest.mark.parametrize("rhythm", sorted(NOT_EXERTION))
@settings(max_examples=12)
@given(motion=MOTION)
def test_no_motion_delays_what_is_not_exertion_below_150(rhythm: str, motion: list[tuple[float, bool | None]]) -> None:
    beats = NOT_EXERTION[rhythm]
    at_rest, in_motion = play(beats, lambda _t_s: None), play(beats, follow(motion))
    assert [(at_s, finding.onset_s, finding.measured) for at_s, finding in in_motion] == [
        (at_s, finding.onset_s, finding.measured) for at_s, finding in at_rest
    ]
    assert at_rest


@settings(max_examples=25)
@given(bpm=st.floats(132, 149), motion=MOTION)
def test_motion_never_raises_sooner_and_never_holds_longer_than_its_limit(
    bpm: float, motion: list[tuple[float, bool | None]]
) -> None:
    beats = [*REST, *ramp(75, bpm, 60), *steady(bpm, 120)]
    ((at_rest_s, _),) = play(beats, lambda _t_s: None, SHORT)
    ((in_motion_s, finding),) = play(beats, follow(motion), SHORT)
    assert at_rest_s <= in_motion_s <= finding.onset_s + 90 + 10

"""The published scripts: what they promise, and what a malformed one is told."""

from itertools import pairwise

import pytest

from gateway.simulate.script import DECISION_S, Episode, ScriptError, expected, load_script, parse, script_names

SINUS = '[[segment]]\nrhythm = "sinus"\nduration_s = 10\nrate_bpm = 60\n'


def test_the_published_scripts_load() -> None:
    assert script_names() == ("demo", "latency")
    assert all(load_script(name).segments for name in script_names())


def test_a_demo_of_ninety_seconds_holds_af_tachycardia_and_pause() -> None:
    found = expected(load_script("demo"), 90)
    assert [episode.kind for episode in found] == ["af", "tachycardia", "pause"]
    af, tachycardia, pause = found
    assert af.end_s - af.onset_s >= 48
    assert tachycardia.end_s - tachycardia.onset_s >= 14
    assert pause.end_s <= 87


def test_a_demo_of_sixty_seconds_holds_af() -> None:
    assert [episode.kind for episode in expected(load_script("demo"), 60)] == ["af"]


def test_every_kind_of_alert_is_in_the_demo() -> None:
    assert {episode.kind for episode in load_script("demo").episodes()} == set(DECISION_S)


def test_the_script_repeats() -> None:
    script = load_script("demo")
    once, twice = expected(script, script.period_s), expected(script, 2 * script.period_s)
    assert twice[: len(once)] == once
    assert [(e.kind, e.onset_s) for e in twice[len(once) :]] == [(e.kind, e.onset_s + script.period_s) for e in once]


def test_an_episode_counts_once_there_was_time_to_decide_it() -> None:
    script = parse("one", "seed = 1\n" + SINUS + '[[segment]]\nrhythm = "pause"\nduration_s = 3.5\nrate_bpm = 60\n')
    at = 10 + DECISION_S["pause"]
    assert expected(script, at - 0.001) == ()
    assert expected(script, at) == (Episode("pause", 10.0, 13.5),)


def test_the_latency_script_has_a_pause_every_eight_seconds_or_so() -> None:
    onsets = [episode.onset_s for episode in expected(load_script("latency"), 120)]
    gaps = [after - before for before, after in pairwise(onsets)]
    assert len(onsets) >= 13
    assert all(7.5 < gap < 8.6 for gap in gaps)
    assert len({round(gap, 3) for gap in gaps}) > 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "script x: "),
        ("seed = 1", "'segment'"),
        (SINUS, "'seed'"),
        ("seed = 1\n" + SINUS.replace("sinus", "waltz"), "segment 1: rhythm 'waltz' is none of sinus, af"),
        ("seed = 1\n" + SINUS + SINUS.replace("60", "300"), "segment 2: rate_bpm 300 is not within"),
        ("seed = 1\n" + SINUS.replace("10", "0"), "duration_s 0 is not within"),
        ("seed = 1\n" + SINUS + "pvc_s = [11.0]", "lies outside the segment's 10 s"),
        ("seed = 1\n" + SINUS + "tempo = 3", "tempo"),
        ("seed = 1\n" + SINUS.replace("rate_bpm = 60", ""), "rate_bpm"),
    ],
)
def test_a_malformed_script_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        parse("x", text)


def test_an_unknown_script_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ScriptError, match="no script 'ballet': choose one of demo, latency"):
        load_script("ballet")

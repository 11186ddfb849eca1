"""The built-in scripts: their expected episodes, and the errors of malformed scripts."""

from itertools import pairwise

import pytest

from gateway.simulate.script import (
    MAX_ALERT_DELAY_S,
    Episode,
    ScriptError,
    expected_episodes,
    load_script,
    parse_script,
    script_names,
)

SINUS = '[[segment]]\nrhythm = "sinus"\nduration_s = 10\nrate_bpm = 60\n'


def test_the_built_in_scripts_load() -> None:
    assert script_names() == ("demo", "latency")
    assert all(load_script(name).segments for name in script_names())


def test_ninety_seconds_of_the_demo_contain_af_tachycardia_and_pause() -> None:
    episodes = expected_episodes(load_script("demo"), 90)
    assert [episode.kind for episode in episodes] == ["af", "tachycardia", "pause"]
    af, tachycardia, pause = episodes
    assert af.end_s - af.onset_s >= 48
    assert tachycardia.end_s - tachycardia.onset_s >= 14
    assert pause.end_s <= 87


def test_sixty_seconds_of_the_demo_contain_af() -> None:
    assert [episode.kind for episode in expected_episodes(load_script("demo"), 60)] == ["af"]


def test_the_demo_contains_every_kind_of_episode() -> None:
    assert {episode.kind for episode in load_script("demo").episodes()} == set(MAX_ALERT_DELAY_S)


def test_the_script_repeats() -> None:
    script = load_script("demo")
    once, twice = expected_episodes(script, script.period_s), expected_episodes(script, 2 * script.period_s)
    assert twice[: len(once)] == once
    assert [(e.kind, e.onset_s) for e in twice[len(once) :]] == [(e.kind, e.onset_s + script.period_s) for e in once]


def test_an_episode_is_expected_after_the_maximum_delay_of_its_alert() -> None:
    script = parse_script("one", "seed = 1\n" + SINUS + '[[segment]]\nrhythm = "pause"\nduration_s = 3.5\nrate_bpm = 60\n')
    due_s = 10 + MAX_ALERT_DELAY_S["pause"]
    assert expected_episodes(script, due_s - 0.001) == ()
    assert expected_episodes(script, due_s) == (Episode("pause", 10.0, 13.5),)


def test_the_latency_script_has_a_pause_about_every_eight_seconds() -> None:
    onsets = [episode.onset_s for episode in expected_episodes(load_script("latency"), 120)]
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
        ("seed = 1\n" + SINUS.replace("sinus", "waltz"), "segment 1: rhythm 'waltz' is not one of sinus, af"),
        ("seed = 1\n" + SINUS + SINUS.replace("60", "300"), "segment 2: rate_bpm 300 is not within"),
        ("seed = 1\n" + SINUS.replace("10", "0"), "duration_s 0 is not within"),
        ("seed = 1\n" + SINUS + "pvc_s = [11.0]", "is outside the segment's 10 s"),
        ("seed = 1\n" + SINUS + "tempo = 3", "tempo"),
        ("seed = 1\n" + SINUS.replace("rate_bpm = 60", ""), "rate_bpm"),
    ],
)
def test_a_malformed_script_is_rejected_with_the_location(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        parse_script("x", text)


def test_the_error_for_an_unknown_script_lists_the_known_ones() -> None:
    with pytest.raises(ScriptError, match="no script 'ballet': choose one of demo, latency"):
        load_script("ballet")

"""Episodes of fibrillation, tachycardia and asystole from one verdict a second."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.rules.ventricular_episodes import MAX_UNKNOWN_S, OFF_WINDOWS, VentricularEpisodes, Window
from models.signal.rhythm_window import ASYSTOLE, NOISE, ORGANISED, VF, VT


def window(rhythm: int, share: float = 0.95, bpm: float = 240, similarity: float = 0.5, slow: float = 0.1) -> Window:
    probabilities = [(1 - share) / 4] * 5
    probabilities[rhythm] = share
    return Window(tuple(probabilities), 60 / bpm, similarity, slow)


def run(windows: Sequence[Window | None]) -> list[tuple[int, Finding]]:
    """Feed one window a second from 5 s on; return the findings with the second at which they came."""
    episodes = VentricularEpisodes("ecg_organised@1", DEFAULT_LIMITS)
    return [(second, finding) for second, each in enumerate(windows, 5) for finding in episodes.on_window(second, each)]


def test_fibrillation_is_raised_at_its_fifth_window_and_lasts_until_ten_organised_ones() -> None:
    findings = run([*[window(ORGANISED)] * 20, *[window(VF)] * 30, *[window(ORGANISED)] * 20])
    (raised, began), (ended, end) = findings
    assert (began.kind, began.end_s, began.source) == ("vf", None, "ecg_organised@1")
    assert raised - 25 <= 5
    assert began.onset_s == raised - 7
    assert ended == 25 + 30 + OFF_WINDOWS - 1
    assert (end.kind, end.onset_s, end.lost) == ("vf", began.onset_s, False)
    assert end.end_s == ended


@pytest.mark.parametrize(
    ("one", "kind", "windows"),
    [
        (window(VF), "vf", 5),
        (window(VT, bpm=160, similarity=0.9), "vt", 5),
        (window(ASYSTOLE), "asystole", 4),
    ],
)
def test_each_rhythm_needs_its_number_of_windows(one: Window, kind: str, windows: int) -> None:
    assert not run([one] * (windows - 1))
    ((_, finding),) = run([one] * windows)
    assert finding.kind == kind


def test_three_ventricular_beats_in_a_row_which_four_windows_hold_are_no_fibrillation() -> None:
    assert not run([*[window(ORGANISED)] * 10, *[window(VF)] * 4, *[window(ORGANISED)] * 10] * 3)


def test_no_asystole_while_the_amplifier_recovers_from_a_jump_of_the_baseline() -> None:
    jump = replace(window(ASYSTOLE), jumps=True)
    assert not run([*[window(ORGANISED)] * 10, *[jump] * 5, *[window(ASYSTOLE)] * 2, *[window(ORGANISED)] * 10])
    assert run([*[window(ORGANISED)] * 10, *[jump] * 5, *[window(ASYSTOLE)] * 4])


def test_rhythms_that_turn_into_one_another_raise_one_finding() -> None:
    mixed = [window(VF, 0.5), window(VT, 0.5), window(VF, 0.6), window(VT, 0.6)]
    assert [finding.kind for _, finding in run(mixed * 3)] == ["vf"]


def test_a_short_calm_noise_or_chest_compressions_do_not_end_fibrillation() -> None:
    findings = run([*[window(VF)] * 5, *[window(ORGANISED)] * 6, *[window(VF)] * 5, *[window(NOISE)] * 60, *[window(VF)] * 5])
    assert [finding.end_s for _, finding in findings] == [None]


def test_noise_raises_nothing() -> None:
    assert not run([window(NOISE)] * 100)


def test_tachycardia_that_turns_into_fibrillation_ends_and_fibrillation_begins() -> None:
    regular = window(VT, bpm=160, similarity=0.9)
    assert len(run([*[regular] * 6, *[window(VF)] * 1, *[regular] * 6])) == 1
    findings = [finding for _, finding in run([*[regular] * 6, *[window(VF)] * 6, *[regular] * 6])]
    assert [(finding.kind, finding.end_s is None) for finding in findings] == [("vt", True), ("vt", False), ("vf", True)]


class TestRates:
    @pytest.mark.parametrize("rhythm", [VF, VT])
    def test_a_rhythm_with_most_power_below_2_hz_is_neither(self, rhythm: int) -> None:
        assert not run([window(rhythm, slow=0.5)] * 20)
        assert run([window(ASYSTOLE, slow=0.5)] * 20)

    def test_one_slow_window_shows_that_it_does_not_last(self) -> None:
        assert not run([*[window(VF)] * 4, window(VF, slow=0.5)] * 4)
        assert run([window(VF, slow=0.5), *[window(VF)] * 5])

    def test_a_regular_rhythm_up_to_220_is_a_tachycardia_whatever_its_shape(self) -> None:
        ((_, finding),) = run([window(VF, bpm=180, similarity=0.95)] * 6)
        assert (finding.kind, finding.measured["rate_bpm"]) == ("vt", 180)

    @pytest.mark.parametrize(("rhythm", "kind"), [(VF, "vf"), (VT, "vt")])
    def test_a_faster_one_keeps_its_name(self, rhythm: int, kind: str) -> None:
        ((_, finding),) = run([window(rhythm, bpm=230, similarity=0.95)] * 6)
        assert finding.kind == kind

    def test_one_that_is_not_regular_is_fibrillation(self) -> None:
        ((_, finding),) = run([window(VT, bpm=160, similarity=0.5)] * 6)
        assert finding.kind == "vf"

    def test_slowness_does_not_end_what_has_begun(self) -> None:
        compressions = [window(VF, bpm=60, similarity=0.95, slow=0.8)] * 30
        assert len(run([*[window(VF)] * 5, *compressions])) == 1

    def test_a_tachycardia_states_beats_and_rate(self) -> None:
        ((_, finding),) = run([window(VT, bpm=156, similarity=0.95)] * 5)
        assert finding.measured == {"rate_bpm": 156.0, "beats": 18.0, "limit_beats": 3, "limit_bpm": 100}


class TestFlutter:
    @pytest.mark.parametrize("rhythm", [VT, VF])
    def test_a_regular_rhythm_from_240_per_minute_is_flutter_whatever_the_network_calls_it(self, rhythm: int) -> None:
        ((_, finding),) = run([window(rhythm, bpm=250, similarity=0.95)] * 5)
        assert finding.kind == "vf"

    def test_a_fibrillation_that_repeats_itself_after_two_waves_has_the_rate_of_its_waves(self) -> None:
        ((_, finding),) = run([replace(window(VT, bpm=150, similarity=0.85), wave_hz=5.0, wave_share=0.7)] * 5)
        assert finding.kind == "vf"

    def test_an_oscillation_without_complexes_is_flutter_at_any_rate(self) -> None:
        wave = replace(window(VT, bpm=125, similarity=0.99, slow=0.5), wave_hz=2.0, wave_share=0.99)
        ((_, finding),) = run([wave] * 5)
        assert finding.kind == "vf"

    def test_a_regular_rhythm_of_complexes_below_220_per_minute_is_a_tachycardia(self) -> None:
        ((_, finding),) = run([window(VF, bpm=215, similarity=0.95)] * 5)
        assert finding.kind == "vt"


class TestLostSignal:
    def test_the_episode_is_lost_when_nothing_can_be_classified(self) -> None:
        findings = run([*[window(VF)] * 5, *[None] * 20])
        ((_, _), (second, lost)) = findings
        assert lost.lost
        assert lost.end_s == 9
        assert second == 9 + MAX_UNKNOWN_S

    def test_a_short_interruption_changes_nothing(self) -> None:
        assert len(run([*[window(VF)] * 5, *[None] * 8, *[window(VF)] * 5])) == 1

    @pytest.mark.parametrize(
        ("noisy", "seen_again", "is_lost"), [(9, 0, False), (10, 0, True), (10, 5, False)], ids=["short", "long", "seen again"]
    )
    def test_an_organised_rhythm_after_long_noise_ends_it_as_lost(self, noisy: int, seen_again: int, is_lost: bool) -> None:
        after = [*[window(VF)] * seen_again, *[window(ORGANISED)] * 20]
        (_, (_, ended)) = run([*[window(VF)] * 5, *[window(NOISE)] * noisy, *after])
        assert ended.lost == is_lost

    def test_new_evidence_raises_it_again(self) -> None:
        findings = [finding for _, finding in run([*[window(VF)] * 5, *[None] * 20, *[window(VF)] * 5])]
        assert [finding.end_s is None for finding in findings] == [True, False, True]


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(0.2, 1.0), st.floats(46, 375), st.floats(0, 1), st.floats(0, 1)) | st.none()
    )
)
def test_episodes_follow_one_another_and_each_ends_once(values: list[tuple[int, float, float, float, float] | None]) -> None:
    open_episode: tuple[str, float] | None = None
    for _, finding in run([None if each is None else window(*each) for each in values]):
        if finding.end_s is None:
            assert open_episode is None
            open_episode = finding.kind, finding.onset_s
        else:
            assert (finding.kind, finding.onset_s) == open_episode
            assert finding.end_s >= finding.onset_s
            open_episode = None

"""The account of a chaos run finds what is lost, there twice or not explained."""

from collections import Counter

from benchmarks.chaos.account import Opened, account_writer


def opened(*numbers: int, gaps: tuple[tuple[int, int], ...] = (), steps: tuple[tuple[int, int], ...] = ()) -> Opened:
    alerts = Counter(number for number in numbers if number % 10 == 0)
    return Opened(Counter(numbers), Counter(numbers), alerts, gaps, steps)


def test_what_a_gap_names_is_explained_and_nothing_else() -> None:
    account = account_writer([1, 2, 6, 7], opened(1, 2, 6, 7, gaps=((2, 6),)), [])
    assert (account.in_gaps, account.unexplained, account.lost) == (3, (), ())
    account = account_writer([1, 2, 6, 7], opened(1, 2, 6, 7, gaps=((2, 5),)), [])
    assert (account.in_gaps, account.unexplained, account.lost) == (2, (5,), ())


def test_what_a_hub_was_told_is_durable_is_lost_though_a_gap_names_it() -> None:
    account = account_writer([1, 2, 3], opened(1, 3, gaps=((1, 3),)), [])
    assert (account.lost, account.unexplained) == ((2,), ())
    assert account_writer([1, 2, 3], opened(1, 2), []).lost == (3,)


def test_what_is_missing_in_one_lane_is_lost() -> None:
    whole = opened(9, 10, 11)
    without_alert = Opened(whole.vitals, whole.waveforms, Counter())
    without_wave = Opened(whole.vitals, Counter([9, 10]), whole.alerts)
    assert account_writer([9, 10, 11], without_alert, []).lost == (10,)
    assert account_writer([9, 10, 11], without_wave, []).lost == (11,)


def test_what_was_replaced_by_an_older_buffer_is_rolled_back_and_still_needs_a_gap() -> None:
    account = account_writer([1, 2, 3, 4, 6], opened(1, 2, 6, gaps=((2, 6),)), [(2, 4)])
    assert (account.rolled_back, account.in_gaps, account.lost, account.unexplained) == (2, 1, (), ())
    account = account_writer([1, 2, 3, 4, 6], opened(1, 2, 6), [(2, 4)])
    assert (account.lost, account.unexplained) == ((), (3, 4, 5))
    assert account_writer([1, 2, 3, 4, 6], opened(2, 6, gaps=((2, 6),)), [(2, 4)]).lost == (1,)


def test_what_is_opened_twice_is_a_duplicate_and_what_nobody_stored_is_invented() -> None:
    assert account_writer([1], opened(1, 1), []).duplicates == 2  # as vital sign and as waveform
    whole = opened(1)
    assert account_writer([1], Opened(whole.vitals, Counter([1, 2]), Counter([10])), []).invented == 2


def test_what_was_stored_and_not_noted_before_the_kill_is_no_loss() -> None:
    account = account_writer([1], opened(1, 2), [])
    assert (account.acknowledged, account.opened, account.lost, account.unexplained) == (1, 2, (), ())


def test_between_two_numbers_that_followed_each_other_nothing_is_missing_but_what_was_acknowledged() -> None:
    account = account_writer([1, 5], opened(1, 5, steps=((1, 5),)), [])
    assert (account.in_gaps, account.unexplained) == (0, ())
    account = account_writer([1, 3, 5], opened(1, 5, steps=((1, 5),)), [])
    assert (account.lost, account.unexplained) == ((3,), (3,))
